//! A bucket of quota: fills at the limit's pace up to a depth, and may owe.
//!
//! All arithmetic is in integers of one unit: the sixty-thousand-millionth part of a token. A limit of `n` tokens per
//! minute then adds exactly `n` units per nanosecond, so refilling needs one multiplication, no division and no
//! rounding, and can neither drift nor lose the remainder of a short interval. (Counting in whole nano-tokens instead
//! would need `n / 60` per nanosecond, which is not an integer.) Only the question *when* divides, and rounds up.

use std::time::Duration;

use crate::time::nanos;
use crate::{HINT_MAX, Timestamp};

/// Units in one token: the nanoseconds in a minute.
const UNITS: i128 = 60_000_000_000;

/// No burst is deeper than an hour of quota: keeps every product far inside 128 bits (u64::MAX * an hour is 2^106).
const BURST_MAX: Duration = Duration::from_secs(3_600);

/// One limit per minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TokenBucket {
    /// Tokens per minute, which is units per nanosecond.
    limit: u64,
    /// What may be taken, in units. Below zero: owed.
    level: i128,
    /// The depth, in units.
    capacity: i128,
    /// The moment `level` is true of. Lies in the future when a pause keeps the bucket from filling.
    as_of: u64,
}

impl TokenBucket {
    /// A full bucket of `limit` tokens per minute, `burst` of it deep, less `margin`.
    ///
    /// The margin never costs the last whole token: a limit that allows one request at a time still allows one.
    pub(crate) fn new(limit: u64, burst: Duration, margin: Duration, now: Timestamp) -> Self {
        let depth = nanos(burst.min(BURST_MAX).saturating_sub(margin));
        let deep = i128::from(limit) * i128::from(depth);
        let capacity = if limit == 0 { 0 } else { deep.max(UNITS) };
        Self { limit, level: capacity, capacity, as_of: now.as_nanos() }
    }

    /// Tokens per minute.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Adds what has flowed in since the last look. A clock that stepped back adds nothing.
    pub(crate) fn refill(&mut self, now: Timestamp) {
        let elapsed = now.as_nanos().saturating_sub(self.as_of);
        if elapsed == 0 {
            return;
        }
        self.as_of = now.as_nanos();
        if self.level < self.capacity {
            // Both factors are below 2^64, so the product fits 128 unsigned bits; it is compared before it is signed.
            let gained = u128::from(self.limit) * u128::from(elapsed);
            let room = (self.capacity - self.level).unsigned_abs();
            self.level = if gained >= room { self.capacity } else { self.level + gained as i128 };
        }
    }

    /// Could `amount` be taken now? Refill first.
    ///
    /// What is deeper than the bucket goes when the bucket is full, and those behind it pay: otherwise a prompt larger
    /// than the burst, but well within the minute, could never be sent.
    pub(crate) fn fits(&self, amount: u64) -> bool {
        self.level >= self.needed(amount) && (self.limit > 0 || amount == 0)
    }

    /// Takes `amount`, whatever the level.
    pub(crate) fn take(&mut self, amount: u64) {
        self.level = self.level.saturating_sub(units(amount));
    }

    /// Gives `amount` back; never above the depth.
    pub(crate) fn refund(&mut self, amount: u64) {
        self.level = self.level.saturating_add(units(amount)).min(self.capacity).max(self.level);
    }

    /// Takes what was used beyond the reservation. The debt is bounded: what a provider reports can stop us for no
    /// longer than its longest hint could.
    pub(crate) fn owe(&mut self, amount: u64) {
        let floor = -i128::from(self.limit) * i128::from(nanos(HINT_MAX));
        self.level = self.level.saturating_sub(units(amount)).max(floor.min(self.level));
    }

    /// The first moment at which `amount` could be taken, if nobody else takes any: rounded up to the nanosecond, so
    /// that whoever sleeps until then is served. `None`: never (a limit of zero).
    pub(crate) fn when_available(&self, amount: u64) -> Option<Timestamp> {
        if self.limit == 0 && amount > 0 {
            return None;
        }
        let missing = self.needed(amount) - self.level;
        if missing <= 0 || self.limit == 0 {
            return Some(Timestamp::from_nanos(self.as_of));
        }
        let missing = missing.unsigned_abs();
        // Nearly always 64 bits suffice, and a 64-bit division is many times cheaper than a 128-bit one.
        let wait = match u64::try_from(missing) {
            Ok(small) => small.div_ceil(self.limit),
            Err(_) => u64::try_from(missing.div_ceil(u128::from(self.limit))).unwrap_or(u64::MAX),
        };
        Some(Timestamp::from_nanos(self.as_of.saturating_add(wait)))
    }

    /// Leaves at most `keep` worth of quota, and starts to fill again only at `from`.
    ///
    /// `due`: what calls in flight have reserved here and the provider will charge only when they end. Its own count
    /// does not hold that yet; without subtracting it, what is given back at their ends would fill the emptied bucket
    /// with quota that does not exist.
    pub(crate) fn drain(&mut self, keep: Keep, due: u64, from: Timestamp) {
        let most = match keep {
            Keep::Nothing => 0,
            Keep::Tokens(tokens) => units(tokens),
            Keep::Seconds(seconds) => i128::from(self.limit) * i128::from(seconds) * 1_000_000_000,
        };
        self.level = self.level.min(most.saturating_sub(units(due)));
        self.as_of = self.as_of.max(from.as_nanos());
    }

    /// Follows the provider's own count down: never above `remaining` less what is `due`; see [`TokenBucket::drain`].
    pub(crate) fn lower_to(&mut self, remaining: u64, due: u64) {
        self.level = self.level.min(units(remaining) - units(due));
    }

    /// Takes the limit and the depth of `other` and keeps the level: a limit that changes is no gift. Otherwise a
    /// provider whose headers alternate between two limits would hand out a full bucket with each.
    pub(crate) fn resize(&mut self, other: &Self) {
        (self.limit, self.capacity) = (other.limit, other.capacity);
        self.level = self.level.min(self.capacity);
    }

    /// Follows the provider's own count up: at least what it has certainly left. Never above the depth.
    pub(crate) fn raise_to(&mut self, certain: u64) {
        self.level = self.level.max(units(certain).min(self.capacity));
    }

    /// Is there more in it than `remaining`?
    pub(crate) fn holds_more_than(&self, remaining: u64) -> bool {
        self.level > units(remaining)
    }

    /// Whole tokens that may be taken now; negative when owed (rounded toward the debt).
    #[cfg(test)]
    pub(crate) fn tokens(&self) -> i128 {
        self.level.div_euclid(UNITS)
    }

    /// What may be taken now, to the last unit.
    #[cfg(test)]
    pub(crate) fn level(&self) -> i128 {
        self.level
    }

    fn needed(&self, amount: u64) -> i128 {
        units(amount).min(self.capacity)
    }
}

/// What [`TokenBucket::drain`] leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Keep {
    /// An empty bucket.
    Nothing,
    /// This many tokens.
    Tokens(u64),
    /// This many seconds of the limit.
    Seconds(u32),
}

fn units(tokens: u64) -> i128 {
    i128::from(tokens) * UNITS
}

#[cfg(test)]
mod tests;
