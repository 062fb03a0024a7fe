//! Does the simulator tell the truth? The same requests twice: in virtual time through the simulator, and in real time,
//! some times faster than they came, through `UnifiedLLMClient` against the emulator over HTTP.
//!
//! Whatever can be chosen is chosen once and given to both: one configuration, one quota, one `max_tokens`, and for each
//! request the simulator's own draw of how long it takes. What may differ is then only what the simulator leaves out:
//! sockets, timers, tasks that wait for a processor. How much that matters is what [`Report`] says.
//!
//! [`Settings`] say what is replayed, `plan` gives both sides the same, `real` runs the real one. No terminal here.

mod plan;
mod real;
mod report;

use std::time::Duration;

use omega_sim::{Charge, Trace};

pub use report::{Report, Side};

/// What is replayed, and against what.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The requests. Those of fewer than [`INPUT_MIN`] input tokens count as that many, on both sides.
    pub trace: Trace,
    /// What the trace offers in tokens, over the provider's quota.
    pub load: f64,
    /// Seconds of quota the provider lets pass at once.
    pub burst_seconds: f64,
    /// When it charges tokens.
    pub charge: Charge,
    /// A rejected call takes no request from the quota.
    pub free_429: bool,
    /// What may be added to a request that still counts as answered in time; also the longest wait.
    pub deadline: Duration,
    /// Whether the client keeps to the quota before it sends. Without, it learns of it by 429s.
    pub rate_limiting: bool,
    /// The quota the client keeps back from the burst, in trace time.
    pub depth_margin: Duration,
    /// How many times faster than they came the requests are sent in the real run.
    pub time_scale: f64,
    /// Where chance begins.
    pub seed: u64,
}

/// The smallest input: the words that tell the emulator a request's size and times fit into it.
pub const INPUT_MIN: u32 = 48;

impl Settings {
    /// This trace at 1.2 times its quota, 25 times faster than it happened, and otherwise the simulator's defaults.
    pub fn new(trace: Trace) -> Self {
        Self {
            trace,
            load: 1.2,
            burst_seconds: 60.0,
            charge: Charge::Estimate,
            free_429: false,
            deadline: Duration::from_secs(60),
            rate_limiting: true,
            depth_margin: Duration::from_millis(500),
            time_scale: 25.0,
            seed: 1,
        }
    }
}

/// Runs both sides.
///
/// # Errors
/// Settings that contradict themselves, or an emulator or a client that could not be started. Sides that disagree are
/// no error: the report says how far.
pub async fn run(settings: &Settings) -> anyhow::Result<Report> {
    let plan = plan::Plan::new(settings)?;
    let simulated = plan.simulate()?;
    let real = real::run(&plan).await?;
    Ok(Report::new(&plan, simulated, real))
}
