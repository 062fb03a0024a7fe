//! Where the program asks what time it is: to measure how long a demonstration takes, never to decide anything.

use std::time::Duration;

use tokio::time::Instant;

/// A stopwatch that started when it was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(
        clippy::disallowed_methods,
        reason = "the program's one door for time: it measures, nothing is decided by it"
    )]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Since it was started.
    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// The moment `after` the start, for timers.
    pub(crate) fn moment(&self, after: Duration) -> Instant {
        self.0 + after
    }
}
