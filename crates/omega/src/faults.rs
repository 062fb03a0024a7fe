//! `omega demo --faults`: what every known failure of a provider comes to, and what must never come of one.
//!
//! Each fault of the emulator's catalogue is met by `UnifiedLLMClient` four times: as a whole answer and as a stream,
//! with a fallback and without. Every meeting has a client and a model of its own, so that none can disturb another,
//! and the judgement rests on what the emulator saw, not on what the client says of itself.

mod cell;
mod judge;
mod table;

use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use omega_emulator::{Emulator, EmulatorConfig, Fault, Provider, RequestRecord, Scenario};

pub use cell::{Call, Cell, Ending};
pub use table::render;

use crate::demo::Check;

/// How the table is made.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The provider that fails.
    pub provider: Provider,
    /// Where chance begins.
    pub seed: u64,
    /// Cells under way at once. Most of them sleep most of the time.
    pub parallel: usize,
    /// The faults to meet.
    pub faults: Vec<Fault>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { provider: Provider::OpenAi, seed: 1, parallel: 32, faults: Fault::ALL.to_vec() }
    }
}

/// The deadline of every call. Long enough for three attempts that each meet a clock, and for three whole seconds of
/// hints, the shortest that `retry-after` can say.
pub const DEADLINE: Duration = Duration::from_secs(8);

/// What came of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// The provider that failed.
    pub provider: Provider,
    /// Every meeting.
    pub cells: Vec<Cell>,
    /// What had to hold.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether everything held.
    pub fn held(&self) -> bool {
        self.checks.iter().all(|check| check.held)
    }

    /// For programs.
    pub fn json(&self) -> serde_json::Value {
        table::json(self)
    }
}

/// Meets every fault, in parallel.
///
/// - `progress`: told after each call how many are done, and of how many.
///
/// # Errors
/// The emulator or a client could not be started.
pub async fn run(settings: &Settings, progress: &(dyn Fn(u64, u64) + Sync)) -> anyhow::Result<Report> {
    let config =
        EmulatorConfig { seed: settings.seed, time_scale: cell::TIME_SCALE, ..EmulatorConfig::default() };
    let emulator = Emulator::start(config).await.context("the emulator cannot start")?;
    let plans = cell::plans(settings);
    emulator.set_scenario(Scenario {
        rules: plans.iter().map(cell::Planned::rule).collect(),
        ..Scenario::default()
    });
    let whole = cell::healthy(&emulator, settings).await?;
    let all = plans.len() as u64;
    let mut done = 0;
    progress(done, all);
    let (base, whole) = (&emulator, &whole);
    let mut meetings = futures_util::stream::iter(plans)
        .map(|planned| async move { cell::meet(planned, base, whole, settings.seed).await })
        .buffered(settings.parallel.max(1));
    let mut met = Vec::new();
    while let Some(cell) = meetings.next().await {
        met.push(cell?);
        done += 1;
        progress(done, all);
    }
    drop(meetings);
    let journal: Vec<RequestRecord> = emulator.requests();
    emulator.shutdown().await;
    let cells: Vec<Cell> = met.into_iter().map(|cell| cell.with_journal(&journal)).collect();
    let checks = judge::checks(&cells);
    Ok(Report { provider: settings.provider, cells, checks })
}
