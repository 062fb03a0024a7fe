//! Calls in flight while a provider says that it is overloaded (529, 503): additive increase, multiplicative decrease.
//!
//! The aim is not to find the provider's capacity, of which one caller is a small part, but never to answer overload
//! with more load: what retries would add to the calls in flight is held back, and the limit never falls below what was
//! in flight when the episode began. Going lower was tried: of a provider that turns away 70 % of the calls whatever we
//! do, a limit that may fall to one leaves a fraction of what plain retries reach (`docs/admission.md` has the table).
//!
//! One decrease per congestion event: ten calls turned away together are one event. Source of the rule and its numbers:
//! Netflix concurrency-limits, `AIMDLimit`, and throttle-net 2.0; decrease as in AWS's adaptive retry mode (0.7).

use std::time::Duration;

use crate::Timestamp;

/// Overloads closer together than this are one event.
const EVENT: Duration = Duration::from_secs(1);
/// So long without one, and the episode is over.
const HEALTHY: Duration = Duration::from_secs(60);
/// Tenths that remain of the limit after an event.
const DECREASE: u32 = 7;

#[derive(Debug, Default)]
pub(crate) struct Ease {
    episode: Option<Episode>,
}

#[derive(Clone, Copy, Debug)]
struct Episode {
    limit: u32,
    /// What was in flight when it began: the limit never falls below.
    floor: u32,
    /// Answers since the limit last changed.
    answers: u32,
    last: Timestamp,
}

impl Ease {
    /// The cap now, if there is an episode.
    pub(crate) fn limit(&self) -> Option<u32> {
        self.episode.map(|episode| episode.limit)
    }

    /// A call was turned away. `in_flight`: beside it.
    pub(crate) fn overloaded(&mut self, in_flight: u32, now: Timestamp) {
        let Some(episode) = &mut self.episode else {
            let floor = in_flight.saturating_add(1);
            self.episode = Some(Episode { limit: floor, floor, answers: 0, last: now });
            return;
        };
        if now.saturating_since(episode.last) >= EVENT {
            episode.limit =
                (episode.limit / 10 * DECREASE + episode.limit % 10 * DECREASE / 10).max(episode.floor);
            episode.answers = 0;
            episode.last = now;
        }
    }

    /// A call was answered: after as many answers as the limit, and only while it binds, one more is allowed.
    pub(crate) fn answered(&mut self, in_flight: u32, now: Timestamp) {
        let Some(episode) = &mut self.episode else { return };
        if now.saturating_since(episode.last) >= HEALTHY {
            self.episode = None;
            return;
        }
        if in_flight.saturating_add(1) < episode.limit {
            return;
        }
        episode.answers += 1;
        if episode.answers >= episode.limit {
            (episode.answers, episode.limit) = (0, episode.limit.saturating_add(1));
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
    fn an_episode_begins_with_what_was_in_flight_and_ends_after_a_healthy_minute() {
        let mut ease = Ease::default();
        assert_eq!(ease.limit(), None);
        ease.overloaded(19, at(0));
        assert_eq!(ease.limit(), Some(20));
        ease.answered(3, at(59_999));
        assert_eq!(ease.limit(), Some(20));
        ease.answered(3, at(60_000));
        assert_eq!(ease.limit(), None);
    }

    #[test]
    fn the_limit_grows_by_one_for_as_many_answers_while_it_binds() {
        let mut ease = Ease::default();
        ease.overloaded(3, at(0));
        (0..3).for_each(|_| ease.answered(3, at(10)));
        assert_eq!(ease.limit(), Some(4));
        ease.answered(3, at(10));
        assert_eq!(ease.limit(), Some(5));
        (0..100).for_each(|_| ease.answered(1, at(10)));
        assert_eq!(ease.limit(), Some(5), "nobody needs more");
    }

    #[test]
    fn what_grew_is_taken_back_once_per_event_and_never_below_the_beginning() {
        let mut ease = Ease::default();
        ease.overloaded(9, at(0));
        for _ in 0..10 {
            let limit = ease.limit().expect("an episode");
            (0..limit).for_each(|_| ease.answered(limit, at(10)));
        }
        assert_eq!(ease.limit(), Some(20));
        (0..10).for_each(|_| ease.overloaded(19, at(1_000)));
        assert_eq!(ease.limit(), Some(14));
        ease.overloaded(13, at(2_000));
        assert_eq!(ease.limit(), Some(10));
        ease.overloaded(9, at(3_000));
        assert_eq!(ease.limit(), Some(10));
    }
}
