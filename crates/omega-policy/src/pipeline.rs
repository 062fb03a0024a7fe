//! The layers together, for one credential of one provider.
//!
//! *Ask all layers, then take from all* in one step: the specification's order (limiter, then breaker, then call) is
//! kept, and a call that the breaker refuses has spent no quota. The caller owns the loop: it feeds arrivals
//! ([`Pipeline::admit`], [`Pipeline::complete`], [`Pipeline::cancel`], `handle_*`) and carries out departures
//! ([`Pipeline::poll_granted`], [`Pipeline::poll_event`], [`Pipeline::next_timeout`]).
//!
//! What happens to waiters when the circuit opens is a choice, and the same for newcomers. As the specification has it,
//! **all of them are refused at once** and told when to come back. With [`BreakerConfig::queue_when_open`] those who have
//! no other target and whose time reaches beyond the open period wait it out in their places: after an outage they are
//! served first, where a caller that was refused would have to know when to ask again. A caller with another target
//! would rather go there than stand in a queue that cannot move. In a half-open circuit waiters stay either way and take
//! probe slots as these are freed.

use std::time::Duration;

use crate::breaker::{Breakers, Gate, Signal};
use crate::event::Events;
use crate::lease::Borrower;
use crate::limiter::{Load, RateLimiter};
use crate::queue::{Queue, Rank, Waiter};
use crate::retry::{self, RetryBudget, Situation};
use crate::{
    BreakerConfig, BreakerMode, BreakerStats, Chance, Closed, Dimension, Event, Failure, FailureKind,
    HINT_MAX, LeaseStats, LimiterConfig, LimiterStats, Outcome, QuotaHint, RetryConfig, RetryStats, Scope,
    Timestamp,
};

pub use call::{
    Admission, Call, Demand, GiveUp, ModelId, Permit, Priority, Rejection, Spent, TenantId, Ticket, Verdict,
};

mod call;
mod lease;
mod reconfigure;
mod waiting;

/// Everything a pipeline is built from.
#[derive(Clone, Debug, Default)]
pub struct PipelineConfig {
    /// The circuit breaker; see [`BreakerScope`](crate::BreakerScope) for one per model.
    pub breaker: BreakerConfig,
    /// The limits of the provider and of single models.
    pub limiter: LimiterConfig,
    /// Attempts, backoff and retry budget.
    pub retry: RetryConfig,
}

/// A snapshot for people. Breaker and limiter carry the specification's keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Stats {
    /// The circuit breaker (the provider's own; with scope `model`, the worst of its models).
    pub breaker: BreakerStats,
    /// The limiter.
    pub limiter: LimiterStats,
    /// Retries and their budget.
    pub retry: RetryStats,
    /// How it stands with other processes that share the quota; `None`: there are none.
    pub lease: Option<LeaseStats>,
}

/// The layers of one credential of one provider.
#[derive(Debug)]
pub struct Pipeline {
    retry: RetryConfig,
    budget: RetryBudget,
    breakers: Breakers,
    limiter: RateLimiter,
    queue: Queue,
    events: Events,
    /// The latest moment seen: time never runs backwards in here.
    clock: Timestamp,
    /// Is an episode of limiting going on?
    limited: bool,
    /// What it shares with other processes.
    lease: Option<Box<Borrower>>,
}

impl Pipeline {
    /// A pipeline with full buckets and a closed circuit.
    pub fn new(config: PipelineConfig, now: Timestamp) -> Self {
        let PipelineConfig { breaker, limiter, retry } = config;
        Self {
            budget: RetryBudget::new(retry.budget.clone(), now),
            retry,
            breakers: Breakers::new(breaker, now),
            queue: Queue::new(limiter.aging, limiter.lead()),
            limiter: RateLimiter::new(limiter, now),
            events: Events::default(),
            clock: now,
            limited: false,
            lease: None,
        }
    }

    /// Gives `model` limits of its own (`rate_limiting.<provider>.models.<model>`), inside the provider's.
    pub fn limit_model(&mut self, model: ModelId, limits: crate::ModelLimits, now: Timestamp) {
        let now = self.tick(now);
        let slot = self.limiter.slot(model);
        self.limiter.limit_model(slot, &limits, now);
        self.lease_buckets(now);
    }

    /// Starts with the part `thousandths / 1000` of the quota that `whole` has now, debts included: for a process that goes
    /// on with a share of what it shared before. 0: with empty buckets.
    pub fn inherit(&mut self, whole: &mut Self, thousandths: u32, now: Timestamp) {
        let now = self.tick(now);
        self.limiter.inherit(&mut whole.limiter, thousandths.min(1_000), now);
    }

    /// Gives `tenant` this part of what there is to share, relative to the others'. Each has 1 until said otherwise; 0 is
    /// read as 1.
    pub fn weigh_tenant(&mut self, tenant: TenantId, weight: u32) {
        self.queue.set_weight(tenant, weight);
    }

    /// Asks every layer, then takes from all of them or from none.
    ///
    /// An open circuit and a spent model are noticed before a place in the queue is taken. A call that could be served
    /// only after its time is refused at once, with the moment at which it could be.
    pub fn admit(&mut self, call: &Call, now: Timestamp) -> Admission {
        let now = self.tick(now);
        let slot = self.limiter.slot(call.model);
        if let Some(until) = self.limiter.blocked_until(slot, now) {
            self.limiter.refused_total += 1;
            return Admission::Rejected(Rejection::ModelBlocked { until });
        }
        let knocks = self.knocks(slot, now);
        let shut_until = match self.breakers.of(slot).turns_away(now, &mut self.events) {
            None => None,
            Some(_) if knocks => None,
            Some(retry_at) if self.waits_out(call, slot, retry_at, now) => Some(retry_at),
            Some(retry_at) => {
                self.breakers.of(slot).count_refused(1);
                return Admission::Rejected(Rejection::CircuitOpen { retry_at });
            }
        };
        let load = self.limiter.estimate(slot, call.demand);
        if let Some((dimension, limit, requested)) = self.limiter.exceeded(slot, load.reserve) {
            self.limiter.refused_total += 1;
            return Admission::Rejected(Rejection::ExceedsCapacity { dimension, limit, requested });
        }
        if call.deadline <= now {
            self.limiter.refused_total += 1;
            return Admission::Rejected(Rejection::DeadlineTooSoon {
                earliest: now,
                dimension: Dimension::Requests,
            });
        }
        let asks_first = self.asks_first(now);
        self.note_busy(now);
        if shut_until.is_none()
            && !knocks
            && !asks_first
            && !self.must_wait(call, slot, now)
            && self.limiter.model_fits(slot, load.reserve, now)
            && self.limiter.provider_fits(load.reserve, now)
        {
            if self.limited && self.queue.is_empty() {
                self.limited = false;
                self.events.push(Event::LimitCleared { at: now });
            }
            let service = self.limiter.service(load);
            let first_try = call.attempts == 0;
            return Admission::Granted(self.grant(
                call.model,
                slot,
                load,
                call.tenant,
                service,
                first_try,
                now,
            ));
        }
        self.enqueue(call, slot, load, shut_until.unwrap_or(Timestamp::ZERO), now)
    }

    /// Would it rather wait until the circuit lets calls through again than be turned away?
    fn waits_out(&self, call: &Call, slot: usize, retry_at: Timestamp, now: Timestamp) -> bool {
        self.breakers.queues_when_open()
            && !call.alternative
            && retry_at <= call.waits_until()
            && self.breakers.look(slot, now) != Gate::Pass
    }

    /// The attempt ended: settles the reservation, tells the breaker, and says what to do next.
    ///
    /// Whether a stream that broke after its first token may be sent again depends on what its reader has seen, which
    /// only the caller knows: the verdict says what the failure itself allows.
    pub fn complete(
        &mut self,
        call: &mut Call,
        permit: Permit,
        outcome: &Outcome,
        now: Timestamp,
        chance: Chance,
    ) -> Verdict {
        let now = self.tick(now);
        call.attempts = call.attempts.saturating_add(1);
        let Permit { model, slot, tenant, counted, breaker, reservation, .. } = permit;
        let (waited, sent) = (reservation.age(now), reservation.granted());
        let failure = match outcome {
            Outcome::Success { usage } => {
                let promised = call.demand.max_output_tokens.is_some();
                let cost = reservation.cost();
                let charged = self.limiter.settle(slot, reservation, *usage, promised, now);
                self.limiter.answered(cost);
                if !breaker.was_timed() {
                    self.limiter.begun(sent, now);
                }
                self.correct(tenant, counted, charged);
                self.breakers.of(slot).settle(
                    breaker,
                    Signal::Success,
                    waited,
                    now,
                    chance,
                    &mut self.events,
                );
                return Verdict::Done;
            }
            Outcome::Failure(failure) => failure,
        };
        if failure.kind == FailureKind::Throttled && failure.scope == Scope::Provider {
            self.limiter.surprised(&reservation, failure.exhausted, now);
        }
        if failure.kind == FailureKind::Throttled && self.lease.is_some() {
            let pool = (failure.scope != Scope::Provider).then_some(model);
            self.charge_outsiders(pool, reservation.load(), failure.exhausted);
        }
        let charged = self.limiter.settle_failed(slot, reservation, failure, now);
        self.correct(tenant, counted, charged);
        let hint = hinted(failure);
        self.heed(slot, model, failure, hint, sent, now);
        let signal = self.signal(failure);
        let waits_out = self.breakers.queues_when_open() && !call.alternative;
        let circuit = self.breakers.of(slot);
        circuit.settle(breaker, signal, waited, now, chance, &mut self.events);
        let situation = Situation {
            attempts: call.attempts,
            deadline: call.deadline.min(call.retry_by),
            alternative: call.alternative,
            failover_wait: call.failover_wait,
            hint: hint.unwrap_or_default(),
            paused_until: self.limiter.paused_until(slot),
            last_delay: call.last_delay,
            circuit_open: match circuit.look(now) {
                Gate::Shut(_) if !waits_out => true,
                Gate::Shut(retry_at) => retry_at >= call.deadline.min(call.retry_by),
                _ => false,
            },
        };
        let verdict = retry::decide(&self.retry, &mut self.budget, failure, &situation, now, chance);
        if let Verdict::RetryAt { delay, .. } = verdict {
            call.last_delay = delay;
        }
        verdict
    }

    /// A stream's first content arrived: settles a probe as a success, but not a closed circuit's failure count
    /// (that waits for the terminator), and keeps the reservation.
    pub fn first_token(&mut self, permit: &mut Permit, now: Timestamp) {
        let now = self.tick(now);
        let waited = permit.reservation.age(now);
        if !permit.breaker.was_timed() {
            self.limiter.begun(permit.reservation.granted(), now);
        }
        self.breakers.of(permit.slot).first_token(&mut permit.breaker, waited, now, &mut self.events);
    }

    /// The caller went away: no verdict, everything returned.
    pub fn cancel(&mut self, permit: Permit, spent: Spent, now: Timestamp) {
        let now = self.tick(now);
        let Permit { slot, tenant, counted, first_try, breaker, reservation, .. } = permit;
        match spent {
            Spent::Nothing => {
                self.limiter.put_back(slot, reservation, now);
                self.correct(tenant, counted, 0);
                self.budget.unsent(first_try, now);
            }
            Spent::Sent { seen } => {
                let charged = self.limiter.settle_abandoned(slot, reservation, seen, now);
                self.correct(tenant, counted, charged);
            }
        }
        self.breakers.of(slot).release(breaker);
    }

    /// A waiter leaves the queue, or does not want to hear that it was refused. A ticket already answered by
    /// [`Pipeline::poll_granted`] has left: its permit goes back through [`Pipeline::cancel`].
    pub fn leave(&mut self, ticket: Ticket, now: Timestamp) {
        self.tick(now);
        self.queue.leave(ticket);
    }

    /// What the provider's headers said of its quota in the answer to the call of `permit`. Levels may follow; configured
    /// limits are never raised.
    pub fn handle_hint(&mut self, permit: &Permit, hint: &QuotaHint, now: Timestamp) {
        let now = self.tick(now);
        self.limiter.handle_hint(permit.slot, &permit.reservation, hint, now, &mut self.events);
    }

    /// The next waiter whose turn has come, or that is refused after all: its circuit opened, its model's quota is
    /// spent, or its time is up. Call until `None` after every arrival and at [`Pipeline::next_timeout`].
    pub fn poll_granted(&mut self, now: Timestamp) -> Option<(Ticket, Result<Permit, Rejection>)> {
        let now = self.tick(now);
        if self.queue.is_idle() {
            return None;
        }
        self.refuse_shut_lanes(now);
        self.refuse_late(now);
        if let Some((ticket, why)) = self.queue.pop_refused() {
            return Some((ticket, Err(why)));
        }
        if self.is_asking_first() {
            return None;
        }
        let (_, ticket) = self.next_in_turn(now)?;
        let waiter = *self.queue.get(ticket)?;
        if !self.limiter.provider_fits(waiter.load.reserve, now) {
            let (earliest, dimension) = self.limiter.available(waiter.slot, waiter.load.reserve)?;
            let may_come = earliest <= waiter.deadline || self.limiter.expects_returns();
            if may_come || self.knows_nothing() {
                return None;
            }
            // Quota went elsewhere since it joined (a debt, a header, a 429): it is told now and not at its deadline,
            // and those behind it move up.
            self.limiter.refused_total += 1;
            self.queue.remove(ticket);
            return Some((ticket, Err(Rejection::DeadlineTooSoon { earliest, dimension })));
        }
        self.queue.take_turn(ticket, now);
        let Waiter { model, slot, load, tenant, service, first_try, .. } = waiter;
        let permit = self.grant(model, slot, load, tenant, service, first_try, now);
        Some((ticket, Ok(permit)))
    }

    /// The next thing that happened, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// When time alone will next change something for a waiter. `None`: nobody waits, or only for a slot.
    ///
    /// Never a moment at which there is nothing to do: whoever calls [`Pipeline::poll_granted`] then is answered, or
    /// the next answer of this function lies later.
    pub fn next_timeout(&self) -> Option<Timestamp> {
        if self.queue.is_idle() {
            return None;
        }
        if self.queue.has_refused() {
            return Some(self.clock);
        }
        let next = Duration::from_nanos(1);
        let mut earliest = self.queue.next_deadline().map(|(deadline, _)| deadline + next);
        if let Some(at) = self.queue.next_promotion(self.clock) {
            earliest = sooner(earliest, at);
        }
        let mut turn: Option<(Rank, &Waiter)> = None;
        for (rank, _, waiter) in self.queue.heads(self.clock) {
            let model_at = match self.breakers.look(waiter.slot, self.clock) {
                Gate::Shut(until) if self.queue.outlasts(waiter.slot, until) => Some(until),
                Gate::Shut(_) => return Some(self.clock),
                Gate::Wait(deadline) if deadline <= self.clock => return Some(self.clock),
                Gate::Wait(deadline) => Some(deadline),
                Gate::Pass => self.limiter.model_available(waiter.slot, waiter.load.reserve),
            };
            match model_at {
                // Its model lets it go: the first of these is in turn, and only the provider's limits hold it back.
                Some(at) if at <= self.clock => {
                    turn = match turn {
                        Some((first, _)) if first < rank => turn,
                        _ => Some((rank, waiter)),
                    };
                }
                Some(at) => earliest = sooner(earliest, at),
                None => {}
            }
        }
        if let Some((_, waiter)) = turn
            && !self.is_asking_first()
            && let Some((at, _)) = self.limiter.available(waiter.slot, waiter.load.reserve)
        {
            earliest = sooner(earliest, at);
        }
        earliest.map(|at| at.max(self.clock))
    }

    /// The waiter at the head of the queue, who is the one to watch the clock.
    pub fn head(&self) -> Option<Ticket> {
        self.queue.oldest()
    }

    /// Closes the circuit and forgets its failures.
    pub fn reset_circuit(&mut self, now: Timestamp) {
        let now = self.tick(now);
        self.breakers.each().for_each(|circuit| circuit.reset(now, &mut self.events));
    }

    /// The operator's word over the circuit.
    pub fn set_breaker_mode(&mut self, mode: BreakerMode, now: Timestamp) {
        self.tick(now);
        self.breakers.set_mode(mode);
    }

    /// A snapshot for people.
    pub fn stats(&self, now: Timestamp) -> Stats {
        let now = now.max(self.clock);
        let mut limiter = self.limiter.stats(now);
        limiter.queued = self.queue.len() as u64;
        limiter.queued_total = self.queue.total();
        let lease = self.lease_stats();
        Stats { breaker: self.breakers.stats(), limiter, retry: self.budget.stats(now), lease }
    }

    /// The present moment, never before an earlier one.
    ///
    /// The price: after one reading from the far future, time stands still here until the clock has caught up. Such a
    /// reading cannot come from a monotonic clock, and whether a leap forward is a mistake or a suspended machine that
    /// woke up cannot be told from inside; so the caller answers for its clock.
    fn tick(&mut self, now: Timestamp) -> Timestamp {
        self.clock = self.clock.max(now);
        if self.lease.is_some() {
            self.doubt_leases(self.clock);
        }
        self.clock
    }

    /// Takes from every layer what was just found to be free.
    #[expect(clippy::too_many_arguments, reason = "what is known of a call at its grant, from two places")]
    fn grant(
        &mut self,
        model: ModelId,
        slot: usize,
        load: Load,
        tenant: TenantId,
        service: u64,
        first_try: bool,
        now: Timestamp,
    ) -> Permit {
        let reservation = self.limiter.take(slot, load, now);
        let breaker = self.breakers.of(slot).acquire(now, &mut self.events);
        self.budget.sent(first_try, now);
        let counted = self.queue.serve(tenant, service).map(|period| (period, service));
        Permit { model, slot, tenant, counted, first_try, breaker, reservation }
    }

    /// What a call was charged counts between tenants, where its grant did.
    fn correct(&mut self, tenant: TenantId, counted: Option<(u64, u64)>, charged: u64) {
        if let Some((period, service)) = counted {
            self.queue.correct(tenant, period, service, charged);
        }
    }

    /// What a failure means to the limiter beyond its reservation.
    fn heed(
        &mut self,
        slot: usize,
        model: ModelId,
        failure: &Failure,
        hint: Option<Duration>,
        sent: Timestamp,
        now: Timestamp,
    ) {
        match (failure.kind, failure.scope) {
            (FailureKind::Throttled, scope) => {
                let only = matches!(scope, Scope::Model { .. }).then_some(slot);
                self.limiter.throttled(
                    only,
                    failure.exhausted,
                    hint.unwrap_or_default(),
                    now,
                    &mut self.events,
                );
                self.refuse_paused(slot, now);
            }
            (FailureKind::Overloaded, _) => self.limiter.overloaded(sent, now),
            (FailureKind::OutOfQuota, Scope::Model { resets_in }) => {
                self.limiter.block_model(slot, model, resets_in, now, &mut self.events);
            }
            _ => {}
        }
    }

    /// What a failure means to the breaker.
    fn signal(&self, failure: &Failure) -> Signal {
        let whole = failure.scope == Scope::Provider || self.breakers.is_per_model();
        match failure.kind.meaning().closed {
            Closed::Ignored if failure.kind == FailureKind::Throttled => Signal::Throttled,
            Closed::Ignored => Signal::Neutral,
            // A spent quota of one model blocks that model already; other failures of one model are its own circuit's.
            Closed::Counts
                if !whole
                    || (failure.scope != Scope::Provider && failure.kind == FailureKind::OutOfQuota) =>
            {
                Signal::Neutral
            }
            Closed::Counts if failure.kind == FailureKind::Overloaded => {
                Signal::Overloaded { hint: failure.retry_after }
            }
            Closed::Counts => Signal::Failure { hint: failure.retry_after },
        }
    }
}

/// How long the provider asked to be left alone, capped. A throttled model's reset is such a wish too.
fn hinted(failure: &Failure) -> Option<Duration> {
    let reset = match failure.scope {
        Scope::Model { resets_in } if failure.kind == FailureKind::Throttled => resets_in,
        _ => None,
    };
    failure.retry_after.max(reset).map(|hint| hint.min(HINT_MAX))
}

fn sooner(a: Option<Timestamp>, b: Timestamp) -> Option<Timestamp> {
    Some(a.map_or(b, |a| a.min(b)))
}
