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

use crate::event::Events;
use crate::{Demand, Dimension, Event, ModelId, Timestamp};

pub use config::{
    ChargeRule, CountedTokens, HintedQuota, LimiterConfig, LimiterStats, ModelLimits, QuotaHint, TokenLimits,
};
use model::ModelState;
pub(crate) use quota::Cost;
use quota::Quotas;
use recent::Recent;

mod config;
mod forecast;
mod headers;
mod model;
mod quota;
mod recent;
mod settle;

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

    fn free(&mut self, slot: usize, reserved: Cost) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.models[slot].release(reserved);
    }
}

fn quarter(limit: Option<u64>) -> u64 {
    limit.map_or(u64::MAX, |limit| limit / 4)
}

#[cfg(test)]
mod tests;
