//! Requests, tokens and concurrency as one reservation.
//!
//! A call takes from every limit at once or from none, before it is sent and by what it is expected to cost; when it
//! ends the difference is settled, debts included. Nobody ever holds a part of what it needs, so nobody starves
//! another by waiting. Limits of single models stand inside the provider's and slow only their own model.
//!
//! The corners of the room: `config` (what can be set and seen), `quota` (the buckets of one scope), `model` (what is
//! known of one model), `settle` (what a reservation becomes), `headers` (what the provider says of its quota),
//! `forecast` (when a call could go), `pace` and `ease` (what 429s of an unknown quota and overload do to rate and
//! concurrency) and `recent` (what was sent in the last minute, for people). Who waits, and in what order, is `queue.rs`.

use std::time::Duration;

use crate::bucket::TokenBucket;
use crate::event::Events;
use crate::{Demand, Dimension, Event, ModelId, Timestamp};

pub use config::{
    ChargeRule, CountedTokens, HintedQuota, LimiterConfig, LimiterStats, ModelLimits, QuotaHint, TokenLimits,
};
use ease::Ease;
pub(crate) use lease::{Pool, SlotLease};
use model::ModelState;
use pace::Pace;
use quota::Quotas;
pub(crate) use quota::{Cost, Load};
use recent::Recent;
pub(crate) use tide::Moved;
use tide::Tide;

mod config;
mod ease;
mod forecast;
mod headers;
mod lease;
mod model;
mod pace;
mod quota;
mod recent;
mod reconfigure;
mod settle;
mod tide;

/// The limiter's half of a permit.
#[derive(Debug)]
pub(crate) struct Reservation {
    load: Load,
    granted: Timestamp,
    /// The editions of the model's buckets it was taken from; 0 is none.
    own: u32,
    observed: u32,
}

impl Reservation {
    /// When it was let go.
    pub(crate) fn granted(&self) -> Timestamp {
        self.granted
    }

    /// What it took and will have taken.
    pub(crate) fn load(&self) -> Load {
        self.load
    }

    /// What it took.
    pub(crate) fn cost(&self) -> Cost {
        self.load.reserve
    }

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

/// So much quota is in an emptied bucket when a pause ends. The provider's own has filled during the pause, at least
/// with what the throttled call needs (its hint says so), and hints are rounded up to whole seconds; but a bucket that
/// filled for a whole minute would let a storm loose.
const RESUMED: Duration = Duration::from_secs(2);

/// How long a call is assumed to take until one has ended. Only to tell a caller when to come back.
const HOLD_UNKNOWN: u64 = 1_000_000_000;

/// The limits of one credential of one provider.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    config: LimiterConfig,
    quotas: Quotas,
    /// What has moved lately.
    tide: Tide,
    /// Output tokens that calls in flight are expected to be charged beyond their reservations.
    due: i128,
    /// The rate found by trial where no limit is known.
    pace: Option<Pace>,
    /// Calls in flight while the provider says that it is overloaded.
    ease: Option<Ease>,
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
    /// What a request is worth in tokens, by the two limits: tokens per minute over requests per minute.
    request_worth: u64,
    edition: u32,
    recent: Recent,
    observed_limits: (Option<u64>, Option<u64>),
    told_low: (bool, bool),
    /// Mean time from grant to end, in nanoseconds.
    hold: u64,
    /// Calls that it is the mean of, up to a bound.
    ended: u64,
    /// Its part of the calls in flight, where these are shared with other processes.
    slot_lease: Option<SlotLease>,
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
        let roomy = match quotas.exceeded(Cost::of_call(0, 0), 1) {
            None if config.max_concurrent != Some(0) => Some(quotas.roomy()),
            _ => None,
        };
        let request_worth = request_worth(&quotas);
        Self {
            quotas,
            tide: Tide::default(),
            due: 0,
            pace: config.pace_unknown.then(|| Pace::new(now)),
            ease: config.ease_off.then(Ease::default),
            in_flight: 0,
            paused_until: Timestamp::ZERO,
            paused_for: Dimension::Requests,
            models: Vec::new(),
            sole: None,
            guess_max: quarter(limit),
            roomy,
            request_worth,
            edition: 0,
            recent: Recent::new(),
            observed_limits: (None, None),
            told_low: (false, false),
            hold: HOLD_UNKNOWN,
            ended: 0,
            slot_lease: None,
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

    /// What a call is expected to take.
    ///
    /// Output is reserved as the provider charges it in advance: by `max_tokens`, or by what this model lately wrote
    /// where a caller gave none; not at all where output counts only as it is written.
    pub(crate) fn estimate(&self, slot: usize, demand: Demand) -> Load {
        let input = demand.input_tokens;
        if self.config.counted == CountedTokens::InputOnly {
            return Load { reserve: Cost::of_call(input, 0), output: 0 };
        }
        let expected = self.models[slot].expected_output();
        let expected = demand.max_output_tokens.map_or(expected, |max| expected.min(max));
        match (self.config.charge, demand.max_output_tokens) {
            (ChargeRule::Estimate, Some(max)) => Load { reserve: Cost::of_call(input, max), output: max },
            (ChargeRule::EstimateThenRefund, Some(max)) => {
                Load { reserve: Cost::of_call(input, max), output: expected }
            }
            (ChargeRule::Actual, _) => Load { reserve: Cost::of_call(input, 0), output: expected },
            (ChargeRule::Estimate | ChargeRule::EstimateThenRefund, None) => {
                let guess = self.bounded_guess(slot, input, expected);
                Load { reserve: Cost::of_call(input, guess), output: guess }
            }
        }
    }

    /// A guess never makes a call impossible that the limits allow.
    fn bounded_guess(&self, slot: usize, input: u64, expected: u64) -> u64 {
        let model = &self.models[slot];
        let mut guess = expected.min(self.guess_max).min(quarter(model.token_limit()));
        for limit in [self.quotas.limit(Dimension::Tokens), model.token_limit()].into_iter().flatten() {
            guess = guess.min(limit.saturating_sub(input));
        }
        guess
    }

    /// What a call counts for between tenants: its tokens, or its part of the request limit if that is more.
    pub(crate) fn service(&self, load: Load) -> u64 {
        load.net().tokens().max(self.request_worth)
    }

    /// The limit that makes a call impossible, if there is one.
    pub(crate) fn exceeded(&self, slot: usize, cost: Cost) -> Option<(Dimension, u64, u64)> {
        // Nearly every call is far below every limit: one comparison says so.
        let small =
            self.roomy.is_some_and(|most| cost.tokens() <= most) && self.models[slot].limits.is_none();
        if small || !self.config.enabled {
            return None;
        }
        let own = || self.models[slot].limits.as_ref().and_then(|own| own.quotas.exceeded(cost, 1));
        let slots = (self.config.max_concurrent == Some(0) || self.models[slot].max_concurrent == Some(0))
            .then_some((Dimension::Concurrency, 0, 1));
        self.quotas.exceeded(cost, self.config.shares).or_else(own).or(slots)
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
                && self.max_in_flight().is_none_or(|most| self.in_flight < most)
                && self.pace.as_mut().is_none_or(|pace| pace.allows(now))
                && self.quotas.fits(cost, now))
    }

    /// Starts with a part of what another limiter has now.
    pub(crate) fn inherit(&mut self, whole: &mut Self, thousandths: u32, now: Timestamp) {
        self.quotas.inherit(&mut whole.quotas, thousandths, now);
        (self.paused_until, self.paused_for) = (whole.paused_until, whole.paused_for);
        for (slot, known) in whole.models.iter().enumerate() {
            if known.paused_until > now || known.blocked_until > now {
                self.slot(ModelId(slot as u32));
                let model = &mut self.models[slot];
                (model.paused_until, model.blocked_until) = (known.paused_until, known.blocked_until);
            }
        }
    }

    /// The cap on calls in flight: the configured one, or less while the provider is overloaded.
    pub(crate) fn max_in_flight(&self) -> Option<u32> {
        let eased = self.ease.as_ref().and_then(Ease::limit);
        let most = SlotLease::cap(self.slot_lease, self.config.max_concurrent);
        match (most, eased) {
            (Some(most), Some(eased)) => Some(most.min(eased)),
            (most, eased) => most.or(eased),
        }
    }

    /// Takes from every limit. Ask both `fits` first.
    pub(crate) fn take(&mut self, slot: usize, load: Load, now: Timestamp) -> Reservation {
        self.in_flight = self.in_flight.saturating_add(1);
        self.recent.sent(load.net().tokens(), now);
        if self.sole != Some(Some(slot)) {
            self.sole = Some(self.sole.is_none().then_some(slot));
        }
        self.tide.take(load.reserve, now);
        self.due += load.due();
        let model = &mut self.models[slot];
        let (mut own, mut observed) = (0, 0);
        if self.config.enabled {
            self.quotas.take(load.reserve);
            own = model.limits.as_ref().map_or(0, |own| own.edition);
            observed = model.observed.as_ref().map_or(0, |observed| observed.edition);
            if let Some(pace) = &mut self.pace {
                pace.take(now);
            }
        }
        model.take(load, now);
        Reservation { load, granted: now, own, observed }
    }

    /// A 429 although there was room by our own count: some bucket is not as deep as was thought. Ask before the
    /// reservation is settled.
    pub(crate) fn surprised(
        &mut self,
        reservation: &Reservation,
        exhausted: Option<Dimension>,
        now: Timestamp,
    ) {
        if self.config.enabled && self.config.learn_burst {
            let since = |dimension| self.tide.since(reservation.granted, dimension, now);
            self.quotas.surprised(reservation.load.reserve, exhausted, since, now);
        }
    }

    /// A 429: the bucket it names is emptied, and everything concerned is paused for as long as the provider asked.
    /// What fills the buckets meanwhile is little, so that traffic resumes paced and not as a second storm.
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
            self.models[slot].throttled(exhausted, until, &self.quotas, &mut self.edition, now);
            return;
        }
        if let Some(pace) = self.pace.as_mut().filter(|_| self.quotas.is_unlimited()) {
            pace.throttled(now);
        }
        if until > now && self.paused_until <= now {
            // Said when a pause begins; ten calls that were throttled together do not say it ten times.
            events.push(Event::Paused { until, at: now });
        }
        if until > self.paused_until {
            self.paused_until = until;
            self.paused_for = exhausted.unwrap_or(Dimension::Requests);
        }
        self.quotas.drain(exhausted, now, resumes(self.paused_until, now));
    }

    /// The provider says that it is overloaded: with `ease_off`, fewer calls at once.
    pub(crate) fn overloaded(&mut self, sent: Timestamp, now: Timestamp) {
        if let Some(ease) = self.ease.as_mut().filter(|_| self.config.enabled) {
            ease.overloaded(self.in_flight, sent, now);
        }
    }

    /// A call that was sent then is taken: its answer begins.
    pub(crate) fn begun(&mut self, sent: Timestamp, now: Timestamp) {
        if let Some(ease) = &mut self.ease {
            ease.taken(self.in_flight.saturating_sub(1), sent, now);
        }
    }

    /// A call that took `cost` was answered.
    pub(crate) fn answered(&mut self, cost: Cost) {
        self.quotas.went_through(cost);
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
            depths: (self.depth(Dimension::Requests), self.depth(Dimension::Tokens)),
            max_concurrent_now: self.max_in_flight(),
            ..LimiterStats::default()
        }
    }

    fn depth(&self, dimension: Dimension) -> Option<u64> {
        self.quotas.bucket(dimension).map(TokenBucket::depth)
    }

    fn free(&mut self, slot: usize, load: Load) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(lease) = &mut self.slot_lease {
            lease.freed(self.in_flight);
        }
        self.due -= load.due();
        self.models[slot].release(load);
    }
}

/// From when an emptied bucket fills again: [`RESUMED`] before the pause ends.
fn resumes(paused_until: Timestamp, now: Timestamp) -> Timestamp {
    Timestamp::from_nanos(paused_until.as_nanos().saturating_sub(RESUMED.as_nanos() as u64)).max(now)
}

fn request_worth(quotas: &Quotas) -> u64 {
    match (quotas.limit(Dimension::Requests), quotas.roomy()) {
        (Some(requests), tokens) if requests > 0 && tokens < u64::MAX => (tokens / requests).max(1),
        _ => 1,
    }
}

fn quarter(limit: Option<u64>) -> u64 {
    limit.map_or(u64::MAX, |limit| limit / 4)
}

#[cfg(test)]
mod tests;
