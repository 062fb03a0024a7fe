//! What the lock of a scope holds: the pipeline, those who wait for it and those who were served and have not looked yet.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use omega_policy::{
    Admission, BreakerState, Call, Event, FirstTokens, ModelId, Permit, Pipeline, Rejection, Spent, Ticket,
    Timestamp,
};
use omega_protocol::Calibration;

use crate::registry::Models;
use crate::sync::AtomicU64;

/// How much later than the head the second waiter looks at the clock. Long enough that a live head is always first,
/// short enough that nobody notices when it is not.
pub(super) const BACKSTOP: Duration = Duration::from_millis(50);
/// A head whose next moment moves forward by less is not woken for it.
pub(super) const WORTH_WAKING: Duration = Duration::from_millis(1);

pub(super) struct State {
    pub(super) pipeline: Pipeline,
    pub(super) models: Models,
    pub(super) learned: Vec<Learned>,
    /// Those who wait, each with the waker of its last poll.
    pub(super) waiting: BTreeMap<Ticket, Option<Waker>>,
    /// Those who were served and have not looked yet.
    pub(super) served: HashMap<Ticket, Result<Permit, Rejection>>,
    /// Who watches the clock, and until when as it knows.
    pub(super) head: Option<(Ticket, Option<Timestamp>)>,
    pub(super) backstop: Option<Ticket>,
    pub(super) wakes: Vec<Waker>,
    /// Wakers of nobody any more. Like the others they leave the lock first: dropping one may drop a task.
    pub(super) discarded: Vec<Waker>,
    pub(super) circuits: HashMap<Option<ModelId>, Circuit>,
    /// Models whose own quota is spent, and until when.
    pub(super) blocked: HashMap<ModelId, Timestamp>,
    pub(super) events: VecDeque<Noted>,
    /// Somebody is telling events; whoever adds more leaves them to it, so that they are told in order.
    pub(super) telling: bool,
}

/// What the answers of one model have taught.
#[derive(Default)]
pub(super) struct Learned {
    pub(super) first_tokens: FirstTokens,
    pub(super) calibration: Calibration,
}

/// What the last event said of a circuit.
#[derive(Clone, Copy, Default)]
pub(super) struct Circuit {
    pub(super) state: BreakerState,
    /// Until when it refuses.
    pub(super) until: Timestamp,
}

/// An event with what its wording needs.
pub(super) struct Noted {
    pub(super) event: Event,
    pub(super) model: Option<String>,
    pub(super) from: BreakerState,
}

impl State {
    /// Serves those whose turn has come, and sees to it that somebody watches the clock for the rest.
    pub(super) fn advance(&mut self, now: Timestamp) {
        if self.waiting.is_empty() {
            return;
        }
        while let Some((ticket, result)) = self.pipeline.poll_granted(now) {
            match self.waiting.remove(&ticket) {
                Some(waker) => {
                    self.served.insert(ticket, result);
                    self.wakes.extend(waker);
                }
                // Its waiter left before its turn; what came all the same goes back.
                None => {
                    if let Ok(permit) = result {
                        self.pipeline.cancel(permit, Spent::Nothing, now);
                    }
                }
            }
        }
        self.appoint_watchers(now);
    }

    /// Wakes the head and the backstop if they have changed, or if the head must look earlier than it thinks.
    fn appoint_watchers(&mut self, now: Timestamp) {
        let head = self.pipeline.head().map(|ticket| (ticket, self.pipeline.next_timeout()));
        let earlier = match (self.head, head) {
            (Some((was, at)), Some((is, next))) if was == is => match (at, next) {
                (Some(at), Some(next)) => next + WORTH_WAKING < at,
                (None, Some(_)) => true,
                (_, None) => false,
            },
            (_, head) => head.is_some(),
        };
        if earlier && let Some((ticket, _)) = head {
            self.wake(ticket);
        }
        // A head that is not woken watches for the moment it knows. That moment stays on record until it has passed, so
        // that many steps forward which are not worth waking for one by one are worth it together.
        let watches = self.head.and_then(|(_, at)| at).is_some_and(|at| at > now);
        if earlier || head.is_none() || !watches {
            self.head = head;
        }
        let second =
            self.waiting.keys().find(|ticket| head.is_none_or(|(head, _)| **ticket != head)).copied();
        // The second counts from the head's next moment, so it must hear of an earlier one too.
        if earlier || second != self.backstop {
            self.backstop = second;
            if let Some(ticket) = second {
                self.wake(ticket);
            }
        }
    }

    fn wake(&mut self, ticket: Ticket) {
        let waker = self.waiting.get_mut(&ticket).and_then(Option::take);
        self.wakes.extend(waker);
    }

    /// What has become of a waiter, or when it must look again.
    pub(super) fn look(
        &mut self,
        ticket: Ticket,
        call: &Call,
        until: Timestamp,
        waker: &Waker,
        now: Timestamp,
    ) -> Look {
        self.advance(now);
        if let Some(result) = self.served.remove(&ticket) {
            return Look::Served(result);
        }
        if now >= until {
            self.discarded.extend(self.waiting.remove(&ticket).flatten());
            self.pipeline.leave(ticket, now);
            return Look::Served(self.refusal(call, now));
        }
        if let Some((head, next)) = &mut self.head
            && *head == ticket
        {
            *next = self.pipeline.next_timeout();
        }
        let (head, next) = self.head.map_or((None, None), |(head, next)| (Some(head), next));
        let watch = match next {
            Some(next) if head == Some(ticket) => next,
            Some(next) if self.backstop == Some(ticket) => next + BACKSTOP,
            _ => Timestamp::MAX,
        };
        // A timer that is already due would be polled again at once, without end; a millisecond is a timer's grain.
        let watch = watch.max(now + WORTH_WAKING);
        let slot = self.waiting.entry(ticket).or_default();
        if !slot.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.discarded.extend(slot.replace(waker.clone()));
        }
        Look::Wait { until: watch.min(until) }
    }

    /// Why a waiter whose time is up is not served: asked anew without any time to wait, the pipeline says when it
    /// could be. (Should a permit be free just now, it is taken.)
    fn refusal(&mut self, call: &Call, now: Timestamp) -> Result<Permit, Rejection> {
        let hasty = Call { admit_by: now, attempts: 0, ..call.clone() };
        match self.pipeline.admit(&hasty, now) {
            Admission::Granted(permit) => Ok(permit),
            Admission::Rejected(rejection) => Err(rejection),
            Admission::Queued(ticket) => {
                self.pipeline.leave(ticket, now);
                Err(Rejection::QueueFull { earliest: now })
            }
        }
    }

    /// Gives up a place, or the permit that had come for it.
    pub(super) fn leave(&mut self, ticket: Ticket, now: Timestamp) {
        match self.served.remove(&ticket) {
            Some(Ok(permit)) => self.pipeline.cancel(permit, Spent::Nothing, now),
            Some(Err(_)) => {}
            None => {
                if let Some(waker) = self.waiting.remove(&ticket) {
                    self.discarded.extend(waker);
                    self.pipeline.leave(ticket, now);
                }
            }
        }
    }

    pub(super) fn learned_of(&mut self, model: ModelId) -> &mut Learned {
        let index = model.0 as usize;
        if self.learned.len() <= index {
            self.learned.resize_with(index + 1, Learned::default);
        }
        &mut self.learned[index]
    }

    /// Takes the pipeline's events over. `true` if they are to be told now.
    pub(super) fn note_events(&mut self, shut_until: &AtomicU64) -> bool {
        while let Some(event) = self.pipeline.poll_event() {
            let (model, became) = match &event {
                Event::Opened { model, until, .. } => (*model, Some((BreakerState::Open, *until))),
                Event::HalfOpened { model, .. } => (*model, Some((BreakerState::HalfOpen, Timestamp::ZERO))),
                Event::Closed { model, .. } => (*model, Some((BreakerState::Closed, Timestamp::ZERO))),
                Event::ModelBlocked { model, until, .. } => {
                    self.blocked.insert(*model, *until);
                    shut_until.fetch_max(until.as_nanos(), Ordering::Relaxed);
                    (Some(*model), None)
                }
                _ => (None, None),
            };
            let from = match became {
                Some((state, until)) => {
                    shut_until.fetch_max(until.as_nanos(), Ordering::Relaxed);
                    self.circuits.insert(model, Circuit { state, until }).unwrap_or_default().state
                }
                None => BreakerState::default(),
            };
            let model = model.map(|model| self.models.name(model).to_owned());
            self.events.push_back(Noted { event, model, from });
        }
        !self.events.is_empty() && !self.telling
    }
}

pub(super) enum Look {
    Served(Result<Permit, Rejection>),
    Wait { until: Timestamp },
}
