//! Calls in flight while a provider says that it is overloaded (529, 503): additive increase, multiplicative decrease,
//! but only where easing off helps.
//!
//! A provider that turns away what it cannot take at once gets better when fewer calls are in flight. One that is
//! overloaded by everybody else does not, and a limit that follows its every 529 ends at one: of a provider that turns
//! away 70 % whatever we do, that leaves a fraction of what plain retries reach. So it is tried out: the share that is
//! turned away is measured, calls in flight are cut to 0.7 for some calls, and if the share has not fallen by a quarter
//! the cut is taken back for a minute. Where it has, it is cut again as long as that helps, and then grows step by step.
//! A call counts by when it was sent, and as taken when its first token comes: refusals are told at once and answers end
//! late, so that counting by ends would see every cut help.
//!
//! Sources: the increase by one per limit of answers as in Netflix concurrency-limits (`AIMDLimit`); one decrease per
//! congestion event as in throttle-net 2.0, an event here being a measured share; the factor 0.7 of AWS's adaptive retry
//! mode.

use std::time::Duration;

use crate::Timestamp;

/// So long without one, and the episode is over; so long, and easing that did not help is tried again.
const AGAIN: Duration = Duration::from_secs(60);
/// Outcomes that a share is measured over.
const OUTCOMES: u32 = 50;
/// Percent of turned-away calls below which nothing is tried.
const WORTH_TRYING: u32 = 10;

/// What is known of the overload.
#[derive(Clone, Copy, Debug)]
enum State {
    /// Nothing is cut; the share is measured.
    Watching,
    /// Cut for a few outcomes. `before`: the share turned away until then, in percent.
    Trying { limit: u32, before: u32 },
    /// It helped: grows with the answers. `last`: the last overload.
    Easing { limit: u32, answers: u32, last: Timestamp },
    /// It did not.
    Useless { until: Timestamp },
}

#[derive(Debug)]
pub(crate) struct Ease {
    state: State,
    /// Of the calls sent since then.
    since: Timestamp,
    taken: u32,
    turned_away: u32,
}

impl Default for Ease {
    fn default() -> Self {
        Self { state: State::Watching, since: Timestamp::ZERO, taken: 0, turned_away: 0 }
    }
}

impl Ease {
    /// The cap now, if there is one.
    pub(crate) fn limit(&self) -> Option<u32> {
        match self.state {
            State::Trying { limit, .. } | State::Easing { limit, .. } => Some(limit),
            State::Watching | State::Useless { .. } => None,
        }
    }

    /// A call that was sent then was turned away. `in_flight`: beside it.
    pub(crate) fn overloaded(&mut self, in_flight: u32, sent: Timestamp, now: Timestamp) {
        self.turned_away += u32::from(sent >= self.since);
        if let State::Easing { last, .. } = &mut self.state {
            *last = now;
        }
        self.judge(in_flight.saturating_add(1), now);
    }

    /// A call that was sent then was taken: its answer begins. `in_flight`: beside it.
    pub(crate) fn taken(&mut self, in_flight: u32, sent: Timestamp, now: Timestamp) {
        self.taken += u32::from(sent >= self.since);
        if let State::Easing { limit, answers, last } = &mut self.state {
            if now.saturating_since(*last) >= AGAIN {
                *self = Self { since: now, ..Self::default() };
                return;
            }
            // More is allowed only where the limit binds.
            if in_flight.saturating_add(1) >= *limit {
                *answers += 1;
                if *answers >= *limit {
                    (*answers, *limit) = (0, limit.saturating_add(1));
                }
            }
        }
        self.judge(in_flight.saturating_add(1), now);
    }

    /// Once enough outcomes have come: is it worth a try, or did the try help?
    fn judge(&mut self, in_flight: u32, now: Timestamp) {
        if let State::Useless { until } = self.state
            && now >= until
        {
            *self = Self { since: now, ..Self::default() };
        }
        let outcomes = self.taken + self.turned_away;
        if outcomes < OUTCOMES {
            return;
        }
        let share = self.turned_away * 100 / outcomes;
        self.state = match self.state {
            State::Watching if share >= WORTH_TRYING => {
                State::Trying { limit: cut(in_flight), before: share }
            }
            State::Trying { before, .. } if share * 4 > before * 3 => State::Useless { until: now + AGAIN },
            State::Trying { limit, .. } | State::Easing { limit, .. } if share >= WORTH_TRYING => {
                State::Trying { limit: cut(limit), before: share }
            }
            State::Trying { limit, .. } => State::Easing { limit, answers: 0, last: now },
            state => state,
        };
        (self.taken, self.turned_away, self.since) = (0, 0, now);
    }
}

fn cut(limit: u32) -> u32 {
    (u64::from(limit) * 7 / 10).max(1) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    /// A caller that wants `wanted` calls in flight, against a provider that turns away what is more than `takes`, or every
    /// third whatever we do if `takes` is zero. The mean of the last half.
    fn settles(wanted: u32, takes: u32) -> u32 {
        let mut ease = Ease::default();
        let (mut sum, mut count) = (0, 0);
        for step in 0..20_000_u64 {
            let now = at(step * 50);
            let in_flight = wanted.min(ease.limit().unwrap_or(u32::MAX));
            let turned_away = match takes {
                0 => step.is_multiple_of(3),
                _ => step * 37 % u64::from(in_flight) >= u64::from(takes),
            };
            if turned_away {
                ease.overloaded(in_flight - 1, now, now);
            } else {
                ease.taken(in_flight - 1, now, now);
            }
            if step >= 10_000 {
                sum += in_flight;
                count += 1;
            }
        }
        sum / count
    }

    #[test]
    fn where_it_helps_the_limit_settles_around_what_the_provider_takes() {
        let settled = settles(100, 40);
        assert!((30..=60).contains(&settled), "{settled}");
    }

    #[test]
    fn where_it_does_not_help_nothing_is_held_back_for_long() {
        let settled = settles(100, 0);
        assert!(settled >= 95, "{settled}");
    }

    #[test]
    fn a_lone_overload_changes_nothing() {
        let mut ease = Ease::default();
        ease.overloaded(0, at(0), at(0));
        (0..100).for_each(|_| ease.taken(50, at(10), at(10)));
        assert_eq!(ease.limit(), None);
    }

    #[test]
    fn an_episode_ends_after_a_healthy_minute() {
        let mut ease = Ease::default();
        (0..50).for_each(|_| ease.overloaded(9, at(0), at(0)));
        assert_eq!(ease.limit(), Some(7), "a try");
        (0..50).for_each(|_| ease.taken(3, at(10), at(10)));
        assert_eq!(ease.limit(), Some(7), "it helped");
        ease.taken(3, at(60_010), at(60_010));
        assert_eq!(ease.limit(), None);
    }

    #[test]
    fn what_was_sent_before_a_try_says_nothing_of_it() {
        let mut ease = Ease::default();
        (0..50).for_each(|_| ease.overloaded(99, at(0), at(1_000)));
        assert_eq!(ease.limit(), Some(70));
        (0..500).for_each(|_| ease.taken(50, at(500), at(2_000)));
        assert_eq!(ease.limit(), Some(70), "long answers that began before");
        (0..50).for_each(|_| ease.overloaded(50, at(2_000), at(2_350)));
        assert_eq!(ease.limit(), None, "it did not help");
    }
}
