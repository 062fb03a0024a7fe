//! THE ONLY LOOP: ask the pipeline, wait, send, report; then retry, turn to the next target, or stop.
//!
//! One deadline lies over all of it. Nothing here decides what a failure means (the policy's table does) or what a
//! provider said (the protocol does). A future dropped at any await returns what it holds: a [`Place`] leaves the
//! queue, a [`Held`] permit goes back without a verdict. Only a hedge (`hedge.rs`) makes two attempts of a call fly at
//! once.

mod conclusion;
mod hedge;

use std::sync::Arc;
use std::time::Duration;

use omega_policy::{Call, Demand, FailureKind, GiveUp, Priority, Rejection, TenantId, Timestamp, Verdict};
use omega_protocol::{ProviderError, Streaming};

use crate::answer::{Attempt, AttemptOutcome};
use crate::asked::Asked as _;
use crate::client::Inner;
use crate::error::{Error, ErrorKind};
use crate::events::ClientEvent;
use crate::exchange::{Complete, Encoded, Exchange, Facts, Received};
use crate::registry::Target;
use crate::scope::{Counters, Decision, Held, Place};
use crate::send::Outgoing;
use crate::telemetry;
use crate::watch::{Fault, Limits, Watch};

use hedge::{Landed, Overtaken};

pub(crate) use conclusion::failed_outcome;

/// A waiter looks around for a free target at most this often, also with a `failover_wait_seconds` of 0.
const LOOK_AROUND_MIN: Duration = Duration::from_millis(100);

/// What one call may do.
pub(crate) struct Plan {
    /// The model asked for and its fallbacks. Never empty.
    pub(crate) targets: Vec<Target>,
    /// How many of them, from the first on, stand beside each other: any may have the call, whoever has room.
    pub(crate) mates: usize,
    pub(crate) started: Timestamp,
    pub(crate) deadline: Timestamp,
    pub(crate) max_wait: Option<Duration>,
    pub(crate) max_attempts: u32,
    pub(crate) priority: Priority,
    pub(crate) tenant: TenantId,
}

/// An answer, or its beginning, and who gave it.
pub(crate) struct Served<A> {
    pub(crate) answer: A,
    pub(crate) target: Target,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) max_attempts: u32,
    pub(crate) queued: Duration,
    /// For a stream that has begun: the permit, and the call to complete with it.
    pub(crate) open: Option<(Held, Call)>,
}

impl<A> Served<A> {
    pub(crate) fn map<B>(self, change: impl FnOnce(A) -> B) -> Served<B> {
        let Self { answer, target, attempts, max_attempts, queued, open } = self;
        Served { answer: change(answer), target, attempts, max_attempts, queued, open }
    }
}

/// The loop over one call.
pub(crate) struct Driver<'c, E> {
    client: &'c Inner,
    exchange: E,
    plan: Plan,
    attempts: Vec<Attempt>,
    queued: Duration,
    /// Which targets' protocols can express the call, as far as it was tried.
    fits: Vec<Option<bool>>,
    /// A target that has said as a hedge that asking it again is no use, and what follows from it.
    hopeless: Option<(usize, Then)>,
    /// Why each target so far could not serve it.
    errors: Vec<Error>,
}

/// What became of one target.
enum Asked<A> {
    Answered(Box<Served<A>>),
    /// Try the next one, or stop with this error.
    Next(Error),
    /// That other target has admitted the call already.
    Moved {
        to: usize,
        held: Held,
        why: Error,
    },
    /// No other target would help.
    Stop(Error),
}

/// What became of the wish to send.
enum Entered {
    Granted(Held),
    Refused(Rejection),
    Moved { to: usize, held: Held },
}

/// How it goes on after a failed attempt.
enum Then {
    Again { at: Timestamp, delay: Duration, error: Error },
    Next(Error),
    Stop(Error),
}

/// Whether a failed attempt may be followed by another one at the same target.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Retries {
    AsAllowed,
    None,
}

/// One attempt, for its record.
struct Began {
    at: Timestamp,
    queued: Duration,
}

impl Began {
    fn sent_at(&self) -> Timestamp {
        self.at + self.queued
    }
}

impl<'c, E: Exchange> Driver<'c, E> {
    pub(crate) fn new(client: &'c Inner, exchange: E, plan: Plan) -> Self {
        let (attempts, errors, fits) = (Vec::new(), Vec::new(), vec![None; plan.targets.len()]);
        Self { client, exchange, plan, attempts, queued: Duration::ZERO, fits, hopeless: None, errors }
    }

    /// Runs the call to its end.
    pub(crate) async fn run(mut self) -> Result<Served<E::Answer>, Error> {
        let (mut index, mut carried) = (0, self.take_room());
        while index < self.plan.targets.len() {
            let (next, why) = match self.ask(index, carried.take()).await {
                Asked::Answered(served) => return Ok(*served),
                Asked::Stop(error) => {
                    self.errors.push(error);
                    break;
                }
                Asked::Next(why) => (index + 1, why),
                Asked::Moved { to, held, why } => {
                    carried = Some(held);
                    (to, why)
                }
            };
            if let Some(to) = self.plan.targets.get(next) {
                self.note_failover(&self.plan.targets[index], to, &why);
            }
            self.errors.push(why);
            index = next;
        }
        Err(self.conclusion())
    }

    /// Puts the best of those who stand beside each other in front: the first that admits the call at this moment, with
    /// its permit; where none does, the one that expects to do so first.
    fn take_room(&mut self) -> Option<Held> {
        if self.plan.mates < 2 {
            return None;
        }
        let now = self.client.clock.now();
        let mut soonest: Option<(Timestamp, usize)> = None;
        for at in 0..self.plan.mates {
            let target = &self.plan.targets[at];
            let call = self.call(target, &self.facts(target), now);
            match target.member.scope.admit_or_foresee(&call, now) {
                Ok(held) => {
                    self.plan.targets[..=at].rotate_right(1);
                    return Some(held);
                }
                // Of equals the first: it is where the call is wanted.
                Err(Some(when)) if soonest.is_none_or(|(soon, _)| when < soon) => soonest = Some((when, at)),
                Err(_) => {}
            }
        }
        if let Some((_, at)) = soonest {
            self.plan.targets[..=at].rotate_right(1);
        }
        None
    }

    /// Asks one target until it has answered or there is no use in asking it again.
    async fn ask(&mut self, index: usize, mut carried: Option<Held>) -> Asked<E::Answer> {
        match self.hopeless.take_if(|(at, _)| *at == index) {
            Some((_, Then::Next(error) | Then::Again { error, .. })) => return Asked::Next(error),
            Some((_, Then::Stop(error))) => return Asked::Stop(error),
            None => {}
        }
        let target = self.plan.targets[index].clone();
        let guard = self.client.loaded.config.guard_whole_answers && !target.refuses_streams();
        let mut encoded = match self.encode(&target, guard) {
            Ok(encoded) => encoded,
            Err(error) => return Asked::Next(error),
        };
        let facts = self.facts(&target);
        let mut call = self.call(&target, &facts, self.client.clock.now());
        let mut last: Option<Error> = None;
        loop {
            let now = self.client.clock.now();
            if now >= self.plan.deadline {
                return Asked::Stop(last.unwrap_or_else(|| self.out_of_time()));
            }
            call.alternative = self.alternatives(index, now).next().is_some();
            let (entered, sent_at) = match carried.take() {
                Some(held) => (Entered::Granted(held), now),
                None => self.enter(index, &call, now).await,
            };
            let began = Began { at: now, queued: sent_at.saturating_since(now) };
            self.queued += began.queued;
            let held = match entered {
                Entered::Granted(held) => held,
                // Experience may say "later", never "never": what is not sent teaches nothing, so a model shut out by
                // what it once cost would stay so.
                Entered::Refused(Rejection::ExceedsCapacity { .. })
                    if call.demand.input_tokens > facts.input.tokens =>
                {
                    call.demand.input_tokens = facts.input.tokens;
                    continue;
                }
                Entered::Refused(rejection) => {
                    return Asked::Next(self.refused(&target, &rejection, last, &began));
                }
                Entered::Moved { to, held } => {
                    return Asked::Moved { to, held, why: self.moved(&target, &began) };
                }
            };
            let streaming = encoded.streaming;
            let limits = self.limits(&target, &call, streaming, facts.reasons_first);
            let watch = Watch::new(Arc::clone(&self.client.clock), limits, sent_at, self.plan.deadline);
            let outgoing = Outgoing { encoded: encoded.clone(), watch };
            let Landed { held, result, hedge } =
                match self.dispatch(index, &target, outgoing, &facts, held, &began).await {
                    Ok(landed) => landed,
                    Err(Overtaken::Won(served)) => return Asked::Answered(served),
                    // Nobody has seen anything of it: as though the call had not been sent yet.
                    Err(Overtaken::Broke(error)) => {
                        last = Some(error);
                        call = self.call(&target, &facts, self.client.clock.now());
                        continue;
                    }
                };
            match result {
                Ok(received) => {
                    let served = self.answered(target, received, held, call, &began);
                    return Asked::Answered(Box::new(served));
                }
                Err(Fault::Deadline { heard }) => {
                    let error = self.interrupted(&target, held, &mut call, heard, &began);
                    // It has the same deadline, and ends with it.
                    return match self.await_hedge(index, hedge).await {
                        Some(served) => Asked::Answered(served),
                        None => Asked::Stop(error),
                    };
                }
                Err(Fault::Provider(said)) => {
                    let unwanted = self.exchange.wants_whole()
                        && streaming == Streaming::Stream
                        && refuses_to_stream(&said);
                    let now = self.client.clock.now();
                    call.alternative = call.alternative && self.has_fitting_alternative(index, now);
                    let retries = Retries::AsAllowed;
                    let then = self.failed(&target, said, held, &mut call, retries, &began);
                    // The caller never asked for a stream; we did, to guard the answer. Who will not stream is asked
                    // for the whole of it, now and from now on.
                    if unwanted {
                        target.note_refused_stream();
                    }
                    match (&then, hedge) {
                        // What no other target may answer is not answered by a hedge either.
                        (Then::Stop(_), Some(hedge)) if !unwanted => self.leave_hedge(*hedge),
                        (_, hedge) => {
                            if let Some(served) = self.await_hedge(index, hedge).await {
                                return Asked::Answered(served);
                            }
                        }
                    }
                    if unwanted
                        && call.attempts < self.plan.max_attempts
                        && let Ok(whole) = self.encode(&target, false)
                    {
                        encoded = whole;
                        continue;
                    }
                    match then {
                        Then::Again { at, delay, error } => {
                            self.back_off(&target, &call, at, delay).await;
                            last = Some(error);
                        }
                        Then::Next(error) => return Asked::Next(error),
                        Then::Stop(error) => return Asked::Stop(error),
                    }
                }
            }
        }
    }

    fn facts(&self, target: &Target) -> Facts {
        let (asked, scope) = (self.exchange.asked(), &target.member.scope);
        let model = scope.model(&target.model);
        let input = asked.input(&target.model, &self.client.counter);
        let input_tokens = scope.calibrated(model, input);
        let demand = Demand { input_tokens, max_output_tokens: asked.max_output_tokens() };
        Facts { model, reasons_first: asked.reasons_first(), input, demand }
    }

    /// The request as this target takes it, or a record of why it does not.
    fn encode(&mut self, target: &Target, guard: bool) -> Result<Encoded<E::How>, Error> {
        self.try_encode(target, guard).map_err(|error| {
            let began = Began { at: self.client.clock.now(), queued: Duration::ZERO };
            let message = error.message().to_owned();
            self.record(target, &began, AttemptOutcome::Skipped { message });
            error.at(&target.member.name, &target.model)
        })
    }

    fn try_encode(&mut self, target: &Target, guard: bool) -> Result<Encoded<E::How>, Error> {
        let member = &target.member;
        let endpoint = match self.exchange.brings_key(member) {
            true => member.endpoint_for_own_key(),
            false => member.endpoint(),
        };
        let endpoint = endpoint.map_err(|missing| Error::new(ErrorKind::Config, missing))?;
        if self.exchange.asked().model() != target.model {
            self.exchange.asked_mut().set_model(&target.model);
        }
        let encoded = self.exchange.encode(member.provider(), endpoint, guard);
        encoded.map_err(|error| {
            let field = error.named_field().map(str::to_owned);
            Error::new(ErrorKind::Unsupported, error.to_string()).about(field)
        })
    }

    fn call(&self, target: &Target, facts: &Facts, now: Timestamp) -> Call {
        let max_wait = self.plan.max_wait.unwrap_or(target.member.max_wait);
        Call {
            priority: self.plan.priority,
            tenant: self.plan.tenant,
            arrived: self.plan.started,
            admit_by: (now + max_wait).min(self.plan.deadline),
            failover_wait: self.client.failover_wait,
            ..Call::new(facts.model, facts.demand, self.plan.deadline, now)
        }
    }

    /// Later targets that could be asked at some time: they have a key and such calls.
    fn later(&self, index: usize) -> impl Iterator<Item = usize> + use<'_, 'c, E> {
        (index + 1..self.plan.targets.len()).filter(|at| {
            let member = &self.plan.targets[*at].member;
            member.endpoint().is_ok_and(|endpoint| E::Asked::is_offered(member.provider(), endpoint))
        })
    }

    /// Those of them that are not known to refuse this call now.
    fn alternatives(&self, index: usize, now: Timestamp) -> impl Iterator<Item = usize> + use<'_, 'c, E> {
        self.later(index).filter(move |at| {
            let target = &self.plan.targets[*at];
            !target.member.scope.is_shut(&target.model, now)
        })
    }

    /// Whether one of them can really take this very request. Asked only where the answer matters: encoding is what
    /// a call costs us most.
    fn has_fitting_alternative(&mut self, index: usize, now: Timestamp) -> bool {
        let candidates: Vec<usize> = self.alternatives(index, now).collect();
        candidates.into_iter().any(|at| self.fits(at))
    }

    /// Whether a target's protocol can express the call; tried once.
    fn fits(&mut self, at: usize) -> bool {
        if let Some(known) = self.fits[at] {
            return known;
        }
        let target = self.plan.targets[at].clone();
        let asked = self.exchange.asked().model().to_owned();
        self.exchange.asked_mut().set_model(&target.model);
        let endpoint = target.member.endpoint();
        let provider = target.member.provider();
        let fits = endpoint.is_ok_and(|endpoint| self.exchange.encode(provider, endpoint, false).is_ok());
        self.exchange.asked_mut().set_model(&asked);
        self.fits[at] = Some(fits);
        fits
    }

    /// Gets a permit: at once, after waiting, or from another target that is free while the queue here is long. Says
    /// when that was.
    async fn enter(&mut self, index: usize, call: &Call, now: Timestamp) -> (Entered, Timestamp) {
        let scope = Arc::clone(&self.plan.targets[index].member.scope);
        // Also while all of them refuse: an open circuit may let a probe through before the wait here is over.
        let patience = self.later(index).next().map(|_| call.failover_wait);
        let mut decision = scope.admit(call, patience, now);
        if let Decision::Busy(_) = decision {
            if let Some((to, held)) = self.elsewhere(index, now) {
                return (Entered::Moved { to, held }, now);
            }
            // The others are as busy; as soon as one is not, it is asked.
            decision = scope.admit(call, None, now);
        }
        match decision {
            Decision::Granted(held) => (Entered::Granted(held), now),
            Decision::Refused(rejection) | Decision::Busy(rejection) => (Entered::Refused(rejection), now),
            Decision::Queued(place) => {
                let entered = self.wait(index, place, patience).await;
                (entered, self.client.clock.now())
            }
        }
    }

    /// Waits for the turn; with a patience, looks around for a free target whenever it has run out.
    async fn wait(&mut self, index: usize, mut place: Place, patience: Option<Duration>) -> Entered {
        let entered =
            |served: Result<Held, Rejection>| served.map_or_else(Entered::Refused, Entered::Granted);
        let Some(patience) = patience.map(|patience| patience.max(LOOK_AROUND_MIN)) else {
            return entered(place.await);
        };
        loop {
            if let Ok(served) = tokio::time::timeout(patience, &mut place).await {
                return entered(served);
            }
            if let Some((to, held)) = self.elsewhere(index, self.client.clock.now()) {
                place.leave();
                return Entered::Moved { to, held };
            }
        }
    }

    /// A permit at the first later target that has one at this moment.
    fn elsewhere(&mut self, index: usize, now: Timestamp) -> Option<(usize, Held)> {
        let candidates: Vec<usize> = self.alternatives(index, now).collect();
        for at in candidates {
            // A place in the queue is not given up for a target that cannot take the call after all.
            if !self.fits(at) {
                continue;
            }
            let target = &self.plan.targets[at];
            let call = self.call(target, &self.facts(target), now);
            if let Some(held) = target.member.scope.admit_now(&call, now) {
                return Some((at, held));
            }
        }
        None
    }

    /// How long each silence may be at this target.
    fn limits(&self, target: &Target, call: &Call, streaming: Streaming, reasons_first: bool) -> Limits {
        let clocks = &target.member.clocks;
        if streaming == Streaming::Whole && E::GENERATES {
            // A whole answer is written before its first byte is sent, so silence says nothing for as long as an
            // answer may take to begin.
            let whole = clocks.reasoning_first_content.max(clocks.first_content).max(clocks.first_byte);
            return Limits { first_byte: whole, first_content: whole, gap: clocks.gap };
        }
        let mut first_content =
            if reasons_first { clocks.reasoning_first_content } else { clocks.first_content };
        let learned = call.alternative || clocks.learned_without_fallback;
        if learned && clocks.learned_first_content {
            first_content = first_content.min(target.member.scope.patience(call.model, reasons_first));
        }
        Limits { first_byte: clocks.first_byte, first_content, gap: clocks.gap }
    }

    /// The answer is here, or has begun.
    fn answered(
        &mut self,
        target: Target,
        received: Received<E::Answer>,
        held: Held,
        mut call: Call,
        began: &Began,
    ) -> Served<E::Answer> {
        let Received { answer, state, unstreamed } = received;
        if unstreamed {
            // A whole answer takes as long as it takes to write; the clocks of a stream would cut it off.
            target.note_refused_stream();
        }
        let open = match state {
            Complete::Whole(usage) => {
                self.client.succeed(held, &mut call, usage);
                None
            }
            Complete::Begun => Some((held, call)),
        };
        self.record(&target, began, AttemptOutcome::Answered);
        let attempts = std::mem::take(&mut self.attempts);
        let (max_attempts, queued) = (self.plan.max_attempts, self.queued);
        Served { answer, target, attempts, max_attempts, queued, open }
    }

    /// The provider failed: tells the layers, and what they say to it.
    fn failed(
        &mut self,
        target: &Target,
        said: ProviderError,
        held: Held,
        call: &mut Call,
        retries: Retries,
        began: &Began,
    ) -> Then {
        let member = &target.member;
        let allowed = self.plan.max_attempts;
        telemetry::attempt_failed(call.attempts + 1, allowed, &said);
        let mut failure = said.failure.clone();
        if call.attempts + 1 >= allowed || retries == Retries::None {
            // This call may allow itself fewer attempts than the policy does: a retry that will not be made must not
            // be taken from the budget of those that will.
            failure.should_retry = Some(false);
        }
        let (verdict, now) = self.client.fail(held, call, failure);
        self.record(target, began, failed_outcome(&said));
        let kind = said.failure.kind;
        let mut error = Error::provider_said(&member.name, &target.model, said);
        match verdict {
            Verdict::RetryAt { at, delay } if call.attempts < allowed => {
                return Then::Again { at, delay, error };
            }
            Verdict::GiveUp(GiveUp::DeadlineTooSoon { earliest }) => {
                error = error.with_retry_after(Some(earliest.saturating_since(now)));
            }
            Verdict::GiveUp(GiveUp::BudgetExhausted) => {
                error = error.with_note("; not tried again, since retries have used up their budget");
            }
            Verdict::RetryAt { .. } | Verdict::GiveUp(_) | Verdict::Done => {}
        }
        if kind.meaning().fallback { Then::Next(error) } else { Then::Stop(error) }
    }

    /// Sleeps until the next attempt at the same target.
    async fn back_off(&self, target: &Target, call: &Call, until: Timestamp, delay: Duration) {
        telemetry::backing_off(delay, call.attempts);
        let attempt = call.attempts;
        let at = self.client.clock.now().saturating_since(Timestamp::ZERO);
        target.member.scope.publish(|| ClientEvent::Retrying {
            provider: target.member.name.to_string(),
            model: target.model.clone(),
            attempt,
            delay,
            at,
        });
        tokio::time::sleep_until(self.client.clock.instant(until)).await;
    }

    fn note_failover(&self, from: &Target, to: &Target, why: &Error) {
        Counters::add(&from.member.scope.counters.failed_over);
        telemetry::failed_over(&from.member.name, &to.member.name, &to.model, why);
        let at = self.client.clock.now().saturating_since(Timestamp::ZERO);
        from.member.scope.publish(|| ClientEvent::FailedOver {
            from: from.member.name.to_string(),
            to: to.member.name.to_string(),
            at,
        });
    }
}

/// An answer that says: not as a stream. It objects to the field that only we have set.
fn refuses_to_stream(said: &ProviderError) -> bool {
    said.failure.kind == FailureKind::Invalid && said.param.as_deref() == Some("stream")
}
