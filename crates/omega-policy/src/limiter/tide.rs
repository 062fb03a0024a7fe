//! What has moved lately: so that a provider's count, stale when it arrives, can be brought up to date.
//!
//! A header says what was left when the provider decided about one call. What we let go later is not in that count, and
//! what we let go a little earlier may not be either: calls that leave together arrive in any order. So two sums are
//! kept apart: what was *certainly* taken after the count, and what was *possibly*. Between them lies one window of
//! network jitter; reading every header by the exact order of departure was tried and, when a queue of a hundred calls
//! drained in an instant, raised levels by most of a minute's quota that was not there.

use std::time::Duration;

use super::quota::Cost;
use crate::time::nanos;
use crate::{Dimension, Timestamp};

/// Calls let go within this long may arrive in any order. Several times the jitter of a network, little against a
/// minute of quota.
const WINDOW: Duration = Duration::from_millis(50);
/// Moments remembered, each at least [`WINDOW`] after the one before: of a busy provider the last three seconds. An
/// answer whose headers come later lowers levels all the same and raises none.
const MOMENTS: usize = 64;

/// Sums that only grow.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    taken: Cost,
    /// Tokens of calls that cost less than reserved.
    returned: u64,
    /// Tokens of calls that cost more.
    owed: u64,
}

/// What was taken, given back and owed, with a memory of when.
#[derive(Debug)]
pub(crate) struct Tide {
    now: Sums,
    /// Sums just before what happened from that moment on, in a ring.
    moments: [(Timestamp, Sums); MOMENTS],
    next: usize,
    len: usize,
    /// When the next one is due.
    next_moment: Timestamp,
}

/// What has moved since a provider's count, in one dimension.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moved {
    /// Taken after it, whatever the network did.
    pub(crate) certainly: u64,
    /// Taken after it or shortly before; `u64::MAX`: unknown, too long ago.
    pub(crate) possibly: u64,
    /// Given back since.
    pub(crate) returned: u64,
    /// Charged beyond reservations since.
    pub(crate) owed: u64,
    pub(crate) elapsed: Duration,
}

impl Default for Tide {
    fn default() -> Self {
        let never = (Timestamp::ZERO, Sums::default());
        Self {
            now: Sums::default(),
            moments: [never; MOMENTS],
            next: 0,
            len: 0,
            next_moment: Timestamp::ZERO,
        }
    }
}

impl Tide {
    /// A call was let go.
    pub(crate) fn take(&mut self, cost: Cost, now: Timestamp) {
        if now >= self.next_moment {
            self.moments[self.next] = (now, self.now);
            self.next = (self.next + 1) % MOMENTS;
            self.len = (self.len + 1).min(MOMENTS);
            self.next_moment = now + WINDOW;
        }
        self.now.taken = self.now.taken.plus(cost);
    }

    /// A call ended and cost `after` tokens instead of `before`.
    pub(crate) fn settle(&mut self, before: u64, after: u64) {
        self.now.returned = self.now.returned.saturating_add(before.saturating_sub(after));
        self.now.owed = self.now.owed.saturating_add(after.saturating_sub(before));
    }

    /// What was taken of one dimension in all, settlements included. Only grows by and large: between two looks it may
    /// shrink by what calls gave back.
    pub(crate) fn used(&self, dimension: Dimension) -> f64 {
        let Sums { taken, returned, owed } = self.now;
        match dimension {
            Dimension::Requests => taken.requests as f64,
            Dimension::InputTokens => taken.input as f64,
            Dimension::OutputTokens => taken.output as f64 + owed as f64,
            _ => taken.tokens() as f64 + owed as f64 - returned as f64,
        }
    }

    /// What has moved since the provider decided about a call that was let go at `granted`.
    pub(crate) fn since(&self, granted: Timestamp, dimension: Dimension, now: Timestamp) -> Moved {
        let early = Timestamp::from_nanos(granted.as_nanos().saturating_sub(nanos(WINDOW)));
        let late = granted + WINDOW;
        // From the newest to the oldest: the first moment that is not after `early`, the last that is not before `late`.
        let (mut before, mut after) = (None, self.now);
        for step in 1..=self.len {
            let (at, sums) = self.moments[(self.next + MOMENTS - step) % MOMENTS];
            if at >= late {
                after = sums;
            }
            if at <= early {
                before = Some(sums);
                break;
            }
        }
        // A ring that is not full has seen everything there was.
        if before.is_none() && self.len < MOMENTS {
            before = Some(Sums::default());
        }
        let amount = |cost: Cost| match dimension {
            Dimension::Requests => cost.requests,
            Dimension::InputTokens => cost.input,
            Dimension::OutputTokens => cost.output,
            _ => cost.tokens(),
        };
        let tokens = dimension != Dimension::Requests;
        let oldest = before.unwrap_or_default();
        let grown = |now: u64, then: u64| if tokens { now.saturating_sub(then) } else { 0 };
        Moved {
            certainly: amount(self.now.taken.less(after.taken)),
            possibly: before.map_or(u64::MAX, |before| amount(self.now.taken.less(before.taken))),
            // Too long ago to know: everything ever given back is the lenient answer.
            returned: grown(self.now.returned, oldest.returned),
            owed: grown(self.now.owed, oldest.owed),
            elapsed: now.saturating_since(granted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn calls_that_leave_together_may_arrive_in_any_order() {
        let mut tide = Tide::default();
        (0..100).for_each(|_| tide.take(Cost::of_call(10, 0), at(1_000)));
        let moved = tide.since(at(1_000), Dimension::Tokens, at(1_400));
        assert_eq!((moved.certainly, moved.possibly), (0, 1_000));
    }

    #[test]
    fn what_leaves_a_window_later_is_certainly_later() {
        let mut tide = Tide::default();
        for millis in (0..1_000).step_by(100) {
            tide.take(Cost::of_call(10, 0), at(millis));
        }
        let moved = tide.since(at(500), Dimension::Requests, at(1_000));
        assert_eq!((moved.certainly, moved.possibly), (4, 6));
    }

    #[test]
    fn of_what_is_too_long_ago_only_the_certain_part_is_known() {
        let mut tide = Tide::default();
        for millis in (0..10_000).step_by(100) {
            tide.take(Cost::of_call(1, 0), at(millis));
        }
        let moved = tide.since(at(50), Dimension::Tokens, at(10_000));
        assert_eq!((moved.certainly, moved.possibly), (64, u64::MAX));
    }

    #[test]
    fn what_was_given_back_and_owed_is_counted_from_the_earlier_bound() {
        let mut tide = Tide::default();
        tide.take(Cost::of_call(100, 0), at(0));
        tide.settle(100, 40);
        tide.take(Cost::of_call(100, 0), at(1_000));
        tide.settle(100, 130);
        let moved = tide.since(at(1_000), Dimension::Tokens, at(1_000));
        assert_eq!(
            (moved.returned, moved.owed),
            (60, 30),
            "the first moment is no later than the early bound"
        );
        let requests = tide.since(at(1_000), Dimension::Requests, at(1_000));
        assert_eq!((requests.returned, requests.owed), (0, 0));
    }
}
