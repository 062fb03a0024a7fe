//! The product: the same [`Pipeline`] the client runs, driven as the client's loop drives it.
//!
//! Admit, wait for the turn, send, heed the headers, report the first content and the end, sleep, try again: each step
//! stands in `omega-client` too, with sockets and timers where the virtual world is here. What differs is said in
//! `docs/simulator.md`. A fleet is several pipelines and the account they borrow from (`leases.rs`), or one that stands for
//! a store which hands out leases without delay.

use std::collections::HashMap;
use std::time::Duration;

use omega_policy::{
    Admission, Call, Chance, Demand, Event, Failure, FailureKind, FirstTokens, HintedQuota, LeaseConfig,
    LimiterConfig, ModelId, ModelLimits, Outcome, Permit, Pipeline, PipelineConfig, QuotaHint, Spent,
    TenantId, Ticket, Timestamp, TokenLimits, Usage, Verdict,
};

use crate::engine::{Answer, Client, Patience, World};
use crate::fleet::{Fleet, Shares, Store};
use crate::leases::{Errand, LeaseStore};
use crate::measure::Circuit;
use crate::upstream::{Headers, Provider};

/// How the product is set up for a run.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// For the whole quota; a fleet's shares are cut from it.
    pub(crate) pipeline: PipelineConfig,
    /// Limits of single models, by their index in the trace.
    pub(crate) models: Vec<(u32, ModelLimits)>,
    /// A first admission is waited for this long.
    pub(crate) max_wait: u64,
    /// A call may take this long in all.
    pub(crate) timeout: u64,
    /// Silence tolerated before the first byte.
    pub(crate) first_byte: u64,
    /// Learn a shorter silence from what the model lately did.
    pub(crate) learned_clock: bool,
    pub(crate) fleet: Fleet,
    /// Are tenants told apart?
    pub(crate) fair: bool,
}

/// A pipeline and who waits in it.
#[derive(Debug)]
struct Member {
    pipeline: Pipeline,
    waiting: HashMap<Ticket, u32>,
    /// The earliest wake-up already asked for.
    wake_at: Option<u64>,
    /// How long first tokens took, by model.
    first_tokens: Vec<FirstTokens>,
    /// Its question to the store that is under way.
    errand: Option<Errand>,
}

impl Member {
    fn first_tokens_of(&mut self, model: ModelId) -> &mut FirstTokens {
        let index = model.0 as usize;
        if self.first_tokens.len() <= index {
            self.first_tokens.resize_with(index + 1, FirstTokens::default);
        }
        &mut self.first_tokens[index]
    }
}

/// A request inside the layers.
#[derive(Debug)]
struct Active {
    call: Call,
    /// While it is under way.
    permit: Option<Permit>,
    /// Whose permit, or whose queue.
    member: usize,
    ticket: Option<Ticket>,
}

/// What a wake-up is for, in the lowest bits of its token.
const KINDS: u32 = 3;
const PUMP: u64 = 0;
const RETRY: u64 = 1;
const STORE_DOWN: u64 = 2;
const STORE_BACK: u64 = 3;
const ERRAND: u64 = 4;

/// OMEGA as a client of the simulated world.
#[derive(Debug)]
pub(crate) struct Product {
    setup: Setup,
    members: Vec<Member>,
    /// The pipeline of each client of the fleet, as an index into `members`.
    route: Vec<usize>,
    shares: Shares,
    /// Requests under way: where in `slots` each is. `u32::MAX`: nowhere.
    places: Vec<u32>,
    slots: Vec<Option<Active>>,
    vacant: Vec<u32>,
    started: bool,
    /// Where a fleet meets that shares by leases.
    store: LeaseStore,
}

const NOWHERE: u32 = u32::MAX;

impl Product {
    pub(crate) fn new(setup: Setup, requests: usize, seed: u64) -> Self {
        let fleet = setup.fleet;
        let clients = fleet.clients.max(1) as usize;
        let mut product = Self {
            shares: Shares::new(fleet, seed),
            members: Vec::new(),
            route: Vec::new(),
            places: vec![NOWHERE; requests],
            slots: Vec::new(),
            vacant: Vec::new(),
            started: false,
            store: LeaseStore::new(fleet.store_delay, fleet.store_down),
            setup,
        };
        match fleet.store {
            Store::Leases if clients > 1 => {
                product.route = (0..clients).map(|_| product.add_member(1.0, 0)).collect();
                for member in &mut product.members {
                    member.pipeline.share(LeaseConfig::default(), Timestamp::ZERO);
                }
            }
            Store::Leases | Store::Shared => {
                product.add_member(1.0, 0);
                product.route = vec![0; clients];
            }
            Store::Static | Store::None => {
                let share = if fleet.store == Store::Static { 1.0 / clients as f64 } else { 1.0 };
                product.route = (0..clients).map(|_| product.add_member(share, 0)).collect();
            }
        }
        product
    }

    /// A pipeline over a share of the quota.
    fn add_member(&mut self, share: f64, now: u64) -> usize {
        let now = Timestamp::from_nanos(now);
        let mut config = self.setup.pipeline.clone();
        config.limiter = share_of(&config.limiter, share);
        let mut pipeline = Pipeline::new(config, now);
        for (model, limits) in &self.setup.models {
            pipeline.limit_model(ModelId(model + 1), limits.clone(), now);
        }
        self.members.push(Member {
            pipeline,
            waiting: HashMap::new(),
            wake_at: None,
            first_tokens: Vec::new(),
            errand: None,
        });
        self.members.len() - 1
    }

    /// Asks the request's pipeline to let it go.
    fn enter(&mut self, number: u32, world: &mut World<'_>) {
        let place = self.places[number as usize] as usize;
        let Some(active) = &mut self.slots[place] else { return };
        let index = self.route[self.shares.client(number)];
        active.member = index;
        let member = &mut self.members[index];
        match member.pipeline.admit(&active.call, Timestamp::from_nanos(world.now())) {
            Admission::Granted(permit) => {
                active.permit = Some(permit);
                self.send(number, world);
            }
            Admission::Queued(ticket) => {
                active.ticket = Some(ticket);
                member.waiting.insert(ticket, number);
            }
            Admission::Rejected(_) => self.turned_away(number, world),
        }
        self.pump(index, world);
    }

    fn send(&mut self, number: u32, world: &mut World<'_>) {
        let place = self.places[number as usize] as usize;
        let Some(active) = &self.slots[place] else { return };
        let (deadline, model, index) = (active.call.deadline.as_nanos(), active.call.model, active.member);
        self.shares.sent(number, world.now());
        let mut silence = self.setup.first_byte;
        if self.setup.learned_clock {
            let patience = self.members[index].first_tokens_of(model).patience(false);
            silence = silence.min(patience.as_nanos() as u64);
        }
        let first_byte = world.now() + silence;
        world.send(number, Patience { first_byte, end: deadline });
    }

    /// Not let go: with the tries it had, that is its end.
    fn turned_away(&mut self, number: u32, world: &mut World<'_>) {
        world.refuse(number);
        self.vacate(number);
    }

    fn vacate(&mut self, number: u32) {
        let place = std::mem::replace(&mut self.places[number as usize], NOWHERE);
        self.slots[place as usize] = None;
        self.vacant.push(place);
    }

    /// Carries out what a pipeline has decided, and asks to be woken for what it will decide next.
    fn pump(&mut self, index: usize, world: &mut World<'_>) {
        let now = Timestamp::from_nanos(world.now());
        while let Some((ticket, served)) = self.members[index].pipeline.poll_granted(now) {
            let Some(number) = self.members[index].waiting.remove(&ticket) else { continue };
            let place = self.places[number as usize] as usize;
            let Some(active) = &mut self.slots[place] else { continue };
            active.ticket = None;
            match served {
                Ok(permit) => {
                    active.permit = Some(permit);
                    self.send(number, world);
                }
                Err(_) => self.turned_away(number, world),
            }
        }
        let member = &mut self.members[index];
        while let Some(event) = member.pipeline.poll_event() {
            let (state, at) = match event {
                Event::Opened { at, .. } => (Circuit::Open, at),
                Event::HalfOpened { at, .. } => (Circuit::HalfOpen, at),
                Event::Closed { at, .. } => (Circuit::Closed, at),
                _ => continue,
            };
            world.recorder.circuit(state, at.as_nanos());
        }
        if member.errand.is_none()
            && let Some(request) = member.pipeline.poll_lease(now)
        {
            let (errand, at) = self.store.ask(index as u32, request, world.now());
            member.errand = Some(errand);
            world.wake(at, ((index as u64) << KINDS) | ERRAND);
        }
        // When everything is over, nobody needs to be heard of any more.
        let is_over = self.vacant.len() == self.slots.len() && world.is_last_arrival_past();
        let asked = match member.errand {
            None if !is_over => member.pipeline.next_lease(now),
            _ => None,
        };
        let soonest = [member.pipeline.next_timeout(), asked].into_iter().flatten().min();
        if let Some(at) = soonest {
            let at = at.as_nanos().max(world.now() + 1);
            if member.wake_at.is_none_or(|asked| at < asked) {
                member.wake_at = Some(at);
                world.wake(at, ((index as u64) << KINDS) | PUMP);
            }
        }
    }

    /// The answer to its question has reached the client, or its absence is noticed.
    fn errand(&mut self, index: usize, world: &mut World<'_>) {
        let now = Timestamp::from_nanos(world.now());
        let member = &mut self.members[index];
        let Some((request, grant)) = member.errand.take() else { return };
        match grant {
            Some(grant) => member.pipeline.handle_lease(&request, &grant, now),
            None => member.pipeline.lose_lease(&request, now),
        }
        self.pump(index, world);
    }

    /// The store is gone: every client goes on with its last share of the quota, and of what was left of it.
    fn store_down(&mut self, world: &mut World<'_>) {
        let whole = self.route[0];
        let shares = self.shares.last(world.now());
        let members =
            shares.into_iter().map(|share| self.add_heir(whole, share, (share * 1e3) as u32, world.now()));
        self.route = members.collect();
        self.move_waiters(world);
    }

    /// It is back, and does not believe its bucket full: nobody knows what the others have just spent.
    fn store_back(&mut self, world: &mut World<'_>) {
        let shared = self.add_heir(0, 1.0, 0, world.now());
        self.route = vec![shared; self.route.len()];
        self.move_waiters(world);
    }

    /// A pipeline over a share, that begins with a part of what another has.
    fn add_heir(&mut self, whole: usize, share: f64, thousandths: u32, now: u64) -> usize {
        let index = self.add_member(share, now);
        let (known, new) = self.members.split_at_mut(index);
        new[0].pipeline.inherit(&mut known[whole].pipeline, thousandths, Timestamp::from_nanos(now));
        index
    }

    /// Whoever waits goes on waiting, in the order of arrival, where its client now asks.
    fn move_waiters(&mut self, world: &mut World<'_>) {
        let now = Timestamp::from_nanos(world.now());
        let mut moved: Vec<u32> = Vec::new();
        for member in &mut self.members {
            for (ticket, number) in member.waiting.drain() {
                member.pipeline.leave(ticket, now);
                moved.push(number);
            }
        }
        moved.sort_unstable();
        for number in moved {
            self.enter(number, world);
        }
    }

    fn call(&self, model: ModelId, demand: Demand, now: Timestamp) -> Call {
        let deadline = now + Duration::from_nanos(self.setup.timeout);
        let by = now + Duration::from_nanos(self.setup.max_wait);
        Call { admit_by: by, retry_by: by, ..Call::new(model, demand, deadline, now) }
    }

    fn heed(&mut self, number: u32, headers: Option<Headers>, world: &World<'_>) {
        let Some(headers) = headers else { return };
        let hint = hint(headers, &world.setting().provider);
        let place = self.places[number as usize] as usize;
        let Some(active) = &self.slots[place] else { return };
        let now = Timestamp::from_nanos(world.now());
        if let Some(permit) = &active.permit {
            self.members[active.member].pipeline.handle_hint(permit, &hint, now);
        }
    }

    fn start(&mut self, world: &mut World<'_>) {
        self.started = true;
        if let (Store::Shared, Some(window)) = (self.setup.fleet.store, self.setup.fleet.store_down) {
            world.wake(window.start, STORE_DOWN);
            world.wake(window.end, STORE_BACK);
        }
    }
}

impl Client for Product {
    const HEARS_FIRST_BYTES: bool = true;

    fn arrive(&mut self, number: u32, world: &mut World<'_>) {
        if !self.started {
            self.start(world);
        }
        let request = world.request(number);
        let demand = Demand {
            input_tokens: u64::from(request.input_tokens),
            max_output_tokens: Some(u64::from(world.setting().max_tokens)),
        };
        let now = Timestamp::from_nanos(world.now());
        let call = Call {
            tenant: if self.setup.fair { TenantId(request.tenant + 1) } else { TenantId::NONE },
            ..self.call(ModelId(request.model + 1), demand, now)
        };
        let active = Active { call, permit: None, member: 0, ticket: None };
        let place = match self.vacant.pop() {
            Some(place) => {
                self.slots[place as usize] = Some(active);
                place
            }
            None => {
                self.slots.push(Some(active));
                (self.slots.len() - 1) as u32
            }
        };
        self.places[number as usize] = place;
        self.enter(number, world);
    }

    fn wake(&mut self, token: u64, world: &mut World<'_>) {
        match token & ((1 << KINDS) - 1) {
            RETRY => self.enter((token >> KINDS) as u32, world),
            ERRAND => self.errand((token >> KINDS) as usize, world),
            STORE_DOWN => self.store_down(world),
            STORE_BACK => self.store_back(world),
            _ => {
                let index = (token >> KINDS) as usize;
                if self.members[index].wake_at.is_some_and(|at| at <= world.now()) {
                    self.members[index].wake_at = None;
                    self.pump(index, world);
                }
            }
        }
    }

    fn first_byte(&mut self, number: u32, headers: Option<Headers>, world: &mut World<'_>) {
        self.heed(number, headers, world);
        let place = self.places[number as usize] as usize;
        let Some(active) = &mut self.slots[place] else { return };
        let (index, model) = (active.member, active.call.model);
        if let Some(permit) = &mut active.permit {
            self.members[index].pipeline.first_token(permit, Timestamp::from_nanos(world.now()));
        }
        let waited = world.now() - world.recorder.records[number as usize].sent_at;
        self.members[index].first_tokens_of(model).record(false, Duration::from_nanos(waited));
        self.pump(index, world);
    }

    fn answer(&mut self, number: u32, answer: Answer, world: &mut World<'_>) {
        if let Answer::Throttled { headers, .. } = answer {
            self.heed(number, headers, world);
        }
        let now = Timestamp::from_nanos(world.now());
        let place = self.places[number as usize] as usize;
        let Some(active) = &mut self.slots[place] else { return };
        let Some(permit) = active.permit.take() else { return };
        let index = active.member;
        let pipeline = &mut self.members[index].pipeline;
        let Some(outcome) = outcome(answer, number, world) else {
            pipeline.cancel(permit, Spent::Sent { seen: None }, now);
            world.fail(number);
            self.vacate(number);
            return self.pump(index, world);
        };
        let chance = Chance::from_bits(world.backoff_chance(number).u64(..));
        match pipeline.complete(&mut active.call, permit, &outcome, now, chance) {
            Verdict::Done => {
                world.succeed(number);
                self.vacate(number);
            }
            Verdict::RetryAt { at, .. } => world.wake(at.as_nanos(), (u64::from(number) << KINDS) | RETRY),
            Verdict::GiveUp(_) => {
                world.fail(number);
                self.vacate(number);
            }
        }
        self.pump(index, world);
    }
}

/// What the policies are told of an answer; `None`: the caller itself stopped.
fn outcome(answer: Answer, number: u32, world: &World<'_>) -> Option<Outcome> {
    let failure = match answer {
        Answer::Success => {
            let request = world.request(number);
            let usage = Usage {
                input_tokens: u64::from(request.input_tokens),
                cached_input_tokens: 0,
                output_tokens: u64::from(world.setting().output(&request)),
            };
            return Some(Outcome::Success { usage: Some(usage) });
        }
        Answer::Throttled { retry_after, exhausted, .. } => Failure {
            exhausted,
            ..Failure::new(FailureKind::Throttled)
                .with_retry_after(Duration::from_secs(u64::from(retry_after)))
        },
        Answer::ServerError => Failure::new(FailureKind::Server),
        Answer::Overloaded => Failure::new(FailureKind::Overloaded),
        Answer::Silence => Failure::new(FailureKind::Timeout),
        Answer::OutOfTime => return None,
    };
    Some(Outcome::Failure(failure))
}

/// The headers as the client reads them: the provider's own limits, which need not be those that are configured.
fn hint(headers: Headers, provider: &Provider) -> QuotaHint {
    let dimension = |limit: u64, remaining: u64| {
        let full = limit as f64 * provider.burst_seconds / 60.0;
        let missing = (full - remaining as f64).max(0.0);
        let reset = Duration::from_secs_f64(missing * 60.0 / limit.max(1) as f64);
        HintedQuota { limit: Some(limit), remaining: Some(remaining), reset: Some(reset) }
    };
    QuotaHint {
        requests: Some(dimension(provider.requests_per_minute, headers.requests)),
        tokens: Some(dimension(provider.tokens_per_minute, headers.tokens)),
        ..QuotaHint::default()
    }
}

/// A share of every limit per minute; at least one request and one token.
fn share_of(limiter: &LimiterConfig, share: f64) -> LimiterConfig {
    let cut = |limit: Option<u64>| limit.map(|limit| ((limit as f64 * share).floor() as u64).max(1));
    let tokens = match limiter.tokens {
        TokenLimits::Total(limit) => TokenLimits::Total(cut(limit)),
        TokenLimits::Split { input, output } => TokenLimits::Split { input: cut(input), output: cut(output) },
    };
    let shares = (1.0 / share).ceil() as u32;
    LimiterConfig { requests_per_minute: cut(limiter.requests_per_minute), tokens, shares, ..limiter.clone() }
}
