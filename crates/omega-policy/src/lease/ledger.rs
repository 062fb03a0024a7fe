//! The store's side: the account of one quota, and what an exchange does to it.
//!
//! `omega-client/src/store/lease.lua` is this file for Redis, line by line, and a test compares the two on random
//! exchanges; whatever changes here changes there.

use std::collections::BTreeMap;

use super::{
    BucketAsk, BucketGrant, LEASE_EXPIRY, LeaseGrant, LeaseRequest, Pause, RESTING, SlotAsk, SlotGrant,
};

/// Seconds for which a process is remembered, and for which a store that has lost count grants nothing.
const EXPIRY: f64 = LEASE_EXPIRY.as_millis() as f64 / 1_000.0;

/// A bucket that holds fewer than so many of what is given back.
const FEW: f64 = 4.0;

/// Nobody gets through for so many seconds after a store has granted nothing: then it is still not back. Whoever was told
/// to come back is there within a message.
const AGAIN: f64 = 0.5;

/// A process that is away asks again within so many seconds (`borrower.rs`: a second, and the time it waits for an answer).
const ASKS_WITHIN: f64 = 1.1;

/// How much later than its last request one that rests is taken to have been seen.
const REST: f64 = RESTING.as_secs() as f64 - EXPIRY;

/// A debt is at most so many minutes of a limit: the longest that a provider's hint is believed
/// ([`HINT_MAX`](crate::HINT_MAX)).
const DEBT_MINUTES: f64 = 5.0;

/// So many seconds' worth of quota is in a bucket when a pause ends; as in `limiter.rs`.
const RESUMED: f64 = 2.0;

/// A circuit that closed is remembered for so many seconds: many heartbeats, so that everybody has heard of it.
const CLOSED_KEPT: f64 = 60.0;

mod circuits;

/// The account of one quota. All moments are seconds on the store's clock.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub struct Ledger {
    /// When this memory began, in milliseconds; 0: it is new.
    pub epoch: u64,
    /// The last exchange of a process that was not away.
    pub touched: f64,
    /// Until then nothing is granted.
    pub learning: f64,
    /// Since when.
    pub learns_since: f64,
    /// Has it granted nothing for a while in this epoch? Once is enough for everybody who knew another.
    pub learned: bool,
    /// How often. What was held before is void.
    pub era: u64,
    /// Processes known.
    pub members: u32,
    /// The sum of their weights.
    pub weights: f64,
    /// Circuits have turned so often.
    pub turns: u64,
    /// Limits per minute, by `dimension/model`.
    pub buckets: BTreeMap<String, Bucket>,
    /// Limits of calls in flight, by model; the empty name is the provider.
    pub slots: BTreeMap<String, Slots>,
    /// Until when the provider asked to be left alone, by model.
    pub pauses: BTreeMap<String, Paused>,
    /// By model.
    pub circuits: BTreeMap<String, Circuit>,
}

/// One limit per minute.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub struct Bucket {
    /// What may be granted; below zero: granted ahead.
    pub level: f64,
    /// The moment that is true of.
    pub as_of: f64,
    /// Per minute.
    pub limit: f64,
    /// How much may be spent at once.
    pub depth: f64,
    /// Granted and not used yet.
    pub held: f64,
    /// By so many seconds, in all, debts have put off what is promised.
    pub put_off: f64,
}

/// One limit of calls in flight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Slots {
    /// Handed out.
    pub held: u32,
    /// Wanted by all together.
    pub wanted: u32,
    /// Processes that want any.
    pub wanting: u32,
    /// Who has none and waits, first come first.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "list_or_nothing"))]
    pub line: Vec<String>,
}

/// A pause.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub struct Paused {
    /// Until then.
    pub until: f64,
    /// Is the model's own quota spent?
    pub spent: bool,
}

/// The fleet's circuit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub struct Circuit {
    /// Which turn of [`Ledger::turns`] made it so.
    pub turn: u64,
    /// Open or half-open?
    pub open: bool,
    /// Until when it is not tested; of a closed one, until when it is remembered.
    pub until: f64,
    /// Probes handed out.
    pub probes: u32,
}

/// What the store remembers of one process.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub struct Holder {
    /// The last request answered.
    pub seq: u64,
    /// When; of one that rests, later: until it is forgotten.
    pub seen: f64,
    /// When it was first heard of.
    pub since: f64,
    /// Who it is, for people.
    pub label: String,
    /// What it has lately used.
    pub weight: f64,
    /// In which [era](Ledger::era) what it holds was granted.
    pub era: u64,
    /// What it holds, by `dimension/model`.
    pub buckets: BTreeMap<String, Held>,
    /// Slots it (has, wants), by model.
    pub slots: BTreeMap<String, (u32, u32)>,
    /// Probes it has, and of which turn, by model: (turn, probes).
    pub circuits: BTreeMap<String, (u64, u32)>,
}

/// What a process holds of one limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub struct Held {
    /// Granted and, as far as is known, not used.
    pub held: f64,
    /// Of this, what is promised for later than the process is remembered.
    pub late: f64,
    /// Granted in the last answer.
    pub granted: f64,
    /// What it said then to owe.
    pub owed: f64,
    /// What it said then to have returned.
    pub returned: f64,
}

/// How the account stands with a process whose request it carries out.
#[derive(Clone, Copy, Debug)]
struct Terms {
    /// It has not heard of the last answer.
    unheard: bool,
    /// This memory is older than what the process was told.
    rolled_back: bool,
    /// What it returns is to be credited.
    returns: bool,
}

impl Held {
    /// Nothing is held any more; what was owed has been counted.
    fn void(&mut self) {
        (self.held, self.late, self.granted) = (0.0, 0.0, 0.0);
    }
}

/// The name of a memory that begins now: never 0, and another each time.
fn epoch_at(now: f64) -> u64 {
    (now * 1e3) as u64 + 1
}

fn key(ask: &BucketAsk<String>) -> String {
    format!("{}/{}", ask.dimension.name(), ask.model)
}

/// A script that writes JSON knows no difference between an empty list and an empty map.
#[cfg(feature = "serde")]
fn list_or_nothing<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Either {
        List(Vec<String>),
        Nothing {},
    }
    Ok(match serde::Deserialize::deserialize(deserializer)? {
        Either::List(list) => list,
        Either::Nothing {} => Vec::new(),
    })
}

impl Bucket {
    fn refill(&mut self, now: f64) {
        if now > self.as_of {
            let room = self.depth - self.held - self.level;
            let gained = (now - self.as_of) * self.limit / 60.0;
            self.level += gained.min(room).max(0.0);
            self.as_of = now;
        }
    }

    /// What comes back goes to whoever asks next, while those who were promised something later keep their moments: both
    /// may then go together, and the provider must have had room to gather what both need. One whose bucket holds but a
    /// few calls has not: there it is left to flow by.
    fn give_back(&mut self, amount: f64) {
        if self.level < 0.0 && self.depth < FEW * amount {
            return;
        }
        let room = self.depth - self.held - self.level;
        self.level += amount.min(room).max(0.0);
    }

    fn take(&mut self, amount: f64) {
        self.take_down_to(-DEBT_MINUTES * self.limit, amount);
    }

    /// Takes what was spent beside the account: the provider let it pass, or refused it. So there is nothing left at
    /// worst, which is what others hold already.
    fn take_what_is_left(&mut self, amount: f64) {
        self.take_down_to(-self.held, amount);
    }

    /// What is owed has been spent, before everything that was promised: that comes later by as much. Were only those put
    /// off who ask next, the provider would refuse calls for as long as the line of promises is.
    fn take_down_to(&mut self, floor: f64, amount: f64) {
        let before = self.level;
        self.level = (before - amount).max(floor.min(before));
        if self.limit > 0.0 {
            self.put_off += (before.min(0.0) - self.level).max(0.0) * 60.0 / self.limit;
        }
    }
}

impl Ledger {
    /// The account of a store that has lost its memory and knows it: it grants nothing for a while.
    pub fn after_loss(now: f64) -> Self {
        let mut ledger = Self { epoch: epoch_at(now), ..Self::default() };
        ledger.learn(now);
        ledger
    }

    /// Is it to be forgotten at `now`, in seconds? For stores that look for such processes themselves.
    pub fn has_expired(holder: &Holder, now: f64) -> bool {
        now - holder.seen > EXPIRY
    }

    /// After how many seconds without an exchange nothing in it matters any more.
    pub fn kept_for(&self, now: f64) -> f64 {
        let filled = self.buckets.values().map(|bucket| {
            let missing = bucket.depth - bucket.level;
            if bucket.limit > 0.0 { missing / bucket.limit * 60.0 } else { 0.0 }
        });
        let paused = self.pauses.values().map(|pause| pause.until - now);
        let open = self.circuits.values().map(|circuit| circuit.until - now);
        2.0 * filled.chain(paused).chain(open).fold(RESTING.as_secs() as f64, f64::max)
    }

    /// Forgets a process that left or has expired. What it was promised for later goes back: it cannot have used it.
    pub fn forget(&mut self, name: &str, holder: &Holder) {
        self.members = self.members.saturating_sub(1);
        self.weights = if self.members == 0 { 0.0 } else { (self.weights - holder.weight).max(0.0) };
        for (key, held) in holder.buckets.iter().filter(|_| holder.era == self.era) {
            if let Some(bucket) = self.buckets.get_mut(key) {
                bucket.held = (bucket.held - held.held).max(0.0);
                bucket.give_back(held.late);
            }
        }
        for (model, (held, want)) in &holder.slots {
            if let Some(slots) = self.slots.get_mut(model) {
                slots.held = slots.held.saturating_sub(*held);
                slots.wanted = slots.wanted.saturating_sub(*want);
                slots.wanting = slots.wanting.saturating_sub(u32::from(*want > 0));
                slots.line.retain(|waiting| waiting != name);
            }
        }
        for (model, (turn, probes)) in &holder.circuits {
            if let Some(circuit) = self.circuits.get_mut(model).filter(|circuit| circuit.turn == *turn) {
                circuit.probes = circuit.probes.saturating_sub(*probes);
            }
        }
    }

    /// One exchange. Those who have expired are to be [forgotten](Ledger::forget) first.
    ///
    /// - `name`: of the process, in this life of it.
    /// - `holder`: what is remembered of it. Becomes `None` when it leaves.
    /// - `now`: seconds on the store's clock.
    pub fn exchange(
        &mut self,
        name: &str,
        holder: &mut Option<Holder>,
        ask: &LeaseRequest<String>,
        now: f64,
    ) -> LeaseGrant<String> {
        if self.epoch == 0 {
            self.epoch = epoch_at(now);
            self.touched = now;
        }
        if holder.as_ref().is_some_and(|known| ask.seq <= known.seq) {
            return LeaseGrant { stale: true, ..self.answer(ask, now) };
        }
        // A process that was answered before and is not remembered as far: this memory is an old one.
        let rolled_back = ask.acked > 0
            && match holder {
                Some(known) => known.seq < ask.acked,
                None => !ask.away && now - self.touched > EXPIRY,
            };
        let other_epoch = ask.epoch != 0 && ask.epoch != self.epoch && !self.learned;
        // Nobody gets through: the store was away from everybody, and all spend their shares.
        let nobody_here =
            ask.away && now - self.touched > if self.touched > self.learning { EXPIRY } else { AGAIN };
        if now < self.learning {
            self.wait_for(ask, now);
        } else if rolled_back || other_epoch || nobody_here {
            self.learn(now);
        }
        let is_new = holder.is_none();
        let mut me = holder.take().unwrap_or_else(|| Holder { since: now, ..Holder::default() });
        // What it returns was taken off this account, and has not gone back already.
        let returns = !is_new && me.era == self.era && !rolled_back;
        if is_new || me.era != self.era {
            me.era = self.era;
            me.buckets.values_mut().for_each(Held::void);
        }
        self.members += u32::from(is_new);
        self.weights += ask.weight - me.weight;
        let unheard = me.seq > ask.acked;
        (me.weight, me.seen, me.seq) = (ask.weight, now, ask.seq);
        if me.label != ask.label {
            me.label.clone_from(&ask.label);
        }

        let mut grant = self.answer(ask, now);
        let terms = Terms { unheard, rolled_back, returns };
        for bucket in &ask.buckets {
            grant.buckets.push(self.exchange_bucket(&mut me, bucket, terms, ask, now));
        }
        for slots in &ask.slots {
            grant.slots.push(self.exchange_slots(name, &mut me, slots));
        }
        for pause in &ask.pauses {
            self.heed(pause, now);
        }
        for circuit in &ask.circuits {
            self.exchange_circuit(&mut me, circuit, now);
        }
        self.pauses.retain(|_, pause| pause.until > now);
        self.circuits.retain(|_, circuit| circuit.open || circuit.until > now);
        if !ask.away {
            self.touched = self.touched.max(now);
        }
        if ask.rests {
            me.seen = now + REST;
        }
        if ask.leaves {
            self.forget(name, &me);
        }
        (grant.members, grant.weights) = (self.members, self.weights);
        let pauses = self.pauses.iter().map(|(model, pause)| Pause {
            model: model.clone(),
            seconds: pause.until - now,
            spent: pause.spent,
        });
        grant.pauses = pauses.collect();
        grant.circuits = self.reports(&me, now);
        *holder = (!ask.leaves).then_some(me);
        grant
    }

    /// An answer that grants nothing.
    fn answer(&self, ask: &LeaseRequest<String>, now: f64) -> LeaseGrant<String> {
        LeaseGrant {
            seq: ask.seq,
            at: now,
            epoch: self.epoch,
            learning: (self.learning - now).max(0.0),
            members: self.members,
            weights: self.weights,
            ..LeaseGrant::default()
        }
    }

    /// Nobody knows what was spent: whatever is held is void, nothing is granted for as long as it takes everybody to
    /// come back, and then there is nothing but what flows in.
    fn learn(&mut self, now: f64) {
        self.learned = true;
        self.era += 1;
        self.learns_since = now;
        for bucket in self.buckets.values_mut() {
            (bucket.level, bucket.held) = (0.0, 0.0);
        }
        self.learn_until(now + EXPIRY);
    }

    fn learn_until(&mut self, end: f64) {
        self.learning = end;
        // Whoever comes back when that is over is not alone for having been away.
        self.touched = end;
        self.buckets.values_mut().for_each(|bucket| bucket.as_of = end);
    }

    /// One who is away and has not been told yet spends its share until it asks again: what is granted to others
    /// meanwhile would be spent twice. But not for ever: its answers may never reach it.
    fn wait_for(&mut self, ask: &LeaseRequest<String>, now: f64) {
        let end = (now + ASKS_WITHIN).min(self.learns_since + 2.0 * EXPIRY);
        if ask.away && ask.away_for > now - self.learns_since && end > self.learning {
            self.learn_until(end);
        }
    }

    fn exchange_bucket(
        &mut self,
        me: &mut Holder,
        ask: &BucketAsk<String>,
        terms: Terms,
        request: &LeaseRequest<String>,
        now: f64,
    ) -> BucketGrant {
        let is_learning = now < self.learning;
        let bucket = self.buckets.entry(key(ask)).or_insert_with(|| Bucket {
            // What is new is full, but for a store that knows nothing.
            level: if is_learning { 0.0 } else { ask.depth },
            as_of: now.max(self.learning),
            limit: ask.limit,
            depth: ask.depth,
            held: 0.0,
            put_off: 0.0,
        });
        bucket.refill(now);
        (bucket.limit, bucket.depth) = (ask.limit, ask.depth);
        let mine = me.buckets.entry(key(ask)).or_default();
        // Of the answer to its last request it has not heard: what it was granted goes back, what it told has been counted.
        let (mut owed, mut returned) = (ask.owed.max(0.0), ask.returned);
        if terms.unheard {
            bucket.held = (bucket.held - mine.granted).max(0.0);
            mine.held = (mine.held - mine.granted).max(0.0);
            bucket.give_back(mine.granted);
            (owed, returned) = ((owed - mine.owed).max(0.0), returned - mine.returned);
        }
        // What a process says to hold that this account has never debited is void: it is told so by this answer.
        let (holding, late) = if is_learning { (0.0, 0.0) } else { (ask.holding, ask.late) };
        bucket.held = (bucket.held - mine.held + holding).max(0.0);
        if !is_learning && !terms.rolled_back {
            let returned = if terms.returns { returned } else { 0.0 };
            if request.away {
                // What was used before the account was begun anew is nobody's debt.
                let part = ((now - self.learning) / request.away_for.max(1e-3)).min(1.0);
                bucket.take_what_is_left((owed * part - returned).max(0.0));
                bucket.give_back((returned - owed * part).max(0.0));
            } else {
                bucket.take(owed);
                bucket.give_back(returned.max(0.0));
            }
        }
        if let Some(most) = ask.at_most {
            bucket.level = bucket.level.min(most);
        }
        bucket.level = bucket.level.min((bucket.depth - bucket.held).max(0.0));
        *mine = Held { held: holding, late, granted: 0.0, owed: ask.owed, returned: ask.returned };
        let mut grant =
            BucketGrant { level: bucket.level, put_off: bucket.put_off, ..BucketGrant::default() };
        if ask.want <= 0.0 || is_learning || request.rests || request.leaves || bucket.limit <= 0.0 {
            return grant;
        }
        let pace = bucket.limit / 60.0;
        let ahead = (bucket.as_of - now).max(0.0);
        if ask.least > bucket.depth {
            // What is deeper than the bucket goes when the bucket is full, and those behind it pay.
            let wait = ((bucket.depth - bucket.held - bucket.level) / pace).max(0.0) + ahead;
            if wait > ask.patience {
                return BucketGrant { refused_for: wait, ..grant };
            }
            (grant.amount, grant.starts, grant.whole) = (ask.least, wait, true);
            return Self::debit(bucket, mine, grant, now);
        }
        let amount = if ask.least <= 0.0 {
            // All of it or nothing: crumbs are worth no exchange, and are missed by those who wait.
            if bucket.level < ask.want {
                return grant;
            }
            ask.want
        } else {
            let missing = ask.least - bucket.level;
            let wait = if missing > 0.0 { missing / pace + ahead } else { 0.0 };
            if wait > ask.patience {
                return BucketGrant { refused_for: wait, ..grant };
            }
            // What comes after everybody's time is of no use here.
            let in_time = (bucket.level + (ask.patience - ahead).max(0.0) * pace).floor();
            ask.want.min(in_time).max(ask.least)
        };
        (grant.amount, grant.ready) = (amount, bucket.level.max(0.0).min(amount));
        grant.starts = (-bucket.level / pace).max(0.0) + ahead;
        Self::debit(bucket, mine, grant, now)
    }

    /// Takes a grant off the account.
    fn debit(bucket: &mut Bucket, mine: &mut Held, grant: BucketGrant, now: f64) -> BucketGrant {
        // By the time the process would be forgotten, so much of it will have come.
        let ahead = (bucket.as_of - now).max(0.0);
        let by_then = (bucket.level + (EXPIRY - ahead).max(0.0) * bucket.limit / 60.0).max(0.0);
        mine.late += if grant.whole && grant.starts <= EXPIRY {
            0.0
        } else {
            (grant.amount - by_then).max(0.0).floor()
        };
        bucket.level -= grant.amount;
        bucket.held += grant.amount;
        (mine.held, mine.granted) = (mine.held + grant.amount, grant.amount);
        BucketGrant { level: bucket.level, ..grant }
    }

    fn heed(&mut self, pause: &Pause<String>, now: f64) {
        let known = self.pauses.entry(pause.model.clone()).or_default();
        let until = now + pause.seconds;
        if until <= known.until {
            return;
        }
        *known = Paused { until, spent: pause.spent };
        // A bucket that filled for a whole minute of pause would let a storm loose.
        for (key, bucket) in &mut self.buckets {
            if !pause.spent && key.split_once('/').is_some_and(|(_, model)| model == pause.model) {
                bucket.refill(now);
                bucket.as_of = bucket.as_of.max(until - RESUMED);
            }
        }
    }

    fn exchange_slots(&mut self, name: &str, me: &mut Holder, ask: &SlotAsk<String>) -> SlotGrant {
        let slots = self.slots.entry(ask.model.clone()).or_default();
        let (held, want) = me.slots.get(&ask.model).copied().unwrap_or_default();
        slots.held = slots.held.saturating_sub(held);
        slots.wanted = slots.wanted.saturating_sub(want) + ask.want;
        slots.wanting = slots.wanting.saturating_sub(u32::from(want > 0)) + u32::from(ask.want > 0);
        let ahead = slots.line.iter().take_while(|waiting| *waiting != name).count();
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
        // Those in line come first, but for the calls that are under way here already.
        let free = ask.limit.saturating_sub(slots.held);
        let free = free.saturating_sub(ahead).max(ask.in_flight.min(free));
        let mut allowed = ask.want.min(free);
        if slots.wanted > ask.limit {
            let others = slots.wanted - ask.want;
            let even = (ask.limit / slots.wanting.max(1)).max(1);
            let part = (u64::from(ask.limit) * u64::from(ask.want) / u64::from(slots.wanted)) as u32;
            allowed = allowed.min(even.max(part).max(ask.limit.saturating_sub(others)));
        }
        slots.line.retain(|waiting| waiting != name);
        if allowed == 0 && ask.want > 0 && ask.in_flight == 0 {
            slots.line.insert((ahead as usize).min(slots.line.len()), name.to_owned());
        }
        let holds = allowed.max(ask.in_flight);
        slots.held += holds;
        me.slots.insert(ask.model.clone(), (holds, ask.want));
        SlotGrant { allowed, line: slots.line.iter().any(|waiting| waiting != name) }
    }
}
