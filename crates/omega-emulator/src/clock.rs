//! Where time enters. The emulator lives in *trace time*: seconds since its start, running `time_scale` times
//! faster than the real clock. Everything a user configures (quotas, latencies, scenario rules) is trace time;
//! everything a client can observe (sleeps, `retry-after`, reset instants) is real time, so that a client which
//! obeys what it is told behaves as it would at full length.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// The clock of one emulator.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    origin: Instant,
    scale: f64,
}

impl Clock {
    /// Starts at trace time zero.
    pub(crate) fn start(scale: f64) -> Self {
        Self { origin: monotonic(), scale }
    }

    /// Trace seconds since the start.
    pub(crate) fn trace_now(&self) -> f64 {
        monotonic().duration_since(self.origin).as_secs_f64() * self.scale
    }

    /// How many trace seconds pass in one real second.
    pub(crate) fn scale(&self) -> f64 {
        self.scale
    }

    /// A span of trace time as real seconds.
    pub(crate) fn real_seconds(&self, trace_seconds: f64) -> f64 {
        trace_seconds / self.scale
    }

    /// A limit per trace minute as one per real minute: what a client that believes the headers can really spend.
    pub(crate) fn per_real_minute(&self, limit: u64) -> u64 {
        (limit as f64 * self.scale).round() as u64
    }

    /// A span of trace time as something to sleep for. Saturates at about 30 years, never panics.
    pub(crate) fn real(&self, trace_seconds: f64) -> Duration {
        const LONGEST: f64 = 1.0e9;
        Duration::from_secs_f64(self.real_seconds(trace_seconds).clamp(0.0, LONGEST))
    }
}

/// The real monotonic clock.
#[expect(clippy::disallowed_methods, reason = "the emulator's one door for monotonic time")]
pub(crate) fn monotonic() -> Instant {
    Instant::now()
}

/// The real wall clock, for `created` fields and reset instants.
pub(crate) fn wall() -> Timestamp {
    Timestamp::now()
}
