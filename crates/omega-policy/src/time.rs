//! When things happen, as numbers the caller chose.
//!
//! A [`Timestamp`] is a count of nanoseconds since an origin that only the caller knows. There is no way to ask it
//! for "now", and so nothing in this crate can read a clock, be fooled by one that jumps, or need a mock of one.

use std::ops::Add;
use std::time::Duration;

/// A moment: nanoseconds since an origin chosen by the caller. Covers 584 years.
///
/// Feed it from a monotonic clock. Should the source step backwards all the same, every policy treats the earlier
/// reading as if no time had passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The origin itself.
    pub const ZERO: Self = Self(0);
    /// The end of time: later than anything that can be scheduled.
    pub const MAX: Self = Self(u64::MAX);

    /// The moment `nanos` nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The moment `millis` milliseconds after the origin, saturating at [`Timestamp::MAX`].
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// The moment `seconds` seconds after the origin, saturating at [`Timestamp::MAX`].
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Saturates at [`Timestamp::MAX`].
impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos(span)))
    }
}

/// The nanoseconds of `span`, saturating at `u64::MAX` (584 years).
pub(crate) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// A number drawn uniformly from `[0, 1)` by the caller: how chance enters the policies.
///
/// Kept as a 64-bit fraction so that scaling a duration is integer arithmetic and repeats exactly everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chance(u64);

impl Chance {
    /// The smallest draw: no jitter at all.
    pub const ZERO: Self = Self(0);
    /// A draw in the middle.
    pub const HALF: Self = Self(1 << 63);
    /// The largest draw below one.
    pub const MAX: Self = Self(u64::MAX);

    /// The chance `bits / 2^64`: hand over 64 random bits as they are.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// This share of `span`, rounded down to a nanosecond.
    pub fn of(self, span: Duration) -> Duration {
        let scaled = (u128::from(nanos(span)) * u128::from(self.0)) >> 64;
        Duration::from_nanos(scaled as u64)
    }
}
