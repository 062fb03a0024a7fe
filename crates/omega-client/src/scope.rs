//! One provider's pipeline, shared between tasks: a mutex held for a decision, and the places of those who wait.
//!
//! Every decision goes through [`Scope::decide`]: lock, decide, hand permits to waiters whose turn has come, note
//! events, unlock; only then are tasks woken and events told, so that neither a waker nor a log subscriber can call
//! back into a held lock. No background task watches the clock: the waiter at the head of the queue does it for all,
//! and a second one with a margin, so that a head whose task is never polled again cannot freeze the others.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use omega_policy::{
    Admission, BreakerState, Call, Chance, Event, FirstTokens, ModelId, Outcome, Permit, Pipeline, QuotaHint,
    Rejection, Spent, Stats, TenantId, Ticket, Timestamp, Usage, Verdict,
};
use omega_protocol::{Calibration, InputEstimate};
use tokio::sync::broadcast;
use tokio::time::Sleep;

use crate::clock::Clock;
use crate::events::{ClientEvent, TransitionEvent};
use crate::registry::Models;
use crate::telemetry;

/// How much later than the head the second waiter looks at the clock. Long enough that a live head is always first,
/// short enough that nobody notices when it is not.
const BACKSTOP: Duration = Duration::from_millis(50);
/// A head whose next moment moves forward by less is not woken for it.
const WORTH_WAKING: Duration = Duration::from_millis(1);

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
    pub(crate) counters: Counters,
}

/// Counts since the client was built.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) sent: AtomicU64,
    pub(crate) answered: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) throttled: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) failed_over: AtomicU64,
    pub(crate) cancelled: AtomicU64,
    /// Places taken in the queue. Counted here and not read off the pipeline, which also sees the looks at a queue
    /// that no call then joins; so are the two below.
    pub(crate) queued: AtomicU64,
    pub(crate) limit_refused: AtomicU64,
    pub(crate) circuit_refused: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn refused_by(&self, rejection: &Rejection) {
        Self::add(match rejection {
            Rejection::CircuitOpen { .. } => &self.circuit_refused,
            _ => &self.limit_refused,
        });
    }
}

struct State {
    pipeline: Pipeline,
    models: Models,
    learned: Vec<Learned>,
    /// Those who wait, each with the waker of its last poll.
    waiting: BTreeMap<Ticket, Option<Waker>>,
    /// Those who were served and have not looked yet.
    served: HashMap<Ticket, Result<Permit, Rejection>>,
    /// Who watches the clock, and until when.
    head: Option<(Ticket, Option<Timestamp>)>,
    backstop: Option<Ticket>,
    wakes: Vec<Waker>,
    /// Wakers of nobody any more. Like the others they leave the lock first: dropping one may drop a task.
    discarded: Vec<Waker>,
    circuits: HashMap<Option<ModelId>, Circuit>,
    /// Models whose own quota is spent, and until when.
    blocked: HashMap<ModelId, Timestamp>,
    events: VecDeque<Noted>,
    /// Somebody is telling events; whoever adds more leaves them to it, so that they are told in order.
    telling: bool,
}

/// What the answers of one model have taught.
#[derive(Default)]
struct Learned {
    first_tokens: FirstTokens,
    calibration: Calibration,
}

/// What the last event said of a circuit.
#[derive(Clone, Copy, Default)]
struct Circuit {
    state: BreakerState,
    /// Until when it refuses.
    until: Timestamp,
}

/// An event with what its wording needs.
struct Noted {
    event: Event,
    model: Option<String>,
    from: BreakerState,
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
                    Decision::Queued(Place { scope, ticket: Some(ticket), call, until, timer: None })
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
        let hasty = Call { admit_by: now, attempts: 0, ..call.clone() };
        self.decide(now, |state| match state.pipeline.admit(&hasty, now) {
            Admission::Queued(ticket) => {
                state.pipeline.leave(ticket, now);
                None
            }
            Admission::Granted(permit) => Some(self.hold(permit)),
            Admission::Rejected(_) => None,
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

    pub(crate) fn reset_circuit(&self) {
        let now = self.clock.now();
        self.decide(now, |state| {
            state.pipeline.reset_circuit(now);
            state.circuits.values_mut().for_each(|circuit| circuit.until = Timestamp::ZERO);
        });
        telemetry::circuit_reset(&self.name);
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

    /// One decision. See the module's documentation.
    fn decide<R>(&self, now: Timestamp, decision: impl FnOnce(&mut State) -> R) -> R {
        // Declared before the lock is taken, so that a permit in it is never given back under the lock.
        let decided;
        let (wakes, discarded, tell) = {
            let mut state = self.lock();
            decided = decision(&mut state);
            state.advance(now);
            let tell = state.note_events(&self.shut_until);
            (std::mem::take(&mut state.wakes), std::mem::take(&mut state.discarded), tell)
        };
        wakes.into_iter().for_each(Waker::wake);
        drop(discarded);
        if tell {
            self.tell();
        }
        decided
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

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The clock's origin is the client's start.
fn since_start(at: Timestamp) -> Duration {
    at.saturating_since(Timestamp::ZERO)
}

impl State {
    /// Serves those whose turn has come, and sees to it that somebody watches the clock for the rest.
    fn advance(&mut self, now: Timestamp) {
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
        self.appoint_watchers();
    }

    /// Wakes the head and the backstop if they have changed, or if the head must look earlier than it thinks.
    fn appoint_watchers(&mut self) {
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
        self.head = head;
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
    fn look(&mut self, ticket: Ticket, call: &Call, until: Timestamp, waker: &Waker, now: Timestamp) -> Look {
        self.advance(now);
        if let Some(result) = self.served.remove(&ticket) {
            return Look::Served(result);
        }
        if now >= until {
            self.discarded.extend(self.waiting.remove(&ticket).flatten());
            self.pipeline.leave(ticket, now);
            return Look::Served(self.refusal(call, now));
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
    fn leave(&mut self, ticket: Ticket, now: Timestamp) {
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

    fn learned_of(&mut self, model: ModelId) -> &mut Learned {
        let index = model.0 as usize;
        if self.learned.len() <= index {
            self.learned.resize_with(index + 1, Learned::default);
        }
        &mut self.learned[index]
    }

    /// Takes the pipeline's events over. `true` if they are to be told now.
    fn note_events(&mut self, shut_until: &AtomicU64) -> bool {
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

enum Look {
    Served(Result<Permit, Rejection>),
    Wait { until: Timestamp },
}

/// A place in the queue, as a future of its end. Dropped, it is given up, together with a permit that had come for it.
pub(crate) struct Place {
    scope: Arc<Scope>,
    /// `None` once it has ended.
    ticket: Option<Ticket>,
    call: Call,
    until: Timestamp,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Future for Place {
    type Output = Result<Held, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let ticket = this.ticket.expect("a place is not polled after its end");
        loop {
            let now = this.scope.clock.now();
            let until = this.until;
            let (scope, call) = (&this.scope, &this.call);
            let seen = scope.decide(now, |state| match state.look(ticket, call, until, cx.waker(), now) {
                Look::Served(result) => Ok(result.map(|permit| scope.hold(permit))),
                Look::Wait { until } => Err(until),
            });
            match seen {
                Ok(result) => {
                    this.ticket = None;
                    if let Err(rejection) = &result {
                        scope.counters.refused_by(rejection);
                    }
                    return Poll::Ready(result);
                }
                Err(until) => {
                    let at = this.scope.clock.instant(until);
                    let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
                    if timer.deadline() != at {
                        timer.as_mut().reset(at);
                    }
                    if timer.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

impl Place {
    /// Gives the place up for a better one: nobody went away.
    pub(crate) fn leave(mut self) {
        self.give_up();
    }

    fn give_up(&mut self) -> bool {
        let Some(ticket) = self.ticket.take() else { return false };
        let now = self.scope.clock.now();
        self.scope.decide(now, |state| state.leave(ticket, now));
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.give_up() {
            Counters::add(&self.scope.counters.cancelled);
        }
    }
}

/// A permit in the driver's hands. Dropped, it goes back without a verdict: the caller went away.
#[must_use = "a permit that is dropped is returned"]
pub(crate) struct Held {
    scope: Arc<Scope>,
    permit: Option<Permit>,
    /// What was estimated, for its usage to be compared with.
    input: InputEstimate,
    spent: Spent,
    /// Set when the first content comes, for whoever hedges the attempt.
    begun: Option<Arc<AtomicBool>>,
}

impl Held {
    /// Sets `begun` when the first content comes.
    pub(crate) fn announce(&mut self, begun: &Arc<AtomicBool>) {
        self.begun = Some(Arc::clone(begun));
    }

    /// From here on the provider may have work with it.
    ///
    /// - `input`: as estimated, not as experience corrects it.
    pub(crate) fn sent(&mut self, input: InputEstimate) {
        self.input = input;
        Counters::add(&self.scope.counters.sent);
        self.spent = Spent::Sent { seen: None };
    }

    /// What has been seen of the answer so far.
    pub(crate) fn saw(&mut self, usage: Usage) {
        self.spent = Spent::Sent { seen: Some(usage) };
    }

    /// The first content came, this long after sending.
    pub(crate) fn first_token(
        &mut self,
        model: ModelId,
        reasons_first: bool,
        elapsed: Duration,
        now: Timestamp,
    ) {
        if let Some(begun) = &self.begun {
            begun.store(true, Ordering::Relaxed);
        }
        if let Some(permit) = &mut self.permit {
            self.scope.decide(now, |state| {
                state.pipeline.first_token(permit, now);
                state.learned_of(model).first_tokens.record(reasons_first, elapsed);
            });
        }
    }

    /// What the provider's headers said of its quota in the answer to this attempt.
    pub(crate) fn handle_hint(&self, hint: &QuotaHint, now: Timestamp) {
        if let Some(permit) = &self.permit {
            self.scope.decide(now, |state| state.pipeline.handle_hint(permit, hint, now));
        }
    }

    /// The attempt ended.
    pub(crate) fn complete(
        mut self,
        call: &mut Call,
        outcome: &Outcome,
        now: Timestamp,
        chance: Chance,
    ) -> Verdict {
        let permit = self.permit.take().expect("a held permit is completed once: completing consumes it");
        self.scope.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.scope.decide(now, |state| {
            // What shares one number with others says nothing about them.
            if let Outcome::Success { usage: Some(usage) } = outcome
                && call.model != ModelId::OTHER
            {
                state.learned_of(call.model).calibration.learn(self.input, usage.input_tokens);
            }
            state.pipeline.complete(call, permit, outcome, now, chance)
        })
    }

    pub(crate) fn scope(&self) -> &Arc<Scope> {
        &self.scope
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.scope.in_flight.fetch_sub(1, Ordering::Relaxed);
            Counters::add(&self.scope.counters.cancelled);
            let now = self.scope.clock.now();
            self.scope.decide(now, |state| state.pipeline.cancel(permit, self.spent, now));
        }
    }
}
