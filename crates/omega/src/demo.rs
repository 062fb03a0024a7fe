//! `omega demo`: every layer at work, over real HTTP, without a key and without a network.
//!
//! A slice of a real trace is replayed, faster than it happened, through `UnifiedLLMClient` against the four emulated
//! providers. The quota binds, a burst comes, the first provider fails for a while and comes back. Then the same slice
//! is sent without protection. What must hold is checked, and the program's exit code says whether it did.
//!
//! [`Plan`] says what is replayed under which limits, `replay` runs it, [`Report`] holds what came of it, and
//! [`render`] draws it. Nothing here knows about terminals.

mod plan;
pub mod render;
mod replay;
mod report;
mod tally;
mod trace;

pub use plan::{Outage, Plan, ProviderPlan};
pub use report::{Check, Report};
pub use tally::{ProviderTally, Tally, Transition};
pub use trace::{Arrival, Trace};

use crate::clock::Stopwatch;

/// What is replayed, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The requests.
    pub trace: Trace,
    /// How many times faster than they came.
    pub time_scale: f64,
    /// Where chance begins.
    pub seed: u64,
    /// How much is asked of the demonstration itself.
    pub demands: Demands,
}

/// How hard the demonstration must have been to prove anything.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demands {
    /// Calls that reached a provider in the protected run, at least.
    pub upstream_calls: u64,
    /// Share of the requests that waited for quota, at least.
    pub waited_share: f64,
    /// 429s per 1,000 requests without protection, at least.
    pub unprotected_429s: f64,
    /// Wall-clock seconds of both runs together, at most.
    pub wall_seconds: Option<f64>,
}

impl Demands {
    /// What the built-in slice must show.
    pub const BUILT_IN: Self =
        Self { upstream_calls: 2_000, waited_share: 0.2, unprotected_429s: 100.0, wall_seconds: Some(60.0) };

    /// Nothing: somebody's own trace is what it is.
    pub const NONE: Self =
        Self { upstream_calls: 0, waited_share: 0.0, unprotected_429s: 0.0, wall_seconds: None };
}

impl Settings {
    /// The default speed. One millisecond, a timer's resolution, is then 15 ms of trace time; both runs together stay
    /// well below a minute, and the burst below what two cores can serve in an unoptimised build.
    pub const TIME_SCALE: f64 = 15.0;

    /// The built-in slice at the default speed.
    pub fn built_in() -> Self {
        Self { trace: Trace::built_in(), time_scale: Self::TIME_SCALE, seed: 1, demands: Demands::BUILT_IN }
    }
}

/// How a demonstration goes on, for whoever watches.
pub trait Progress: Sync {
    /// A run begins.
    fn begin(&self, run: Run, plan: &Plan);
    /// Something worth a line of its own happened, at this trace second.
    fn happened(&self, at_s: f64, what: &str);
    /// Where the run stands; called several times a second.
    fn step(&self, step: &Step);
    /// The run is over.
    fn end(&self, run: Run, tally: &Tally);
}

/// Nobody watches.
#[derive(Debug)]
pub struct Unwatched;

impl Progress for Unwatched {
    fn begin(&self, _: Run, _: &Plan) {}
    fn happened(&self, _: f64, _: &str) {}
    fn step(&self, _: &Step) {}
    fn end(&self, _: Run, _: &Tally) {}
}

/// Which of the two runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// Everything on, with fallbacks.
    Protected,
    /// No limiter, no breaker, one attempt, no fallback: the specification's "Disable Resilience".
    Unprotected,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Step {
    /// Trace seconds since the start.
    pub at_s: f64,
    /// Requests sent off so far.
    pub requests: u64,
    /// Answered so far.
    pub answered: u64,
    /// Ended without an answer so far.
    pub failed: u64,
    /// Under way: waiting for quota or being answered.
    pub pending: u64,
}

/// Runs both: the protected replay and the same slice without protection.
///
/// # Errors
/// The emulator or a client could not be started. A demonstration that does not hold is no error: the report says so.
pub async fn run(settings: &Settings, progress: &dyn Progress) -> anyhow::Result<Report> {
    let plan = Plan::new(&settings.trace, settings.time_scale, settings.seed)?;
    let watch = Stopwatch::start();
    let protected = replay::run(&plan, &settings.trace, Run::Protected, progress).await?;
    let unprotected = replay::run(&plan, &settings.trace, Run::Unprotected, progress).await?;
    Ok(Report::new(plan, protected, unprotected, watch.elapsed(), &settings.demands))
}
