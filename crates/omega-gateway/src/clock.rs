//! Where time enters, for what the gateway itself measures and bounds.

use std::time::{Duration, Instant};

/// A moment to measure from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(Instant);

impl Moment {
    #[expect(clippy::disallowed_methods, reason = "this is the door through which time enters here")]
    pub(crate) fn now() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        Self::now().since(self)
    }

    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }
}

/// The time of the calendar, for spans.
#[cfg(feature = "otel")]
#[expect(clippy::disallowed_methods, reason = "this is the door through which time enters here")]
pub(crate) fn wall_now() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

/// The time of Tokio's timers, which a test may stop.
#[expect(clippy::disallowed_methods, reason = "this is the door through which time enters here")]
pub(crate) fn timer_now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}
