//! A bucket of quota: fills at the limit's pace up to a depth, and may owe.
//!
//! All arithmetic is in integers of one unit: the sixty-thousand-millionth part of a token. A limit of `n` tokens per
//! minute then adds exactly `n` units per nanosecond, so refilling needs one multiplication, no division and no
//! rounding, and can neither drift nor lose the remainder of a short interval. (Counting in whole nano-tokens instead
//! would need `n / 60` per nanosecond, which is not an integer.) Only the question *when* divides, and rounds up.

use std::time::Duration;

use crate::limiter::Moved;
use crate::time::nanos;
use crate::{HINT_MAX, Timestamp};
use lease::Lease;
pub(crate) use lease::Lent;

/// Units in one token: the nanoseconds in a minute.
const UNITS: i128 = 60_000_000_000;

/// No burst is deeper than an hour of quota: keeps every product far inside 128 bits (u64::MAX * an hour is 2^106).
const BURST_MAX: Duration = Duration::from_secs(3_600);

/// The margin is at most this part of the burst. Measured with the simulator: with a burst of one
/// second a margin of half of it costs up to 38 % of what could be answered, a tenth costs nothing and still covers the
/// jitter of a network.
const MARGIN_PART: u32 = 10;

/// Of a depth found to be too large, this part is kept back: the 429 says that it is less, not by how much.
const SHRINK_PART: i128 = 10;

/// No provider known enforces over less than a second; so much of it is believed whatever 429s say. And one 429 takes at
/// most half of the depth: the quota may have been spent by somebody else who shares it.
const SHALLOWEST: u64 = 900_000_000;

/// A call with no more than this much quota spent before it was let go alone.
const ALONE: u64 = 50_000_000;

/// A depth that was found smaller than configured is believed to grow by itself this slowly (1 % per minute), so that
/// one mistaken 429 is forgotten within hours and a provider that stays shallow is found out seldom.
const REGROW: u64 = 100 * 60 * 1_000_000_000;

/// A call deeper than the bucket goes when the bucket is full: the provider's and ours are so at the same moment, and a
/// network that carries this call a little faster than the one before makes it come too early. So ours must have been
/// full for this long. It doubles when a 429 says that it is too short and shrinks a little with every call that went
/// through: about one such call in three hundred is then throttled.
const LAG: u64 = 10_000_000;
const LAG_MIN: u64 = 2_000_000;
const LAG_MAX: u64 = 500_000_000;
const LAG_SHRINK: u64 = 256;

/// One limit per minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenBucket {
    /// Tokens per minute, which is units per nanosecond.
    limit: u64,
    /// What flows in by itself, or, into a bucket that is leased, may be expected to: the limit, or a share of it.
    rate: u64,
    /// What may be taken, in units. Below zero: owed.
    level: i128,
    /// The depth it is believed to have, in units.
    capacity: i128,
    /// The depth it was configured with: never believed to be deeper.
    depth: i128,
    /// Full, and for as long as a call that is deeper must wait then. Kept, since every refill asks for it.
    brim: i128,
    /// For how many nanoseconds the bucket must have been full for a call that is deeper; see [`LAG`].
    lag: u64,
    /// The moment `level` is true of. Lies in the future when a pause keeps the bucket from filling.
    as_of: u64,
    /// Of a bucket that fills by leases only.
    lease: Option<Box<Lease>>,
}

impl TokenBucket {
    /// A full bucket of `limit` tokens per minute, `burst` of it deep, less `margin`.
    ///
    /// The margin never costs the last whole token: a limit that allows one request at a time still allows one. Nor is
    /// it more than a tenth of the burst: half a second of a burst of one second would be half of what may be sent.
    pub(crate) fn new(limit: u64, burst: Duration, margin: Duration, now: Timestamp) -> Self {
        let burst = burst.min(BURST_MAX);
        let depth = nanos(burst.saturating_sub(margin.min(burst / MARGIN_PART)));
        let deep = i128::from(limit) * i128::from(depth);
        let capacity = if limit == 0 { 0 } else { deep.max(UNITS) };
        let mut bucket = Self {
            limit,
            rate: limit,
            level: 0,
            capacity,
            depth: capacity,
            brim: 0,
            lag: LAG,
            as_of: now.as_nanos(),
            lease: None,
        };
        bucket.set_brim();
        bucket.level = bucket.brim;
        bucket
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
        if let Some(lease) = &mut self.lease {
            self.level += lease.flow(self.limit, now.as_nanos());
            return;
        }
        // A share is less than the whole for good.
        if self.capacity < self.depth && self.rate == self.limit {
            self.regrow(elapsed);
        }
        let brim = self.brim;
        if self.level < brim {
            // Both factors are below 2^64, so the product fits 128 unsigned bits; it is compared before it is signed.
            let gained = u128::from(self.rate) * u128::from(elapsed);
            let room = (brim - self.level).unsigned_abs();
            self.level = if gained >= room { brim } else { self.level + gained as i128 };
        }
    }

    /// Could `amount` be taken now? Refill first.
    ///
    /// What is deeper than the bucket goes when the bucket is full, and those behind it pay: otherwise a prompt larger
    /// than the burst, but well within the minute, could never be sent.
    pub(crate) fn fits(&self, amount: u64) -> bool {
        self.level >= self.needed(amount) && (self.rate > 0 || amount == 0)
    }

    /// Takes `amount`, whatever the level.
    pub(crate) fn take(&mut self, amount: u64) {
        let most = if self.lease.is_some() { self.level } else { self.capacity };
        self.level = self.level.min(most).saturating_sub(units(amount));
    }

    /// Gives `amount` back; never above the depth.
    pub(crate) fn refund(&mut self, amount: u64) {
        if self.lease.is_some() {
            self.level = self.level.saturating_add(units(amount));
            return;
        }
        self.level = self.level.saturating_add(units(amount)).min(self.capacity.max(self.level));
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
        if self.rate == 0 && amount > 0 {
            return None;
        }
        let missing = self.needed(amount) - self.level;
        if missing <= 0 || self.rate == 0 {
            return Some(Timestamp::from_nanos(self.as_of));
        }
        if let Some(lease) = &self.lease {
            return Some(Timestamp::from_nanos(lease.when(self, missing)));
        }
        let missing = missing.unsigned_abs();
        // Nearly always 64 bits suffice, and a 64-bit division is many times cheaper than a 128-bit one.
        let wait = match u64::try_from(missing) {
            Ok(small) => small.div_ceil(self.rate),
            Err(_) => u64::try_from(missing.div_ceil(u128::from(self.rate))).unwrap_or(u64::MAX),
        };
        Some(Timestamp::from_nanos(self.as_of.saturating_add(wait)))
    }

    /// Leaves at most `keep` worth of quota, and starts to fill again only at `from`.
    pub(crate) fn drain(&mut self, keep: Keep, from: Timestamp) {
        let most = match keep {
            Keep::Nothing => 0,
            Keep::Tokens(tokens) => units(tokens),
            Keep::Seconds(seconds) => i128::from(self.limit) * i128::from(seconds) * 1_000_000_000,
        };
        self.level = self.level.min(most);
        if let Some(lease) = &mut self.lease {
            // What is at hand is taken to be spent; the store hears that the rest is.
            lease.drained(u64::try_from(most / UNITS).unwrap_or(u64::MAX), from.as_nanos());
            return;
        }
        self.as_of = self.as_of.max(from.as_nanos());
    }

    /// The most there can be now if the provider had `remaining` left when it decided about a call: refilled since
    /// the call was let go, less what was taken after it.
    fn at_most(&self, remaining: u64, moved: &Moved) -> i128 {
        let refilled = i128::from(self.limit) * i128::from(nanos(moved.elapsed.min(BURST_MAX)));
        let left = units(remaining).saturating_add(refilled).saturating_add(units(moved.returned));
        left.saturating_sub(units(moved.certainly))
    }

    /// Is there more in it than the provider's count allows?
    pub(crate) fn is_above(&self, remaining: u64, moved: &Moved) -> bool {
        self.level > self.at_most(remaining, moved)
    }

    /// Follows the provider's own count of what was left when it decided about a call.
    ///
    /// A count is stale when it arrives, so it is read leniently downward (see [`TokenBucket::is_above`]) and strictly
    /// upward: less what has possibly been taken since, or what is in flight if that is more, less debts made since, less
    /// `margin`. Without the margin the header itself would cause 429s.
    pub(crate) fn follow(
        &mut self,
        remaining: u64,
        moved: &Moved,
        in_flight: u64,
        margin: Duration,
        may_raise: bool,
    ) {
        self.level = self.level.min(self.at_most(remaining, moved));
        if !may_raise {
            return;
        }
        let gone = units(moved.possibly.max(in_flight)).saturating_add(units(moved.owed));
        let margin = i128::from(self.limit) * i128::from(nanos(margin.min(BURST_MAX)));
        let certain = units(remaining).saturating_sub(gone).saturating_sub(margin);
        if self.is_shared() {
            // What is left is the fleet's, and its share of it this process's own. Without that what others leave unused
            // is nobody's: with the store away for five minutes 64 clients lost 1 to 2 % of an hour's calls by it; and
            // with all of what is left each, 11 to 18 of 1,000 calls were refused (`--example goodput -- fleet`).
            let share = self.rate as f64 / self.limit.max(1) as f64;
            self.level = self.level.max(((certain as f64 * share) as i128).min(self.capacity));
            return;
        }
        // A provider that has more left than was believed possible is deeper than that.
        if certain > self.capacity {
            self.capacity = certain.min(self.depth).max(self.capacity);
            self.set_brim();
        }
        self.level = self.level.max(certain.min(self.capacity));
    }

    /// Learns the provider's depth from a header: `remaining` now, and full again after `reset`.
    ///
    /// Rounded resets make this an estimate of a second either way; only a depth clearly below what is believed counts.
    pub(crate) fn learn_depth(&mut self, remaining: u64, reset: Duration, margin: Duration) {
        let second = i128::from(self.limit) * 1_000_000_000;
        let full = i128::from(self.limit) * i128::from(nanos(reset.min(BURST_MAX)));
        let shown = units(remaining).saturating_add(full);
        if reset.is_zero() || shown.saturating_add(second) >= self.capacity {
            return;
        }
        let margin = i128::from(self.limit) * i128::from(nanos(margin.min(BURST_MAX)));
        let less = shown - margin.min(shown / i128::from(MARGIN_PART));
        // What is left is known; only how much there can be is less.
        self.capacity = less.max(self.least()).min(self.capacity);
        self.set_brim();
        self.level = self.level.min(self.brim);
    }

    /// What is believed at least after one more sign of a smaller depth.
    fn least(&self) -> i128 {
        let second = i128::from(self.limit) * i128::from(SHALLOWEST);
        (self.capacity / 2).max(second).max(UNITS).min(self.depth)
    }

    /// How far below full the bucket was just after a call was let go, given what has moved since: so much had been
    /// spent at once, as the time in which it flows in.
    pub(crate) fn spent_ahead(&self, moved: &Moved) -> Duration {
        let refilled = i128::from(self.limit) * i128::from(nanos(moved.elapsed.min(BURST_MAX)));
        let then = self.level - refilled - units(moved.returned) + units(moved.certainly) + units(moved.owed);
        let spent = (self.capacity - then).max(0) / i128::from(self.limit.max(1));
        Duration::from_nanos(u64::try_from(spent).unwrap_or(u64::MAX))
    }

    /// A call that took `amount` was throttled, and quota had been spent as far `ahead`: the provider's bucket is less
    /// deep, or, where the call was deeper than the bucket, was not full yet.
    pub(crate) fn was_too_much(&mut self, amount: u64, ahead: Duration) {
        if self.is_shared() {
            return;
        }
        if units(amount) > self.capacity {
            self.lag = (self.lag * 2).min(LAG_MAX);
            self.set_brim();
            return;
        }
        let spent = i128::from(self.limit) * i128::from(nanos(ahead.min(BURST_MAX)));
        // A bucket that was full but for this call lets it pass, however shallow: somebody else has spent the quota.
        if spent <= units(amount) + i128::from(self.limit) * i128::from(ALONE) {
            return;
        }
        let less = (spent - spent / SHRINK_PART).max(self.least());
        if less < self.capacity {
            // As far below full as before: what was spent stays spent.
            self.level -= self.capacity - less;
            self.capacity = less;
            self.set_brim();
        }
    }

    /// A call that took `amount` was not throttled.
    pub(crate) fn was_not_too_much(&mut self, amount: u64) {
        if !self.is_shared() && units(amount) > self.capacity {
            self.lag = (self.lag - self.lag / LAG_SHRINK).max(LAG_MIN);
            self.set_brim();
        }
    }

    fn regrow(&mut self, elapsed: u64) {
        // Shifted, so that the product of the deepest bucket and the longest span fits 128 bits.
        let more = (self.capacity >> 24) * i128::from(elapsed.min(5 * REGROW)) / i128::from(REGROW >> 24);
        let more = if elapsed >= 5 * REGROW { self.depth } else { more };
        self.capacity = (self.capacity + more).min(self.depth);
        self.set_brim();
    }

    /// How deep it is believed to be, in tokens.
    pub(crate) fn depth(&self) -> u64 {
        u64::try_from(self.capacity / UNITS).unwrap_or(u64::MAX)
    }

    /// See [`Quotas::foresee`](crate::limiter::Quotas). `own`: what the newcomer takes; `later` of `whole` tokens are
    /// charged after a call was let go (negative: given back).
    pub(crate) fn foresee(&mut self, own: u64, later: i128, whole: u64, due: i128, hold: u64) {
        if self.limit == 0 || hold == 0 {
            return;
        }
        let carried = i128::from(self.limit).saturating_mul(i128::from(hold)); // units one call's length of traffic takes in all
        let outstanding = if whole == 0 { 0 } else { carried.saturating_mul(later) / i128::from(whole) };
        let due = due.saturating_mul(UNITS);
        let beyond = due.saturating_sub(if later < 0 { outstanding.max(due) } else { outstanding });
        let missing = (units(own) - self.level).max(0);
        // missing / limit is the wait; of a wait shorter than `hold` only that part.
        let passed = (missing / i128::from(self.limit)).min(i128::from(hold)); // nanoseconds
        // Shifted to keep the product within 128 bits: exact to a thousandth.
        let part = passed * 1_000 / i128::from(hold);
        self.level = self.level.saturating_sub(beyond / 1_000 * part);
    }

    /// Starts with the part `thousandths / 1000` of what `whole` has now, debts included, and fills no earlier than it.
    pub(crate) fn inherit(&mut self, whole: &Self, thousandths: u32) {
        let level = whole.level.min(whole.capacity) / 1_000 * i128::from(thousandths);
        self.level = level.min(self.capacity);
        self.as_of = self.as_of.max(whole.as_of);
    }

    /// Takes the limit and the depth of `other` and keeps the level: a limit that changes is no gift. Otherwise a
    /// provider whose headers alternate between two limits would hand out a full bucket with each.
    pub(crate) fn resize(&mut self, other: &Self) {
        (self.limit, self.rate, self.capacity, self.depth) =
            (other.limit, other.rate, other.capacity, other.depth);
        self.set_brim();
        if self.lease.is_none() {
            self.level = self.level.min(self.capacity);
        }
    }

    /// The same, unless limit and depth are what they were: then what was learned of the depth stays.
    pub(crate) fn resize_if_changed(&mut self, other: &Self) {
        if (self.limit, self.depth) != (other.limit, other.depth) {
            self.resize(other);
        }
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
        let amount = units(amount);
        if amount > self.capacity && self.lease.is_none() { self.brim } else { amount }
    }

    /// To be called when the capacity, the limit or the lag has changed.
    fn set_brim(&mut self) {
        self.brim = self.capacity + i128::from(self.rate) * i128::from(self.lag);
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

mod lease;
#[cfg(test)]
mod tests;
