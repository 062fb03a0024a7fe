//! Where time and chance enter: the one place that asks the operating system what time it is or draws a number.
//!
//! Everything else gets a [`Timestamp`] or a [`Chance`] as an argument. Time comes from tokio's clock, so that a test
//! which pauses it moves the whole client; the wall clock is read only to understand dates that providers name.

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use omega_policy::{Chance, Timestamp};
use tokio::time::Instant;

#[cfg(all(test, any(omega_loom, omega_shuttle)))]
pub(crate) use simulated::{SimulatedClock, Timer};
#[cfg(not(all(test, any(omega_loom, omega_shuttle))))]
pub(crate) use timer::Timer;

#[cfg(all(test, any(omega_loom, omega_shuttle)))]
mod simulated;
#[cfg(not(all(test, any(omega_loom, omega_shuttle))))]
mod timer;

/// The client's source of time.
///
/// Replace it to run the client on a time of your own; [`SystemClock`] is what it uses otherwise.
pub trait Clock: Send + Sync + 'static {
    /// Monotonic time since an origin that this clock chose.
    fn now(&self) -> Timestamp;

    /// The wall clock, for dates in headers and statistics only.
    fn date(&self) -> jiff::Timestamp;

    /// The moment `at` on tokio's clock, for timers.
    fn instant(&self, at: Timestamp) -> Instant;

    /// The clock that a slow check moves: there its timers stand in for tokio's.
    #[cfg(all(test, any(omega_loom, omega_shuttle)))]
    fn simulated(&self) -> &SimulatedClock {
        panic!("where tasks are simulated, time is, too")
    }

    /// When `at` was, on the wall clock, rounded to milliseconds.
    fn date_of(&self, at: Timestamp) -> jiff::Timestamp {
        let ago = self.now().saturating_since(at);
        let date = jiff::SignedDuration::try_from(ago).ok().and_then(|ago| self.date().checked_sub(ago).ok());
        let date = date.unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        date.round(jiff::Unit::Millisecond).unwrap_or(date)
    }
}

/// tokio's monotonic clock and the system's wall clock.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// A clock that starts now.
    #[expect(clippy::disallowed_methods, reason = "this is the door through which monotonic time enters")]
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the door through which monotonic time enters")]
    fn now(&self) -> Timestamp {
        Timestamp::ZERO + Instant::now().saturating_duration_since(self.origin)
    }

    fn date(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }

    fn instant(&self, at: Timestamp) -> Instant {
        /// Instead of what the system's clock cannot hold. Nothing here waits longer than a day.
        const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
        self.origin.checked_add(at.saturating_since(Timestamp::ZERO)).unwrap_or(self.origin + FAR)
    }
}

/// The client's source of chance. Seeded, it repeats itself.
pub(crate) struct Dice(Mutex<fastrand::Rng>);

impl Dice {
    pub(crate) fn new(seed: Option<u64>) -> Self {
        Self(Mutex::new(seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed)))
    }

    /// Any number.
    pub(crate) fn word(&self) -> u64 {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).u64(..)
    }

    /// One throw.
    pub(crate) fn roll(&self) -> Chance {
        let mut rng = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Chance::from_bits(rng.u64(..))
    }
}

impl fmt::Debug for Dice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dice")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_clock_follows_paused_time() {
        let clock = SystemClock::new();
        let start = clock.now();
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(clock.now().saturating_since(start), Duration::from_secs(7));
        assert_eq!(clock.instant(clock.now()), clock.instant(start) + Duration::from_secs(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_moment_at_the_end_of_time_can_still_be_waited_for() {
        let clock = SystemClock::new();
        let far = clock.instant(Timestamp::MAX);
        assert!(far > clock.instant(Timestamp::from_secs(1_000)));
        let waited = tokio::time::timeout(Duration::from_secs(3600), tokio::time::sleep_until(far)).await;
        assert!(waited.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_past_moment_has_a_date_before_now() {
        let clock = SystemClock::new();
        let then = clock.now();
        tokio::time::advance(Duration::from_secs(3600)).await;
        let ago = clock.date().duration_since(clock.date_of(then));
        assert!((3599..=3601).contains(&ago.as_secs()), "{ago:?}");
    }

    #[test]
    fn the_same_seed_throws_the_same_numbers() {
        let (one, other) = (Dice::new(Some(7)), Dice::new(Some(7)));
        assert_eq!([one.roll(), one.roll()], [other.roll(), other.roll()]);
        assert_ne!(Dice::new(Some(8)).roll(), Dice::new(Some(7)).roll());
    }
}
