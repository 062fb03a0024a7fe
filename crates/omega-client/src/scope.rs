//! One provider's pipeline, shared between tasks: a mutex held for a decision, and the places of those who wait.
//!
//! Every decision goes through [`Scope::decide`]: lock, decide, hand permits to waiters whose turn has come, note
//! events, unlock; only then are tasks woken and events told, so that neither a waker nor a log subscriber can call
//! back into a held lock. No background task watches the clock: the waiter at the head of the queue does it for all,
//! and a second one with a margin, so that a head whose task is never polled again cannot freeze the others.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{self, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Duration;

use omega_policy::{
    Admission, BreakerState, Call, Event, ModelId, ModelLimits, Permit, Pipeline, PipelineConfig, Rejection,
    Spent, Stats, TenantId, Timestamp,
};
use omega_protocol::InputEstimate;
use tokio::sync::broadcast;

use crate::clock::{Clock, Timer};
use crate::events::{ClientEvent, TransitionEvent};
use crate::registry::Models;
use crate::sync::{AtomicU64, Mutex, MutexGuard};
use crate::telemetry;

pub(crate) use held::Held;
pub(crate) use keeper::Keeper;
pub(crate) use place::Place;
use state::{Noted, State, WORTH_WAKING};

#[cfg(all(test, omega_loom))]
mod handover;
mod held;
mod keeper;
mod place;
#[cfg(all(test, omega_shuttle))]
mod schedules;
mod state;
#[cfg(test)]
mod tests;

/// The layers of one provider, and everybody who waits for them.
pub(crate) struct Scope {
    pub(crate) name: Arc<str>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Until when something here refuses without a look at limits (a circuit, a spent quota of one model), in
    /// nanoseconds of the clock; past while nothing does. A copy, so that a call can nearly always ask about its
    /// alternatives without their locks.
    shut_until: AtomicU64,
    in_flight: AtomicU64,
    subscribers: broadcast::Sender<ClientEvent>,
    /// The link to other processes that share its limits.
    keeper: OnceLock<Arc<Keeper>>,
    pub(crate) counters: Counters,
}

/// Counts since the client was built.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) sent: atomic::AtomicU64,
    pub(crate) answered: atomic::AtomicU64,
    pub(crate) failed: atomic::AtomicU64,
    pub(crate) throttled: atomic::AtomicU64,
    pub(crate) refused: atomic::AtomicU64,
    pub(crate) failed_over: atomic::AtomicU64,
    pub(crate) cancelled: atomic::AtomicU64,
    /// Places taken in the queue. Counted here and not read off the pipeline, which also sees the looks at a queue
    /// that no call then joins; so are the two below.
    pub(crate) queued: atomic::AtomicU64,
    pub(crate) limit_refused: atomic::AtomicU64,
    pub(crate) circuit_refused: atomic::AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &atomic::AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn refused_by(&self, rejection: &Rejection) {
        Self::add(match rejection {
            Rejection::CircuitOpen { .. } => &self.circuit_refused,
            _ => &self.limit_refused,
        });
    }
}

/// The answer to [`Scope::admit`].
pub(crate) enum Decision {
    Granted(Held),
    Queued(Place),
    /// It could be served here, but later than the caller's patience with one queue while others might be free.
    Busy(Rejection),
    Refused(Rejection),
}

impl Scope {
    pub(crate) fn new(
        name: &str,
        pipeline: Pipeline,
        models: Models,
        clock: Arc<dyn Clock>,
        subscribers: broadcast::Sender<ClientEvent>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            clock,
            state: Mutex::new(State {
                pipeline,
                models,
                learned: Vec::new(),
                waiting: BTreeMap::new(),
                served: HashMap::new(),
                head: None,
                backstop: None,
                wakes: Vec::new(),
                discarded: Vec::new(),
                circuits: HashMap::new(),
                blocked: HashMap::new(),
                events: VecDeque::new(),
                telling: false,
            }),
            shut_until: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            subscribers,
            keeper: OnceLock::new(),
            counters: Counters::default(),
        })
    }

    /// Asks for one attempt.
    ///
    /// - `patience`: how long a queue may be while another target could be asked; `None` if there is none.
    pub(crate) fn admit(
        self: &Arc<Self>,
        call: &Call,
        patience: Option<Duration>,
        now: Timestamp,
    ) -> Decision {
        let until = if call.attempts == 0 { call.admit_by.min(call.deadline) } else { call.deadline };
        let impatient =
            patience.map(|patience| now + patience.max(WORTH_WAKING)).filter(|soon| *soon < until);
        // What it got is in hands that give it back before the lock is left: telling events runs code of others.
        let decision = self.decide(now, |state| {
            if let Some(soon) = impatient {
                // A first try is bounded by `admit_by`, a retry by its deadline.
                let deadline = if call.attempts == 0 { call.deadline } else { soon };
                let hasty = Call { admit_by: soon, deadline, ..call.clone() };
                match state.pipeline.admit(&hasty, now) {
                    // Soon enough, as it seems. The place is taken again with the whole of its time: it must not be
                    // lost should the estimate prove wrong.
                    Admission::Queued(ticket) => state.pipeline.leave(ticket, now),
                    Admission::Rejected(rejection) => {
                        return match rejection {
                            Rejection::DeadlineTooSoon { .. } | Rejection::QueueFull { .. } => {
                                Decision::Busy(rejection)
                            }
                            rejection => Decision::Refused(rejection),
                        };
                    }
                    Admission::Granted(permit) => return Decision::Granted(self.hold(permit)),
                }
            }
            match state.pipeline.admit(call, now) {
                Admission::Granted(permit) => Decision::Granted(self.hold(permit)),
                Admission::Rejected(rejection) => Decision::Refused(rejection),
                Admission::Queued(ticket) => {
                    state.waiting.insert(ticket, None);
                    let (scope, call) = (Arc::clone(self), call.clone());
                    Decision::Queued(Place {
                        scope,
                        ticket: Some(ticket),
                        call,
                        until,
                        timer: Timer::default(),
                    })
                }
            }
        });
        match &decision {
            Decision::Queued(_) => Counters::add(&self.counters.queued),
            Decision::Refused(rejection) => self.counters.refused_by(rejection),
            Decision::Granted(_) | Decision::Busy(_) => {}
        }
        decision
    }

    /// A permit if one is to be had at this moment.
    pub(crate) fn admit_now(self: &Arc<Self>, call: &Call, now: Timestamp) -> Option<Held> {
        self.admit_or_foresee(call, now).ok()
    }

    /// The same; or when one is to be had as it seems, unless waiting is no help.
    pub(crate) fn admit_or_foresee(
        self: &Arc<Self>,
        call: &Call,
        now: Timestamp,
    ) -> Result<Held, Option<Timestamp>> {
        let hasty = Call { admit_by: now, attempts: 0, ..call.clone() };
        self.decide(now, |state| match state.pipeline.admit(&hasty, now) {
            Admission::Queued(ticket) => {
                state.pipeline.leave(ticket, now);
                Err(Some(now))
            }
            Admission::Granted(permit) => Ok(self.hold(permit)),
            Admission::Rejected(
                Rejection::DeadlineTooSoon { earliest, .. } | Rejection::QueueFull { earliest },
            ) => Err(Some(earliest)),
            Admission::Rejected(_) => Err(None),
        })
    }

    fn hold(self: &Arc<Self>, permit: Permit) -> Held {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let (scope, input) = (Arc::clone(self), InputEstimate::default());
        Held { scope, permit: Some(permit), input, spent: Spent::Nothing, begun: None }
    }

    /// Whether `model` is known to be refused at `now`, however free the limits are: an open circuit, a spent quota.
    pub(crate) fn is_shut(&self, model: &str, now: Timestamp) -> bool {
        if self.shut_until.load(Ordering::Relaxed) <= now.as_nanos() {
            return false;
        }
        let mut state = self.lock();
        let model = state.models.intern(model);
        let circuit = |of| state.circuits.get(&of).map(|circuit| circuit.until);
        let blocked = state.blocked.get(&model).copied();
        [circuit(None), circuit(Some(model)), blocked].into_iter().flatten().any(|until| until > now)
    }

    /// A tenant's part of what there is to share.
    pub(crate) fn weigh_tenant(&self, tenant: TenantId, weight: u32) {
        self.lock().pipeline.weigh_tenant(tenant, weight);
    }

    /// The number of a model.
    pub(crate) fn model(&self, name: &str) -> ModelId {
        self.lock().models.intern(name)
    }

    /// How long to wait for this model's first token when another target could answer.
    pub(crate) fn patience(&self, model: ModelId, reasons_first: bool) -> Duration {
        self.lock().learned_of(model).first_tokens.patience(reasons_first)
    }

    /// The input tokens of a call to this model, as far as its answers so far correct the estimate.
    pub(crate) fn calibrated(&self, model: ModelId, input: InputEstimate) -> u64 {
        self.lock().learned_of(model).calibration.apply(input)
    }

    /// After how long this model's first token is slow, if that is known yet.
    pub(crate) fn slow_first_token(&self, model: ModelId, reasons_first: bool) -> Option<Duration> {
        self.lock().learned_of(model).first_tokens.slow(reasons_first)
    }

    /// A first token had not come after `elapsed`, and nobody waits for it any more. It counts as one that came then:
    /// were the slowest never counted, what is slow would shrink with every hedge.
    pub(crate) fn missed_first_token(&self, model: ModelId, reasons_first: bool, elapsed: Duration) {
        self.lock().learned_of(model).first_tokens.record(reasons_first, elapsed);
    }

    /// Whether `model`'s circuits are closed: neither open nor being tested, as far as events have told.
    pub(crate) fn is_closed(&self, model: &str) -> bool {
        let mut state = self.lock();
        let model = state.models.intern(model);
        let closed = |of| state.circuits.get(&of).is_none_or(|circuit| circuit.state == BreakerState::Closed);
        closed(None) && closed(Some(model))
    }

    pub(crate) fn reset_circuit(self: &Arc<Self>) {
        let now = self.clock.now();
        self.decide(now, |state| {
            state.pipeline.reset_circuit(now);
            state.circuits.values_mut().for_each(|circuit| circuit.until = Timestamp::ZERO);
        });
        telemetry::circuit_reset(&self.name);
    }

    /// Goes on under another configuration; whoever can go now is woken.
    pub(crate) fn reconfigure(
        self: &Arc<Self>,
        config: PipelineConfig,
        limits: Vec<(&str, ModelLimits)>,
        now: Timestamp,
    ) {
        self.decide(now, |state| {
            state.pipeline.reconfigure(config, now);
            let limits: Vec<_> =
                limits.into_iter().map(|(model, limits)| (state.models.intern(model), limits)).collect();
            state.pipeline.limit_models(limits, now);
        });
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    pub(crate) fn stats(&self) -> (Stats, Timestamp) {
        let now = self.clock.now();
        (self.lock().pipeline.stats(now), now)
    }

    /// Permits out and places taken, as this side counts them.
    pub(crate) fn outstanding(&self) -> (u64, usize) {
        let state = self.lock();
        (self.in_flight.load(Ordering::Relaxed), state.waiting.len() + state.served.len())
    }

    /// One decision, after which the store may have to be asked. See the module's documentation.
    fn decide<R>(self: &Arc<Self>, now: Timestamp, decision: impl FnOnce(&mut State) -> R) -> R {
        let (decided, due) = self.decide_and(now, decision, |state| self.lease_due(state, now));
        if due {
            self.nudge_keeper();
        }
        decided
    }

    /// The same for the task that asks it.
    fn decide_quietly<R>(&self, now: Timestamp, decision: impl FnOnce(&mut State) -> R) -> R {
        self.decide_and(now, decision, |_| ()).0
    }

    fn decide_and<R, D>(
        &self,
        now: Timestamp,
        decision: impl FnOnce(&mut State) -> R,
        look: impl FnOnce(&State) -> D,
    ) -> (R, D) {
        // Declared before the lock is taken, so that a permit in it is never given back under the lock.
        let decided;
        let (wakes, discarded, tell, looked) = {
            let mut state = self.lock();
            decided = decision(&mut state);
            state.advance(now);
            let tell = state.note_events(&self.shut_until);
            let looked = look(&state);
            (std::mem::take(&mut state.wakes), std::mem::take(&mut state.discarded), tell, looked)
        };
        wakes.into_iter().for_each(Waker::wake);
        drop(discarded);
        if tell {
            self.tell();
        }
        (decided, looked)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic inside a decision would have to be a bug of ours; the numbers are still the best there are.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what was noted, in order, without the lock.
    fn tell(&self) {
        struct Done<'a>(&'a Scope);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.lock().telling = false;
            }
        }
        loop {
            let events = {
                let mut state = self.lock();
                if state.telling || state.events.is_empty() {
                    return;
                }
                state.telling = true;
                std::mem::take(&mut state.events)
            };
            // A subscriber that panics must not silence every later event.
            let _done = Done(self);
            for noted in &events {
                self.tell_one(noted);
            }
        }
    }

    fn tell_one(&self, noted: &Noted) {
        let name = &*self.name;
        match &noted.event {
            Event::Opened { failures, at, .. } => {
                telemetry::circuit_opened(&self.circuit(noted), *failures);
                self.publish_transition(noted, BreakerState::Open, *at);
            }
            Event::HalfOpened { at, .. } => {
                telemetry::circuit_half_opened(&self.circuit(noted));
                self.publish_transition(noted, BreakerState::HalfOpen, *at);
            }
            Event::Closed { at, .. } => {
                telemetry::circuit_closed(&self.circuit(noted));
                self.publish_transition(noted, BreakerState::Closed, *at);
            }
            Event::LimitHit { dimension, requests_last_minute, tokens_last_minute, at } => {
                let in_flight = self.in_flight.load(Ordering::Relaxed);
                telemetry::limit_hit(name, *dimension, *requests_last_minute, *tokens_last_minute, in_flight);
                let (provider, dimension, at) = (name.to_owned(), *dimension, since_start(*at));
                self.publish(|| ClientEvent::LimitHit { provider, dimension, at });
            }
            Event::LimitCleared { at } => {
                telemetry::limit_cleared(name);
                self.publish(|| ClientEvent::LimitCleared {
                    provider: name.to_owned(),
                    at: since_start(*at),
                });
            }
            Event::Paused { until, at } => {
                telemetry::paused(name, until.saturating_since(*at));
                let (until, at) = (since_start(*until), since_start(*at));
                self.publish(|| ClientEvent::Paused { provider: name.to_owned(), until, at });
            }
            Event::LimitLooksLow { dimension, configured, observed } => {
                telemetry::limit_looks_low(name, *dimension, *configured, *observed);
            }
            Event::ModelBlocked { until, .. } => {
                let model = noted.model.as_deref().unwrap_or("one model");
                telemetry::model_blocked(name, model, until.saturating_since(self.clock.now()));
            }
            // Events of later versions of the policy that this one has no words for.
            _ => {}
        }
    }

    /// The name of the circuit an event is about.
    fn circuit(&self, noted: &Noted) -> String {
        match &noted.model {
            Some(model) => format!("{}/{}", self.name, telemetry::one_line(model)),
            None => self.name.to_string(),
        }
    }

    fn publish_transition(&self, noted: &Noted, to: BreakerState, at: Timestamp) {
        self.publish(|| {
            ClientEvent::Transition(TransitionEvent {
                provider: self.name.to_string(),
                model: noted.model.clone(),
                from: noted.from,
                to,
                at: since_start(at),
            })
        });
    }

    /// Tells subscribers, if there are any.
    pub(crate) fn publish(&self, event: impl FnOnce() -> ClientEvent) {
        if self.subscribers.receiver_count() > 0 {
            // An error says that the last subscriber left just now.
            let _ = self.subscribers.send(event());
        }
    }
}

/// What it has leased goes back.
impl Drop for Scope {
    fn drop(&mut self) {
        self.say_farewell();
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The clock's origin is the client's start.
fn since_start(at: Timestamp) -> Duration {
    at.saturating_since(Timestamp::ZERO)
}
