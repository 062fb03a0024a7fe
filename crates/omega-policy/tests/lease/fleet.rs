//! A fleet in virtual time: pipelines, a store that can fail in every way, and a provider that counts to the token.

use std::collections::BTreeMap;
use std::time::Duration;

use omega_policy::*;

/// One step of time.
pub const STEP: u64 = 1_000_000;

/// The provider's own bucket: what was let go and does not fit it is over the limit.
#[derive(Debug)]
pub struct Provider {
    pub per_minute: f64,
    pub depth: f64,
    level: f64,
    as_of: f64,
    /// The deepest that the bucket was overdrawn, in tokens.
    pub overdrawn: f64,
    pub admitted: f64,
}

impl Provider {
    pub fn new(per_minute: f64, depth: f64) -> Self {
        Self { per_minute, depth, level: depth, as_of: 0.0, overdrawn: 0.0, admitted: 0.0 }
    }

    pub fn charge(&mut self, tokens: f64, now: f64) {
        self.level = (self.level + (now - self.as_of) * self.per_minute / 60.0).min(self.depth) - tokens;
        self.as_of = now;
        self.admitted += tokens;
        self.overdrawn = self.overdrawn.max(-self.level);
    }
}

/// What becomes of an exchange.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Link {
    Up,
    /// Nothing reaches the store.
    Cut,
    /// The store hears, and its answers are lost.
    Deaf,
}

pub struct Member {
    pub pipeline: Pipeline,
    pub name: String,
    pub link: Link,
    pub alive: bool,
    pub waiting: BTreeMap<Ticket, u64>,
    running: Vec<(u64, Call, Permit)>,
    /// An exchange under way: what was asked, what was answered, and when that arrives.
    pending: Option<(LeaseRequest, Option<LeaseGrant>, u64)>,
    /// Nothing to do before.
    wake: u64,
    pub let_go: u64,
    pub refused: u64,
    pub exchanges: u64,
}

#[derive(Default)]
pub struct Store {
    pub ledger: Ledger,
    pub holders: BTreeMap<String, Holder>,
}

impl Store {
    pub fn exchange(&mut self, name: &str, ask: &LeaseRequest, now: f64) -> LeaseGrant {
        let name = format!("{name}-{}", ask.life);
        let expired: Vec<String> = self
            .holders
            .iter()
            .filter(|(_, holder)| Ledger::has_expired(holder, now))
            .map(|(name, _)| name.clone())
            .collect();
        for gone in expired {
            let holder = self.holders.remove(&gone).expect("it was there");
            self.ledger.forget(&gone, &holder);
        }
        let ask = ask.clone().named(wire);
        let mut holder = self.holders.remove(&name);
        let grant = self.ledger.exchange(&name, &mut holder, &ask, now);
        if let Some(holder) = holder {
            self.holders.insert(name, holder);
        }
        grant.named(|model| (!model.is_empty()).then(|| ModelId(model.parse().expect("a number"))))
    }
}

fn wire(model: Option<ModelId>) -> String {
    model.map_or(String::new(), |model| model.0.to_string())
}

pub struct Fleet {
    pub now: u64,
    pub members: Vec<Member>,
    pub store: Store,
    pub provider: Provider,
    /// From a question to its answer.
    pub round_trip: u64,
    /// How long a call takes.
    pub hold: u64,
    /// How a call ends.
    pub outcome: fn(u64) -> Outcome,
    pub most_in_flight: u64,
    pub refusals_of_waiting: u64,
    /// How often somebody was told that a limit was hit.
    pub limit_hits: u64,
}

pub fn limits(requests: Option<u64>, tokens: Option<u64>) -> PipelineConfig {
    let limiter = LimiterConfig {
        requests_per_minute: requests,
        tokens: TokenLimits::Total(tokens),
        max_concurrent: None,
        burst: Duration::from_secs(6),
        depth_margin: Duration::ZERO,
        learn_burst: false,
        charge: ChargeRule::Estimate,
        ..LimiterConfig::default()
    };
    PipelineConfig { limiter, ..PipelineConfig::default() }
}

impl Fleet {
    pub fn new(members: usize, config: &PipelineConfig, provider: Provider) -> Self {
        let member = |number: usize| {
            let mut pipeline = Pipeline::new(config.clone(), Timestamp::from_nanos(STEP));
            pipeline.share(LeaseConfig::default(), Timestamp::from_nanos(STEP));
            Member {
                pipeline,
                name: format!("member-{number}"),
                link: Link::Up,
                alive: true,
                waiting: BTreeMap::new(),
                running: Vec::new(),
                pending: None,
                wake: 0,
                let_go: 0,
                refused: 0,
                exchanges: 0,
            }
        };
        Self {
            now: STEP,
            members: (0..members).map(member).collect(),
            store: Store::default(),
            provider,
            round_trip: 2 * STEP,
            hold: 200 * STEP,
            outcome: |_| Outcome::Success { usage: None },
            most_in_flight: 0,
            refusals_of_waiting: 0,
            limit_hits: 0,
        }
    }

    pub fn seconds(&self) -> f64 {
        self.now as f64 / 1e9
    }

    pub fn at(&self) -> Timestamp {
        Timestamp::from_nanos(self.now)
    }

    /// A call of so many tokens arrives at a member, patient for `wait`.
    pub fn arrive(&mut self, member: usize, tokens: u64, wait: Duration) {
        let now = self.at();
        let demand = Demand { input_tokens: tokens, max_output_tokens: Some(0) };
        let call = Call {
            admit_by: now + wait,
            ..Call::new(ModelId(1), demand, now + Duration::from_secs(600), now)
        };
        match self.members[member].pipeline.admit(&call, now) {
            Admission::Granted(permit) => self.go(member, call, permit, tokens),
            Admission::Queued(ticket) => {
                self.members[member].waiting.insert(ticket, tokens);
            }
            Admission::Rejected(_) => self.members[member].refused += 1,
        }
        self.pump(member);
    }

    fn go(&mut self, member: usize, call: Call, permit: Permit, tokens: u64) {
        let now = self.seconds();
        self.provider.charge(tokens as f64, now);
        let until = self.now + self.hold;
        let member = &mut self.members[member];
        member.let_go += 1;
        member.running.push((until, call, permit));
        let flying = self.members.iter().map(|member| member.running.len() as u64).sum();
        self.most_in_flight = self.most_in_flight.max(flying);
    }

    fn pump(&mut self, index: usize) {
        self.carry_out(index);
        let now = self.at();
        let member = &mut self.members[index];
        let asked = [member.pipeline.next_timeout(), member.pipeline.next_lease(now)];
        let asked = asked.into_iter().flatten().map(Timestamp::as_nanos);
        let ends = member.running.iter().map(|(until, _, _)| *until);
        let answer = member.pending.as_ref().map(|(_, _, at)| *at);
        member.wake = asked.chain(ends).chain(answer).min().unwrap_or(u64::MAX);
    }

    fn carry_out(&mut self, index: usize) {
        let now = self.at();
        loop {
            while let Some((ticket, served)) = self.members[index].pipeline.poll_granted(now) {
                let Some(tokens) = self.members[index].waiting.remove(&ticket) else { continue };
                match served {
                    Ok(permit) => {
                        let demand = Demand { input_tokens: tokens, max_output_tokens: Some(0) };
                        let call = Call::new(ModelId(1), demand, now + Duration::from_secs(600), now);
                        self.go(index, call, permit, tokens);
                    }
                    Err(_) => {
                        self.members[index].refused += 1;
                        self.refusals_of_waiting += 1;
                    }
                }
            }
            while let Some(event) = self.members[index].pipeline.poll_event() {
                self.limit_hits += u64::from(matches!(event, Event::LimitHit { .. }));
            }
            let (seconds, round_trip, clock) = (self.seconds(), self.round_trip, self.now);
            let member = &mut self.members[index];
            if member.pending.is_some() {
                return;
            }
            let Some(ask) = member.pipeline.poll_lease(now) else { return };
            member.exchanges += 1;
            let grant = match member.link {
                Link::Up => Some(self.store.exchange(&member.name, &ask, seconds)),
                Link::Cut => None,
                Link::Deaf => {
                    self.store.exchange(&member.name, &ask, seconds);
                    None
                }
            };
            let arrives = clock + if grant.is_some() { round_trip } else { 25 * STEP };
            member.pending = Some((ask, grant, arrives));
            if arrives > clock {
                return;
            }
        }
    }

    /// One step of time.
    pub fn step(&mut self) {
        self.now += STEP;
        let now = self.at();
        for index in 0..self.members.len() {
            if !self.members[index].alive || self.members[index].wake > self.now {
                continue;
            }
            if self.members[index].pending.as_ref().is_some_and(|(_, _, at)| *at <= self.now) {
                let (ask, grant, _) = self.members[index].pending.take().expect("it is there");
                match grant {
                    Some(grant) => self.members[index].pipeline.handle_lease(&ask, &grant, now),
                    None => self.members[index].pipeline.lose_lease(&ask, now),
                }
            }
            let (ended, running) = std::mem::take(&mut self.members[index].running)
                .into_iter()
                .partition(|(until, _, _)| *until <= self.now);
            let ended: Vec<(u64, Call, Permit)> = ended;
            self.members[index].running = running;
            for (until, mut call, permit) in ended {
                let outcome = (self.outcome)(until);
                let _ = self.members[index].pipeline.complete(&mut call, permit, &outcome, now, Chance::HALF);
            }
            self.pump(index);
        }
    }

    pub fn run(&mut self, span: Duration) {
        let until = self.now + span.as_nanos() as u64;
        while self.now < until {
            self.step();
        }
    }

    /// Calls at a steady rate, dealt out in turn, for a while.
    pub fn load(&mut self, per_second: f64, tokens: u64, wait: Duration, span: Duration) {
        let begin = self.now;
        let count = self.members.len();
        let mut sent = 0_u64;
        while self.now < begin + span.as_nanos() as u64 {
            self.step();
            let due = ((self.now - begin) as f64 / 1e9 * per_second) as u64;
            while sent < due {
                // A stride prime to most counts: not the same order every time.
                let member = (sent as usize * 7 + sent as usize / count) % count;
                if self.members[member].alive {
                    self.arrive(member, tokens, wait);
                }
                sent += 1;
            }
        }
    }

    pub fn let_go(&self) -> u64 {
        self.members.iter().map(|member| member.let_go).sum()
    }

    pub fn exchanges(&self) -> u64 {
        self.members.iter().map(|member| member.exchanges).sum()
    }
}
