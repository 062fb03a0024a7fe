//! Requests, tokens and concurrency as one reservation.
//!
//! A call takes from every limit at once or from none, before it is sent and by what it is expected to cost; when it
//! ends the difference is settled, debts included. Nobody ever holds a part of what it needs, so nobody starves
//! another by waiting. Limits of single models stand inside the provider's and slow only their own model.
//!
//! The room has four corners: `config` (what can be set and seen), `quota` (the buckets of one scope), `model` (what is
//! known of one model) and `recent` (what was sent in the last minute, for people). Who waits, and in what order, is
//! `queue.rs`.

use std::time::Duration;

use crate::bucket::TokenBucket;
use crate::event::Events;
use crate::{Charge, Demand, Dimension, Event, Failure, ModelId, Timestamp, Usage};

pub use config::{
    ChargeRule, CountedTokens, HintedQuota, LimiterConfig, LimiterStats, ModelLimits, QuotaHint, TokenLimits,
};
use model::{ModelState, News};
pub(crate) use quota::Cost;
use quota::Quotas;
use recent::Recent;

mod config;
mod model;
mod quota;
mod recent;

/// The limiter's half of a permit.
#[derive(Debug)]
pub(crate) struct Reservation {
    cost: Cost,
    granted: Timestamp,
    /// The editions of the model's buckets it was taken from; 0 is none.
    own: u32,
    observed: u32,
}

impl Reservation {
    /// How long ago the call was let go.
    pub(crate) fn age(&self, now: Timestamp) -> Duration {
        now.saturating_since(self.granted)
    }
}

/// Models told apart at most; what lies beyond shares the state of [`ModelId::OTHER`]. Bounds memory when ids come
/// from a mistake.
const MODELS_MAX: u32 = 4_096;

/// A model's spent quota blocks it for at most a day: no known quota resets more rarely, and a mistaken number must
/// not block it for years.
const BLOCK_MAX: Duration = Duration::from_secs(86_400);

/// How long a model's spent quota blocks it when the provider did not say.
const BLOCK_UNKNOWN: Duration = Duration::from_secs(3_600);

/// How long a call is assumed to take until one has ended. Only to tell a caller when to come back.
const HOLD_UNKNOWN: u64 = 1_000_000_000;

/// The limits of one credential of one provider.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    config: LimiterConfig,
    quotas: Quotas,
    in_flight: u32,
    paused_until: Timestamp,
    /// What the pause was about.
    paused_for: Dimension,
    models: Vec<ModelState>,
    /// The one model used so far. With a second, `Some(None)`.
    sole: Option<Option<usize>>,
    /// A quarter of the tightest token limit that outputs count against: no guess is larger.
    guess_max: u64,
    /// No call of at most so many tokens exceeds a limit of the provider's. `None`: every call does, or none is known
    /// not to.
    roomy: Option<u64>,
    edition: u32,
    recent: Recent,
    observed_limits: (Option<u64>, Option<u64>),
    told_low: (bool, bool),
    /// Mean time from grant to end, in nanoseconds.
    hold: u64,
    pub(crate) refused_total: u64,
}

impl RateLimiter {
    /// Full buckets.
    pub(crate) fn new(config: LimiterConfig, now: Timestamp) -> Self {
        let quotas =
            Quotas::new(config.requests_per_minute, config.tokens, config.burst, config.depth_margin, now);
        let limit = match config.tokens {
            TokenLimits::Total(limit) | TokenLimits::Split { output: limit, .. } => limit,
        };
        Self {
            quotas,
            in_flight: 0,
            paused_until: Timestamp::ZERO,
            paused_for: Dimension::Requests,
            models: Vec::new(),
            sole: None,
            guess_max: quarter(limit),
            roomy: match quotas.exceeded(Cost::of_call(0, 0)) {
                None if config.max_concurrent != Some(0) => Some(quotas.roomy()),
                _ => None,
            },
            edition: 0,
            recent: Recent::new(),
            observed_limits: (None, None),
            told_low: (false, false),
            hold: HOLD_UNKNOWN,
            refused_total: 0,
            config,
        }
    }

    pub(crate) fn max_queue(&self) -> usize {
        self.config.max_queue
    }

    /// Where the state of `model` is kept. Makes room on first sight.
    pub(crate) fn slot(&mut self, model: ModelId) -> usize {
        let slot = if model.0 < MODELS_MAX { model.0 as usize } else { ModelId::OTHER.0 as usize };
        if slot >= self.models.len() {
            self.models.resize_with(slot + 1, ModelState::default);
        }
        slot
    }

    /// Gives a model limits of its own. The bucket starts full; calls in flight settle with the provider's alone.
    pub(crate) fn limit_model(&mut self, slot: usize, limits: &ModelLimits, now: Timestamp) {
        self.edition = self.edition.wrapping_add(1).max(1);
        let quotas = Quotas::of_model(limits, self.config.burst, self.config.depth_margin, now);
        let model = &mut self.models[slot];
        model.limits = Some(Box::new(model::Own { quotas, edition: self.edition }));
        model.max_concurrent = limits.max_concurrent;
    }

    /// What a call is expected to take. An answer's length is the caller's bound where the provider charges that in
    /// advance, and otherwise what this model lately wrote.
    pub(crate) fn estimate(&self, slot: usize, demand: Demand) -> Cost {
        let input = demand.input_tokens;
        if self.config.counted == CountedTokens::InputOnly {
            return Cost::of_call(input, 0);
        }
        if let (ChargeRule::Estimate | ChargeRule::EstimateThenRefund, Some(max)) =
            (self.config.charge, demand.max_output_tokens)
        {
            return Cost::of_call(input, max);
        }
        // From here on the output is our guess, and a guess never makes a call impossible that the limits allow.
        let model = &self.models[slot];
        let mut output = model.expected_output().min(self.guess_max).min(quarter(model.token_limit()));
        if let Some(max) = demand.max_output_tokens {
            output = output.min(max);
        }
        for limit in [self.quotas.limit(Dimension::Tokens), model.token_limit()].into_iter().flatten() {
            output = output.min(limit.saturating_sub(input));
        }
        Cost::of_call(input, output)
    }

    /// The limit that makes a call impossible, if there is one.
    pub(crate) fn exceeded(&self, slot: usize, cost: Cost) -> Option<(Dimension, u64, u64)> {
        // Nearly every call is far below every limit: one comparison says so.
        let small =
            self.roomy.is_some_and(|most| cost.tokens() <= most) && self.models[slot].limits.is_none();
        if small || !self.config.enabled {
            return None;
        }
        let own = || self.models[slot].limits.as_ref().and_then(|own| own.quotas.exceeded(cost));
        let slots = (self.config.max_concurrent == Some(0) || self.models[slot].max_concurrent == Some(0))
            .then_some((Dimension::Concurrency, 0, 1));
        self.quotas.exceeded(cost).or_else(own).or(slots)
    }

    /// Until when this model's own quota is spent, if it is.
    pub(crate) fn blocked_until(&self, slot: usize, now: Timestamp) -> Option<Timestamp> {
        let until = self.models[slot].blocked_until;
        (self.config.enabled && until > now).then_some(until)
    }

    /// Could the call go now, as far as its model's own limits are concerned?
    pub(crate) fn model_fits(&mut self, slot: usize, cost: Cost, now: Timestamp) -> bool {
        !self.config.enabled || self.models[slot].fits(cost, now)
    }

    /// Could it go now, as far as the provider's limits are concerned?
    pub(crate) fn provider_fits(&mut self, cost: Cost, now: Timestamp) -> bool {
        !self.config.enabled
            || (self.paused_until <= now
                && self.config.max_concurrent.is_none_or(|most| self.in_flight < most)
                && self.quotas.fits(cost, now))
    }

    /// Takes from every limit. Ask both `fits` first.
    pub(crate) fn take(&mut self, slot: usize, cost: Cost, now: Timestamp) -> Reservation {
        self.in_flight = self.in_flight.saturating_add(1);
        self.recent.sent(cost.tokens(), now);
        if self.sole != Some(Some(slot)) {
            self.sole = Some(self.sole.is_none().then_some(slot));
        }
        let mut reservation = Reservation { cost, granted: now, own: 0, observed: 0 };
        let model = &mut self.models[slot];
        if self.config.enabled {
            self.quotas.take(cost);
            reservation.own = model.limits.as_ref().map_or(0, |own| own.edition);
            reservation.observed = model.observed.as_ref().map_or(0, |observed| observed.edition);
        }
        model.take(cost);
        reservation
    }

    /// A call was answered: the provider's charge rule decides what the reservation becomes.
    ///
    /// - `promised`: did the caller bound the output? Only such a bound can have been charged in advance; where there
    ///   was none, the reserved output was a guess of ours and is settled like any other.
    pub(crate) fn settle(
        &mut self,
        slot: usize,
        reservation: Reservation,
        usage: Option<Usage>,
        promised: bool,
        now: Timestamp,
    ) {
        let reserved = reservation.cost;
        let charged = usage.map_or(reserved, |usage| {
            self.models[slot].learn(usage.output_tokens);
            let used = self.counted(usage);
            match self.config.charge {
                ChargeRule::Estimate if promised => larger(reserved, used),
                _ => used,
            }
        });
        self.exchange(slot, reservation, charged, now);
    }

    /// A call failed: its row of the table decides what goes back.
    pub(crate) fn settle_failed(
        &mut self,
        slot: usize,
        reservation: Reservation,
        failure: &Failure,
        now: Timestamp,
    ) {
        let reserved = reservation.cost;
        let seen = failure.seen.map(|usage| self.counted(usage));
        let charged = match (failure.kind.meaning().charge, self.config.charge) {
            (Charge::Refund, _) => Cost::of_call(0, 0),
            (Charge::Keep, _) => seen.map_or(reserved, |seen| larger(reserved, seen)),
            // What was charged in advance and is never returned stays, whatever became of the call.
            (Charge::AsTheRuleSays | Charge::Seen, ChargeRule::Estimate) => {
                seen.map_or(reserved, |seen| larger(reserved, seen))
            }
            // These rules charge the input when the call arrives, and give back output that was never written.
            (Charge::AsTheRuleSays | Charge::Seen, ChargeRule::EstimateThenRefund | ChargeRule::Actual) => {
                // Input that came from the cache altogether may count as nothing; input nobody counted does not.
                let counted = failure.seen.is_some_and(|usage| usage.input_tokens > 0);
                let seen = seen.unwrap_or_default();
                Cost::of_call(if counted { seen.input } else { reserved.input }, seen.output)
            }
        };
        self.exchange(slot, reservation, charged, now);
    }

    /// A call was let go and never sent: everything goes back, the request too.
    pub(crate) fn put_back(&mut self, slot: usize, reservation: Reservation, now: Timestamp) {
        self.recent.unsent(reservation.cost.tokens(), reservation.granted);
        self.exchange_quotas(slot, &reservation, Cost::default(), now);
        self.free(slot, reservation.cost);
    }

    /// A call was sent and its caller went away: at least the estimated input was charged, and what was seen.
    pub(crate) fn settle_abandoned(
        &mut self,
        slot: usize,
        reservation: Reservation,
        seen: Option<Usage>,
        now: Timestamp,
    ) {
        let reserved = reservation.cost;
        let seen = seen.map(|usage| self.counted(usage)).unwrap_or_default();
        let charged = match self.config.charge {
            ChargeRule::Estimate => larger(reserved, seen),
            ChargeRule::EstimateThenRefund | ChargeRule::Actual => {
                Cost::of_call(reserved.input.max(seen.input), seen.output)
            }
        };
        self.exchange(slot, reservation, charged, now);
    }

    /// A 429: the bucket it names is emptied, and everything concerned is paused for as long as the provider asked.
    /// The buckets fill again only after the pause, so that traffic resumes paced and not as a second storm.
    ///
    /// `slot`: the one model concerned; `None`: the whole provider.
    pub(crate) fn throttled(
        &mut self,
        slot: Option<usize>,
        exhausted: Option<Dimension>,
        hint: Duration,
        now: Timestamp,
        events: &mut Events,
    ) {
        if !self.config.enabled {
            return;
        }
        let until = now + hint;
        if let Some(slot) = slot {
            let (model, later) = (&mut self.models[slot], self.config.charge == ChargeRule::Actual);
            model.throttled(exhausted, until, &self.quotas, later, &mut self.edition, now);
            return;
        }
        if until > now && self.paused_until <= now {
            // Said when a pause begins; ten calls that were throttled together do not say it ten times.
            events.push(Event::Paused { until, at: now });
        }
        if until > self.paused_until {
            self.paused_until = until;
            self.paused_for = exhausted.unwrap_or(Dimension::Requests);
        }
        let due = match self.config.charge {
            ChargeRule::Actual => {
                self.models.iter().map(|model| model.reserved.output).fold(0, u64::saturating_add)
            }
            ChargeRule::Estimate | ChargeRule::EstimateThenRefund => 0,
        };
        self.quotas.drain(exhausted, due, now, self.paused_until.max(now));
    }

    /// A model's own quota is spent.
    pub(crate) fn block_model(
        &mut self,
        slot: usize,
        model: ModelId,
        resets_in: Option<Duration>,
        now: Timestamp,
        events: &mut Events,
    ) {
        if !self.config.enabled {
            return;
        }
        let until = now + resets_in.unwrap_or(BLOCK_UNKNOWN).min(BLOCK_MAX);
        let state = &mut self.models[slot];
        if until > state.blocked_until {
            if state.blocked_until <= now {
                events.push(Event::ModelBlocked { model, until });
            }
            state.blocked_until = until;
        }
    }

    /// Follows the provider's headers; see [`QuotaHint`].
    pub(crate) fn handle_hint(&mut self, slot: usize, hint: &QuotaHint, now: Timestamp, events: &mut Events) {
        let dimensions = [
            (Dimension::Requests, hint.requests),
            (Dimension::Tokens, hint.tokens),
            (Dimension::InputTokens, hint.input_tokens),
            (Dimension::OutputTokens, hint.output_tokens),
        ];
        for (dimension, hinted) in dimensions {
            // Some servers send a limit of 0 for "unknown"; believed, it would stop a model that works.
            let Some(hinted) = hinted.filter(|hinted| hinted.limit != Some(0)) else { continue };
            if let Some(limit) = hinted.limit {
                self.note_limit(dimension, limit, events);
            }
            if self.config.enabled {
                self.follow(slot, dimension, hinted, now);
            }
        }
    }

    fn follow(&mut self, slot: usize, dimension: Dimension, hint: HintedQuota, now: Timestamp) {
        let configured = self.quotas.limit(dimension);
        // Without a limit from either side there is nothing to pace by.
        let Some(limit) = hint.limit.into_iter().chain(configured).min() else { return };
        let tighter = configured.is_none_or(|configured| limit < configured);
        let spent = match (hint.remaining, self.quotas.bucket_mut(dimension)) {
            (Some(remaining), Some(bucket)) => {
                bucket.refill(now);
                bucket.holds_more_than(remaining)
            }
            _ => false,
        };
        let fresh = TokenBucket::new(limit, self.config.burst, self.config.depth_margin, now);
        let news = News {
            remaining: hint.remaining,
            fresh,
            surprising: tighter || spent,
            charged_later: self.config.charge == ChargeRule::Actual,
        };
        self.models[slot].observe(dimension, news, &mut self.edition, now);
        // The provider-wide level may follow upward only where the header speaks of that very limit, and of all that
        // we send: with a second model in play, one model's remainder says nothing about the whole.
        if self.sole == Some(Some(slot)) && hint.limit.is_some() && hint.limit == configured {
            let reserved = self.models[slot].reserved;
            let in_flight = match dimension {
                Dimension::Requests => u64::from(self.in_flight),
                Dimension::InputTokens => reserved.input,
                Dimension::OutputTokens => reserved.output,
                _ => reserved.tokens(),
            };
            if let (Some(bucket), Some(remaining)) = (self.quotas.bucket_mut(dimension), hint.remaining)
                && self.paused_until <= now
            {
                bucket.raise_to(remaining.saturating_sub(in_flight));
            }
        }
    }

    /// Remembers the largest limits shown, and says once when they are far above the configured ones.
    fn note_limit(&mut self, dimension: Dimension, observed: u64, events: &mut Events) {
        let (seen, told) = match dimension {
            Dimension::Requests => (&mut self.observed_limits.0, &mut self.told_low.0),
            Dimension::Tokens => (&mut self.observed_limits.1, &mut self.told_low.1),
            _ => return,
        };
        *seen = (*seen).max(Some(observed));
        let Some(configured) = self.quotas.limit(dimension) else { return };
        if !*told && observed >= configured.saturating_mul(2) {
            *told = true;
            events.push(Event::LimitLooksLow { dimension, configured, observed });
        }
    }

    /// When `cost` could go if time alone decides and nobody else took; `None` if a slot must be freed first.
    pub(crate) fn available(&self, slot: usize, cost: Cost) -> Option<(Timestamp, Dimension)> {
        if self.config.max_concurrent.is_some_and(|most| self.in_flight >= most) {
            return None;
        }
        let (model_at, model_for) = self.models[slot].available(cost)?;
        let mut latest = self.quotas.available(cost);
        for other in [(self.paused_until, self.paused_for), (model_at, model_for)] {
            if other.0 > latest.0 {
                latest = other;
            }
        }
        Some(latest)
    }

    /// The same for the model's own limits alone.
    pub(crate) fn model_available(&self, slot: usize, cost: Cost) -> Option<Timestamp> {
        self.models[slot].available(cost).map(|(at, _)| at)
    }

    /// Until when a pause holds this model alone back.
    pub(crate) fn model_paused_until(&self, slot: usize) -> Timestamp {
        self.models[slot].paused_until
    }

    /// Until when pauses hold this model back, its own and everybody's.
    pub(crate) fn paused_until(&self, slot: usize) -> Timestamp {
        self.provider_paused_until().max(self.models[slot].paused_until)
    }

    /// Until when a pause holds everything back.
    pub(crate) fn provider_paused_until(&self) -> Timestamp {
        if self.config.enabled { self.paused_until } else { Timestamp::ZERO }
    }

    /// When a call for `slot` would be served behind those already waiting, and what it would wait for. `ahead` are
    /// the costs in front of it for the provider's limits, `ahead_own` those of its own model. Slots are taken to be
    /// free: when calls in flight will end is not known, so this is the earliest moment.
    pub(crate) fn served_at(
        &self,
        slot: usize,
        cost: Cost,
        ahead: impl Iterator<Item = Cost>,
        ahead_own: impl Iterator<Item = Cost>,
        now: Timestamp,
    ) -> (Timestamp, Dimension) {
        let mut last = (now.max(self.paused_until), self.paused_for);
        let mut quotas = self.quotas;
        for cost in ahead.chain([cost]) {
            let (at, waited) = quotas.pass(cost, last.0);
            last = (at, waited.unwrap_or(last.1));
        }
        let model = &self.models[slot];
        let [mut own, mut observed] = model.rehearsal();
        let mut behind = (now.max(model.paused_until), Dimension::Requests);
        for cost in ahead_own.chain([cost]) {
            for quotas in [&mut own, &mut observed] {
                let (at, waited) = quotas.pass(cost, behind.0);
                behind = (at, waited.unwrap_or(behind.1));
            }
        }
        if behind.0 > last.0 { behind } else { last }
    }

    /// The same behind the sums of what is ahead: each bucket is charged the whole sum at once, as a debt it works off.
    pub(crate) fn served_after(
        &self,
        slot: usize,
        cost: Cost,
        ahead: impl Iterator<Item = Cost>,
        ahead_own: impl Iterator<Item = Cost>,
        now: Timestamp,
    ) -> (Timestamp, Dimension) {
        let mut last = (now.max(self.paused_until), self.paused_for);
        let model = &self.models[slot];
        let mut all = self.quotas;
        let [mut own, mut observed] = model.rehearsal();
        all.fits(cost, now);
        own.fits(cost, now);
        observed.fits(cost, now);
        ahead.for_each(|sum| all.take(sum));
        ahead_own.for_each(|sum| {
            own.take(sum);
            observed.take(sum);
        });
        let paused = (model.paused_until, Dimension::Requests);
        for other in [paused, all.available(cost), own.available(cost), observed.available(cost)] {
            if other.0 > last.0 {
                last = other;
            }
        }
        last
    }

    /// Is every slot taken, the provider's or the model's?
    pub(crate) fn slots_taken(&self, slot: usize) -> bool {
        let model = &self.models[slot];
        self.config.max_concurrent.is_some_and(|most| self.in_flight >= most)
            || model.max_concurrent.is_some_and(|most| model.in_flight >= most)
    }

    /// When a slot for one more behind `ahead` waiters may be free, by how long calls lately took. A guess, for telling
    /// a caller when to come back; nobody is refused by it.
    pub(crate) fn slot_expected(&self, ahead: usize, now: Timestamp) -> Timestamp {
        let most = u64::from(self.config.max_concurrent.unwrap_or(1).max(1));
        let rounds = (ahead as u64 + 1).div_ceil(most);
        now + Duration::from_nanos(self.hold.saturating_mul(rounds).max(1))
    }

    /// (requests, tokens) sent in the last minute.
    pub(crate) fn last_minute(&self, now: Timestamp) -> (u64, u64) {
        self.recent.totals(now)
    }

    /// A snapshot; the queue's numbers are filled in by its owner.
    pub(crate) fn stats(&self, now: Timestamp) -> LimiterStats {
        let (requests, tokens) = self.recent.totals(now);
        let max_tokens = match self.config.tokens {
            TokenLimits::Total(limit) => limit,
            TokenLimits::Split { input: Some(input), output: Some(output) } => {
                Some(input.saturating_add(output))
            }
            TokenLimits::Split { .. } => None,
        };
        LimiterStats {
            requests_last_minute: requests,
            tokens_last_minute: tokens,
            concurrent_requests: u64::from(self.in_flight),
            max_requests_per_minute: self.config.requests_per_minute,
            max_tokens_per_minute: max_tokens,
            refused_total: self.refused_total,
            paused_until: (self.config.enabled && self.paused_until > now).then_some(self.paused_until),
            observed_limits: self.observed_limits,
            ..LimiterStats::default()
        }
    }

    /// A provider's count, in what it counts.
    fn counted(&self, usage: Usage) -> Cost {
        let fresh = usage.input_tokens.saturating_sub(usage.cached_input_tokens);
        match self.config.counted {
            CountedTokens::All => Cost::of_call(usage.input_tokens, usage.output_tokens),
            CountedTokens::WithoutCacheReads => Cost::of_call(fresh, usage.output_tokens),
            CountedTokens::InputOnly => Cost::of_call(usage.input_tokens, 0),
        }
    }

    /// A sent call ended: `charged` takes the place of its reservation and its slot is free.
    fn exchange(&mut self, slot: usize, reservation: Reservation, charged: Cost, now: Timestamp) {
        self.recent.settled(reservation.cost.tokens(), charged.tokens(), reservation.granted);
        self.exchange_quotas(slot, &reservation, charged, now);
        let held = now.as_nanos().saturating_sub(reservation.granted.as_nanos());
        self.hold = self.hold - self.hold / 8 + held / 8;
        self.free(slot, reservation.cost);
    }

    fn exchange_quotas(&mut self, slot: usize, reservation: &Reservation, charged: Cost, now: Timestamp) {
        if !self.config.enabled || charged == reservation.cost {
            return;
        }
        self.quotas.settle(reservation.cost, charged, now);
        let model = &mut self.models[slot];
        if let Some(own) = model.limits.as_mut().filter(|own| own.edition == reservation.own) {
            own.quotas.settle(reservation.cost, charged, now);
        }
        if let Some(seen) = model.observed.as_mut().filter(|seen| seen.edition == reservation.observed) {
            seen.quotas.settle(reservation.cost, charged, now);
        }
    }

    fn free(&mut self, slot: usize, reserved: Cost) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.models[slot].release(reserved);
    }
}

fn quarter(limit: Option<u64>) -> u64 {
    limit.map_or(u64::MAX, |limit| limit / 4)
}

fn larger(a: Cost, b: Cost) -> Cost {
    Cost::of_call(a.input.max(b.input), a.output.max(b.output))
}

#[cfg(test)]
mod tests;
