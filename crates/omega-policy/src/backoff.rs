//! The formula of the specification and its jitters.
//!
//! A delay grows by a factor per retry up to a cap, and is spread by chance so that clients which failed together do
//! not come back together. Everything saturates: no attempt number and no setting can overflow a delay.

use std::time::Duration;

use crate::Chance;
use crate::time::nanos;

/// How delays between retries grow. `Default` is the specification's.
#[derive(Clone, Debug, PartialEq)]
pub struct Backoff {
    /// Initial delay. Default 1 s.
    pub base_delay: Duration,
    /// Maximum delay. Default 60 s.
    pub max_delay: Duration,
    /// Multiplier per retry, 1.0 to 10.0. Default 2.0. Values outside are treated as the nearer end, and a number
    /// that is none as 1.0.
    pub exponential_base: f64,
    /// Randomisation. Default [`Jitter::Proportional`].
    pub jitter: Jitter,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            base_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(60),
            exponential_base: 2.0,
            jitter: Jitter::Proportional,
        }
    }
}

/// How a delay `d = base_delay * exponential_base^attempt` is randomised. No jitter ever leaves `max_delay` behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Jitter {
    /// `[d, min(2d, max)]`, and `[max/2, max]` once `d` has reached the maximum: `jitter: true`.
    ///
    /// The second half is the one deviation from the specification's printed formula, which caps after adding the
    /// jitter: clients that have reached the cap would then sleep exactly `max_delay` and stay in step for ever.
    #[default]
    Proportional,
    /// `d` exactly: `jitter: false` or `none`.
    None,
    /// `[0, d]`.
    Full,
    /// `[d/2, d]`.
    Equal,
    /// `[base, 3 * previous]`.
    Decorrelated,
}

impl Backoff {
    /// The delay before a retry.
    ///
    /// - `attempt`: which retry this is, counted from 0 (the first retry).
    /// - `previous`: the delay before this one, zero if there was none; used by [`Jitter::Decorrelated`] alone.
    /// - `chance`: uniform in `[0, 1)`, drawn by the caller.
    ///
    /// Never longer than `max_delay`; saturates instead of overflowing.
    ///
    /// ```
    /// # use omega_policy::{Backoff, Chance};
    /// # use std::time::Duration;
    /// assert_eq!(Backoff::default().delay(2, Duration::ZERO, Chance::ZERO).as_secs(), 4);
    /// assert_eq!(Backoff::default().delay(2, Duration::ZERO, Chance::HALF).as_secs(), 6);
    /// ```
    pub fn delay(&self, attempt: u32, previous: Duration, chance: Chance) -> Duration {
        let grown = self.grown(attempt);
        let max = self.max_delay;
        match self.jitter {
            Jitter::None => grown,
            Jitter::Full => chance.of(grown),
            Jitter::Equal => grown / 2 + chance.of(grown - grown / 2),
            Jitter::Proportional if grown < max => {
                let top = grown.saturating_mul(2).min(max);
                grown + chance.of(top - grown)
            }
            Jitter::Proportional => max / 2 + chance.of(max - max / 2),
            Jitter::Decorrelated => {
                let bottom = self.base_delay.min(max);
                let top = previous.saturating_mul(3).clamp(bottom, max.max(bottom));
                // Before the first delay there is nothing to be three times of: the base stands in.
                let top = if previous.is_zero() { bottom.saturating_mul(3).min(max) } else { top };
                bottom + chance.of(top.saturating_sub(bottom))
            }
        }
    }

    /// `min(base_delay * exponential_base^attempt, max_delay)`.
    fn grown(&self, attempt: u32) -> Duration {
        grow(self.base_delay, self.exponential_base, attempt).min(self.max_delay)
    }
}

/// `span * factor^steps`, saturating. Shared with the breaker's growing open periods.
///
/// The power is taken in floating point because the factor is a fraction; for the usual factor 2 every step is exact,
/// and `span` itself is never routed through a float when nothing is to be multiplied.
pub(crate) fn grow(span: Duration, factor: f64, steps: u32) -> Duration {
    let factor = if factor.is_nan() { 1.0 } else { factor.clamp(1.0, 10.0) };
    if steps == 0 || factor == 1.0 {
        return span;
    }
    let scaled = nanos(span) as f64 * factor.powi(i32::try_from(steps).unwrap_or(i32::MAX));
    // `0 * infinity` is not a number; a float-to-integer cast turns that into 0 and saturates everything too large.
    Duration::from_nanos(scaled as u64)
}

#[cfg(test)]
mod tests;
