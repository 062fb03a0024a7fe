//! A pipeline that shares its quota with other processes: what it asks the store for, and what it makes of the answers.
//!
//! The caller owns the exchange, as it owns everything that takes time: it carries [`LeaseRequest`]s to the store when
//! [`Pipeline::next_lease`] says so, one at a time, and brings back the answer or that there was none.

use std::time::Duration;

use self::ask::Need;
use super::Pipeline;
use crate::breaker::Stand;
use crate::bucket::Lent;
use crate::lease::Borrower;
use crate::lease::borrower::{Asked, Shared, Standing};
use crate::limiter::{Load, Pool, SlotLease};
use crate::{
    BucketAsk, BucketGrant, CircuitReport, Dimension, LeaseConfig, LeaseGrant, LeaseRequest, LeaseStats,
    Timestamp,
};

/// A process with something to do is heard of so often.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// One that could let nobody go anyway is heard of so often: still within the second in which a trip is to be known.
const HEARTBEAT_EMPTY: Duration = Duration::from_millis(800);
/// One that has had nothing to do for so long gives everything back.
const IDLE: Duration = Duration::from_secs(5);
/// The same if that is nothing: its next call has to ask first, whether it is at rest or not.
const IDLE_EMPTY: Duration = Duration::from_secs(1);
/// One that is away and has not asked for so long after it might have has been idle.
const IDLE_AWAY: Duration = Duration::from_millis(100);
/// And is then heard of so often.
const REFRESH: Duration = Duration::from_secs(30);
/// A debt or a surplus is told this long after the last exchange.
const SETTLE: Duration = Duration::from_millis(50);
/// Who waits behind a line of so many seconds asks for newcomers once in a part of it.
const QUESTIONS: f64 = 64.0;
/// Who has no slot, or found nothing to keep in hand, asks again after this.
const POLL: Duration = Duration::from_millis(50);
/// A refusal is believed no longer than this: quota is given back now and then.
const REFUSED_MAX: Duration = Duration::from_millis(500);
/// A 429 although the account had room says that somebody spends beside it: a process that is cut off, or a stranger.
/// One such call is refused for each of theirs. Charged as so many more, each refusal makes room for that many: of a
/// process that spends 6 % beside the others, 6 % of calls were refused without it, and 1 % with it (`--example fleet`).
const OUTSIDERS: f64 = 4.0;
/// Who waits no longer than this waits for the store and not for quota: the most that an answer takes, by default.
const ANSWER: Duration = Duration::from_millis(25);
/// Moments of our clock and the store's spans agree to this.
const SAME: Duration = Duration::from_millis(5);

mod ask;
mod cover;

impl Pipeline {
    /// Shares its limits, pauses and circuits with other processes from now on, through a store. It begins with nothing:
    /// the first call waits for the first answer, or for the news that there is none.
    pub fn share(&mut self, config: LeaseConfig, now: Timestamp) {
        let now = self.tick(now);
        match &mut self.lease {
            Some(lease) => lease.config = config,
            None => self.lease = Some(Box::new(Borrower::new(config, now))),
        }
        self.lease_buckets(now);
    }

    /// When the store is to be asked next, if nothing happens before. `None`: not by itself.
    pub fn next_lease(&self, now: Timestamp) -> Option<Timestamp> {
        let lease = self.lease.as_ref()?;
        if lease.asked.is_some() {
            return None;
        }
        match lease.standing {
            Standing::Apart if !self.queue.is_empty() => Some(now),
            Standing::Apart => (lease.acked > 0).then_some(lease.rested + REFRESH),
            Standing::Away => {
                let wanted = self.is_busy() || now.saturating_since(lease.busy) < IDLE;
                wanted.then_some(lease.try_at)
            }
            Standing::Joined => {
                if self.may_rest(lease, now) {
                    return Some(now);
                }
                let every = if self.is_empty_handed() { HEARTBEAT_EMPTY } else { HEARTBEAT };
                let heartbeat = lease.answered + every;
                Some(self.wish(lease, now).map_or(heartbeat, |at| at.min(heartbeat)))
            }
        }
    }

    /// What to ask the store, if it is time to. The answer goes to [`Pipeline::handle_lease`], or its absence to
    /// [`Pipeline::lose_lease`]; until then there is nothing more to ask.
    pub fn poll_lease(&mut self, now: Timestamp) -> Option<LeaseRequest> {
        let now = self.tick(now);
        if self.next_lease(now).is_none_or(|at| at > now) {
            return None;
        }
        let learned = |lease: &Borrower| now.saturating_since(lease.learning_until) < HEARTBEAT;
        if self.lease.as_ref().is_some_and(|lease| lease.standing == Standing::Away && learned(lease)) {
            self.restart_debts();
        }
        let may_rest = self.lease.as_ref().is_some_and(|lease| self.may_rest(lease, now));
        let lease = self.lease.as_mut()?;
        if lease.standing == Standing::Apart && lease.is_forgotten(now) {
            lease.begin_life();
            lease.epoch = 0;
        }
        let away = lease.standing == Standing::Away;
        let rests = !away && may_rest;
        if rests {
            lease.rested = now;
        }
        lease.seq += 1;
        lease.exchanges += 1;
        lease.asked = Some(Asked { seq: lease.seq, at: now, rests });
        Some(self.ask(rests, false, now))
    }

    /// The request that is numbered already.
    fn ask(&mut self, rests: bool, leaves: bool, now: Timestamp) -> LeaseRequest {
        let standing = self.lease.as_ref().map(|lease| (lease.life, lease.seq, lease.acked, lease.epoch));
        let (life, seq, acked, epoch) = standing.unwrap_or_default();
        let away = self.lease.as_ref().is_some_and(|lease| lease.standing == Standing::Away);
        let buckets = self.ask_buckets(away, rests || leaves, now);
        let slots = self.ask_slots(rests || leaves, now);
        let pauses = self.ask_pauses(now);
        let circuits = self.ask_circuits(now);
        let weight = self.lease.as_ref().map_or(0.0, |lease| lease.weight);
        let lost_at = self.lease.as_ref().map_or(now, |lease| lease.lost_at);
        let away_for = now.saturating_since(lost_at).as_secs_f64();
        LeaseRequest {
            life,
            seq,
            acked,
            epoch,
            away,
            away_for: if away { away_for } else { 0.0 },
            rests,
            leaves,
            label: String::new(),
            weight,
            buckets,
            slots,
            pauses,
            circuits,
        }
    }

    /// The store has answered. Waiters may go now: see [`Pipeline::poll_granted`].
    pub fn handle_lease(&mut self, request: &LeaseRequest, grant: &LeaseGrant, now: Timestamp) {
        let now = self.tick(now);
        let Some(lease) = &mut self.lease else { return };
        let Some(asked) = lease.asked.filter(|asked| asked.seq == grant.seq && request.seq == asked.seq)
        else {
            return;
        };
        if grant.stale {
            return self.lose_lease(request, now);
        }
        (lease.asked, lease.asks_first) = (None, false);
        (lease.acked, lease.epoch, lease.failures) = (grant.seq, grant.epoch, 0);
        for told in &request.buckets {
            // Counted, or nobody's.
            let account = lease.account(told.model, told.dimension);
            account.owed = (account.owed - told.owed).max(0.0);
            account.returned = (account.returned - told.returned).max(0.0);
        }
        if grant.learning <= 0.0 {
            // One that has lost its memory does not know how many there are.
            lease.members = grant.members.max(1);
            let even = 0.5 / f64::from(lease.members);
            let by_use = if grant.weights > 0.0 { 0.5 * request.weight / grant.weights } else { even };
            lease.share = Some((even + by_use).min(1.0));
        }
        if asked.rests {
            lease.standing = Standing::Apart;
            lease.answered = asked.at;
            self.forget_fleet();
            return;
        }
        if grant.learning > 0.0 {
            // Nobody knows what was spent: until the store does, everybody goes on with its share.
            if lease.standing != Standing::Away {
                self.go_away(true, now, now);
            }
            if let Some(lease) = &mut self.lease {
                lease.learning_until = now + seconds(grant.learning);
                (lease.try_at, lease.lost_at) = (lease.learning_until, now);
            }
            self.restart_debts();
            return self.follow_pauses(grant, now);
        }
        lease.answered = asked.at;
        if lease.standing != Standing::Joined {
            lease.standing = Standing::Joined;
            self.lease_buckets(now);
            self.breakers.ask_fleet(true);
        }
        for (ask, granted) in request.buckets.iter().zip(&grant.buckets) {
            self.take_grant(ask, granted, now);
        }
        let granted: Vec<(Pool, SlotLease)> = request
            .slots
            .iter()
            .zip(&grant.slots)
            .map(|(ask, slot)| {
                (
                    ask.model,
                    SlotLease {
                        allowed: slot.allowed,
                        held: slot.allowed.max(ask.in_flight),
                        line: slot.line,
                        short: slot.allowed < ask.want,
                        asked: now,
                    },
                )
            })
            .collect();
        for (pool, state) in self.limiter.slot_limits() {
            if let Some((_, slot)) = granted.iter().find(|(model, _)| *model == pool) {
                *state.lease = Some(*slot);
            }
        }
        if !self.queue.is_empty() && self.limiter.is_short_of_slots() {
            self.note_limited(Dimension::Concurrency, now);
        }
        self.follow_pauses(grant, now);
        self.follow_circuits(request, grant, now);
        self.budget.share_among(self.lease.as_ref().map_or(1, |lease| lease.members));
    }

    /// No answer came in time, or the store cannot be reached. From now on until it can be: the last fair share.
    pub fn lose_lease(&mut self, request: &LeaseRequest, now: Timestamp) {
        let now = self.tick(now);
        let Some(lease) = &mut self.lease else { return };
        let Some(asked) = lease.asked.filter(|asked| asked.seq == request.seq) else { return };
        (lease.asked, lease.asks_first) = (None, false);
        lease.failed(now);
        if asked.rests {
            // It wanted nothing any more. What it held is forgotten with it.
            lease.standing = Standing::Apart;
            lease.begin_life();
            lease.epoch = 0;
            self.forget_fleet();
            return;
        }
        if lease.standing != Standing::Away {
            self.go_away(true, asked.at, now);
        }
    }

    /// The last request before it ends, if it holds anything: everything goes back. Nobody hears the answer.
    pub fn farewell(&mut self, now: Timestamp) -> Option<LeaseRequest> {
        let now = self.tick(now);
        let lease = self.lease.as_mut()?;
        if lease.standing != Standing::Joined {
            return None;
        }
        // Should an answer be under way, what it grants was never heard of and goes back too.
        lease.seq += 1;
        Some(self.ask(false, true, now))
    }

    /// How it stands with the other processes, if there are any.
    pub fn lease_stats(&self) -> Option<LeaseStats> {
        let lease = self.lease.as_ref()?;
        Some(LeaseStats {
            is_joined: lease.standing == Standing::Joined,
            is_away: lease.standing == Standing::Away,
            members: lease.members,
            share: lease.offline_share(),
            exchanges: lease.exchanges,
            lost: lease.lost,
        })
    }

    /// Leases that are too old are not believed any more, whatever happens next.
    pub(super) fn doubt_leases(&mut self, now: Timestamp) {
        if let Some(lease) = self.lease.as_mut().filter(|lease| lease.is_stale(now)) {
            (lease.asked, lease.try_at) = (None, now);
            let since = lease.answered;
            self.go_away(false, since, now);
        }
    }

    /// A call was let go or waits.
    pub(super) fn note_busy(&mut self, now: Timestamp) {
        if let Some(lease) = &mut self.lease {
            lease.busy = now;
        }
    }

    /// Has this process been away and idle, so that nobody knows whether the store is back? Then it is asked before a call
    /// is let go: what idle processes have saved up of their shares meanwhile is more than the quota if the others have
    /// theirs from the store.
    pub(super) fn asks_first(&mut self, now: Timestamp) -> bool {
        let Some(lease) = &mut self.lease else { return false };
        if lease.standing == Standing::Away && lease.asked.is_none() && now > lease.try_at + IDLE_AWAY {
            lease.asks_first = true;
        }
        lease.asks_first
    }

    /// Is everybody held until the store has been asked?
    pub(super) fn is_asking_first(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.asks_first)
    }

    /// Must this call wait until the fleet has said whether it may probe?
    pub(super) fn knocks(&mut self, slot: usize, now: Timestamp) -> bool {
        let Some(lease) = &mut self.lease else { return false };
        if lease.standing != Standing::Joined {
            return false;
        }
        let circuit = self.breakers.of(slot);
        if !circuit.awaits_permission(now) || now < circuit.denied_until() {
            return false;
        }
        let pool = self.breakers.is_per_model().then_some(crate::ModelId(slot as u32));
        lease.circuits.entry(pool).or_default().wanted = true;
        true
    }

    /// Does this process know nothing of what the others have left, before it has asked?
    pub(super) fn knows_nothing(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.standing == Standing::Apart || lease.asks_first)
    }

    /// By when a call that would be served at `served_at` has what it lacks, if it only waits for the store's word and not
    /// for quota or for a slot that somebody else has.
    pub(super) fn store_answers_by(
        &self,
        served_at: Timestamp,
        slots_taken: bool,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let lease = self.lease.as_ref()?;
        let by = now + ANSWER;
        let has_it = lease.standing == Standing::Joined
            && served_at <= by
            && !(slots_taken && self.limiter.is_short_of_slots());
        (has_it || self.knows_nothing()).then_some(by)
    }

    /// The provider refused a call that took `cost`, of all models or of one, for want of `exhausted`.
    pub(super) fn charge_outsiders(&mut self, pool: Pool, cost: Load, exhausted: Option<Dimension>) {
        let Some(lease) = self.lease.as_mut().filter(|lease| lease.standing == Standing::Joined) else {
            return;
        };
        for (whose, dimension, bucket) in self.limiter.buckets() {
            // One that does not say what ran out is taken to mean requests, of which it took one.
            if whose == pool && dimension == exhausted.unwrap_or(Dimension::Requests) {
                let most = bucket.whole_depth() / OUTSIDERS;
                lease.account(pool, dimension).owed +=
                    (cost.of(dimension) as f64 * OUTSIDERS).min(most).floor();
            }
        }
    }

    /// Buckets that were configured a moment ago stand as the others do.
    pub(super) fn lease_buckets(&mut self, now: Timestamp) {
        let Some(lease) = &self.lease else { return };
        let (away, share) = (lease.standing == Standing::Away, lease.offline_share());
        for (_, _, bucket) in self.limiter.buckets_mut() {
            match away {
                true => bucket.end_lease(share, true, now),
                false => bucket.begin_lease(now),
            }
        }
        for (_, state) in self.limiter.slot_limits() {
            state.lease.get_or_insert_default();
        }
    }

    /// The store is out of reach: the last fair share from now on.
    fn go_away(&mut self, believes: bool, since: Timestamp, now: Timestamp) {
        let Some(lease) = &mut self.lease else { return };
        (lease.standing, lease.lost_at) = (Standing::Away, since);
        lease.told_pauses.clear();
        for circuit in lease.circuits.values_mut() {
            (circuit.probes, circuit.wanted) = (0, false);
        }
        let share = lease.offline_share();
        for (pool, dimension, bucket) in self.limiter.buckets_mut() {
            bucket.refill(now);
            let account = lease.account(pool, dimension);
            if bucket.is_leased() {
                let at_hand = bucket.at_hand();
                account.owed += (-at_hand).max(0.0);
                account.returned += bucket.drop_promises();
                account.kept = if believes { at_hand.max(0.0) } else { 0.0 };
            }
            bucket.end_lease(share, believes, now);
        }
        for ((pool, dimension), account) in &mut lease.accounts {
            account.used_before = self.limiter.used(*pool, dimension_of(*dimension));
        }
        for (_, state) in self.limiter.slot_limits() {
            let allowed = (f64::from(state.limit) * share) as u32;
            *state.lease =
                Some(SlotLease { allowed: allowed.max(1).min(state.limit), ..SlotLease::default() });
        }
        self.breakers.ask_fleet(false);
    }

    /// What was used until now is nobody's debt, and what was held before is void.
    fn restart_debts(&mut self) {
        let Some(lease) = &mut self.lease else { return };
        for ((pool, dimension), account) in &mut lease.accounts {
            account.used_before = self.limiter.used(*pool, dimension_of(*dimension));
            (account.owed, account.returned, account.kept) = (0.0, 0.0, 0.0);
        }
    }

    /// It has left: nothing is held.
    fn forget_fleet(&mut self) {
        for (_, _, bucket) in self.limiter.buckets_mut() {
            bucket.hand_back(0.0);
        }
        for (_, state) in self.limiter.slot_limits() {
            *state.lease = Some(SlotLease::default());
        }
        self.breakers.ask_fleet(false);
    }

    /// Does a call wait, or run?
    fn is_busy(&self) -> bool {
        !self.queue.is_empty() || self.limiter.in_flight() > 0
    }

    /// Has it had nothing to do for long enough?
    fn may_rest(&self, lease: &Borrower, now: Timestamp) -> bool {
        let idle = if self.is_empty_handed() { IDLE_EMPTY } else { IDLE };
        !self.is_busy() && now.saturating_since(lease.busy) >= idle
    }

    /// Could no call go by what is at hand? It needs something of every limit.
    fn is_empty_handed(&self) -> bool {
        self.limiter.buckets().any(|(_, _, bucket)| bucket.is_leased() && bucket.at_hand() < 1.0)
    }

    /// When something is wished for that should not wait for the heartbeat.
    fn wish(&self, lease: &Borrower, now: Timestamp) -> Option<Timestamp> {
        let mut soonest: Option<Timestamp> = None;
        let mut wish = |at: Timestamp| soonest = Some(soonest.map_or(at, |known| known.min(at)));
        for (pool, dimension, bucket) in self.limiter.buckets() {
            let Some(account) = lease.accounts.get(&(pool, dimension as usize)) else {
                wish(now);
                continue;
            };
            let at_hand = bucket.at_hand();
            if bucket.has_word() {
                wish(now);
            }
            let need = if self.queue.is_empty() { Need::default() } else { self.need(pool, dimension, now) };
            let holding = bucket.holding();
            if at_hand < 0.0
                || holding >= need.all + 2.0 * account.target + 1.0
                || (need.all > 0.0 && bucket.waits_in_vain(now))
            {
                wish(lease.answered + SETTLE);
            }
            if need.all > holding {
                wish(account.ask_at);
            } else if need.all <= 0.0 && at_hand < account.target / 2.0 {
                wish(account.stock_at);
            }
        }
        if let Some(at) = self.wish_of_slots(now) {
            wish(at);
        }
        for (pool, until, spent) in self.limiter.pauses(now) {
            if lease.told_pauses.get(&(pool, spent)).is_none_or(|told| *told + SAME < until) {
                wish(now);
            }
        }
        if self.breakers.has_turned(&lease.circuits) {
            wish(now);
        }
        soonest
    }

    fn wish_of_slots(&self, now: Timestamp) -> Option<Timestamp> {
        let mut soonest: Option<Timestamp> = None;
        for (_, limit, in_flight, slot) in self.limiter.slots() {
            let Some(slot) = slot else { continue };
            let waits = !self.queue.is_empty() && in_flight >= slot.allowed && slot.allowed < limit;
            let returns = slot.line && slot.held > in_flight;
            if waits || returns {
                let asked = slot.asked != Timestamp::ZERO;
                let at = if returns || !asked { now } else { slot.asked + POLL };
                soonest = Some(soonest.map_or(at, |known| known.min(at)));
            }
        }
        soonest
    }

    fn take_grant(&mut self, ask: &BucketAsk, granted: &BucketGrant, now: Timestamp) {
        let Some(lease) = &mut self.lease else { return };
        let account = lease.account(ask.model, ask.dimension);
        let Some(bucket) = self.limiter.bucket_mut(ask.model, ask.dimension) else { return };
        bucket.hear_fleet(granted.level, now);
        bucket.put_off(granted.put_off, now);
        (account.ask_at, account.stock_at) = (now, now);
        if granted.amount > 0.0 {
            let starts = now + seconds(granted.starts);
            let BucketGrant { amount, ready, whole, .. } = *granted;
            bucket.lend(Lent { amount, ready, starts, whole }, now);
            // Behind a long line a little later is as good: asked less often, for more at once.
            account.ask_at = now + seconds(granted.starts / QUESTIONS).min(REFUSED_MAX);
        } else if granted.refused_for > 0.0 {
            let late = seconds(granted.refused_for - ask.patience);
            account.ask_at = now + late.clamp(POLL, REFUSED_MAX);
        } else if ask.want > 0.0 {
            account.stock_at = now + HEARTBEAT;
        }
        if ask.least > 0.0 && (granted.refused_for > 0.0 || seconds(granted.starts) > ANSWER) {
            self.note_limited(ask.dimension, now);
        }
        if ask.least > 0.0 && granted.amount < ask.want {
            self.refuse_uncovered(ask.model, ask.dimension, granted, now);
        }
    }

    fn follow_pauses(&mut self, grant: &LeaseGrant, now: Timestamp) {
        for pause in &grant.pauses {
            let until = now + seconds(pause.seconds);
            self.limiter.heed_pause(pause.model, until, pause.spent, now);
            if let Some(lease) = &mut self.lease {
                let told = lease.told_pauses.entry((pause.model, pause.spent)).or_default();
                *told = until.max(*told);
            }
        }
        if let Some(lease) = &mut self.lease {
            lease.told_pauses.retain(|_, until| *until > now);
        }
    }

    fn follow_circuits(&mut self, request: &LeaseRequest, grant: &LeaseGrant, now: Timestamp) {
        let Some(lease) = &mut self.lease else { return };
        for (pool, known) in &mut lease.circuits {
            if !grant.circuits.iter().any(|report| report.model == *pool) {
                // Closed so long ago that nobody remembers.
                *known = Shared { wanted: false, ..Shared::default() };
            }
        }
        for report in &grant.circuits {
            let CircuitReport { model, turn, open, left, probes } = report.clone();
            let Some(circuit) = self.breakers.named(model) else { continue };
            let known = lease.circuits.entry(model).or_default();
            let is_news = turn != known.turn;
            let until = now + seconds(left);
            let asked_for = request.circuits.iter().find(|ask| ask.model == model);
            if is_news {
                let same = matches!(circuit.stand(), Stand::Open { until: here }
                    if here.max(until).saturating_since(here.min(until)) < HEARTBEAT);
                match (open, same) {
                    (true, true) => {}
                    (true, false) => circuit.follow_open(until, now, &mut self.events),
                    (false, _) => circuit.follow_closed(now, &mut self.events),
                }
                *known = Shared { turn, open, until, wanted: known.wanted, ..Shared::default() };
                if let Stand::Open { until } = circuit.stand() {
                    known.until = until;
                }
            }
            if probes > known.probes {
                known.given = now;
            }
            known.probes = probes;
            circuit.permit(Some(probes));
            if asked_for.is_some_and(|ask| ask.wants_probe) {
                known.wanted = false;
                if probes == 0 {
                    circuit.deny_probe(now);
                }
            }
        }
    }
}

impl Shared {
    /// What our circuit has become that the fleet's has not.
    pub(crate) fn turned(&self, stand: Stand) -> Option<Stand> {
        match stand {
            Stand::Closed => self.open.then_some(stand),
            Stand::Open { until } if !self.open || until > self.until + SAME => Some(stand),
            _ => None,
        }
    }
}

fn seconds(span: f64) -> Duration {
    Duration::try_from_secs_f64(span.max(0.0)).unwrap_or(Duration::MAX)
}

fn dimension_of(index: usize) -> Dimension {
    use Dimension::{Concurrency, InputTokens, OutputTokens, Requests, Tokens};
    [Requests, Tokens, InputTokens, OutputTokens, Concurrency][index.min(4)]
}
