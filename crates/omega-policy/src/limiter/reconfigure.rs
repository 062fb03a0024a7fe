//! Other limits for a limiter that runs: what is spent stays spent.
//!
//! A limit that changes is no gift: the bucket takes the new limit and depth and keeps its level. A limit that was not
//! there before begins with what the last minute has left of it. So nobody gets quota by loading a configuration again
//! and again.

use super::ease::Ease;
use super::model::Own;
use super::pace::Pace;
use super::quota::{Cost, Quotas};
use super::{RateLimiter, quarter, request_worth};
use crate::{LimiterConfig, ModelLimits, Timestamp, TokenLimits};

impl RateLimiter {
    /// Goes on under `config`. Limits of single models follow with [`RateLimiter::limit_models`].
    pub(crate) fn reconfigure(&mut self, config: LimiterConfig, now: Timestamp) {
        if self.config == config {
            return;
        }
        let fresh =
            Quotas::new(config.requests_per_minute, config.tokens, config.burst, config.depth_margin, now);
        let (requests, tokens) = self.recent.totals(now);
        // What was sent while nothing was limited was taken from no bucket.
        let before = if self.config.enabled { self.quotas.clone() } else { Quotas::default() };
        let spent = Cost { requests, input: tokens, output: 0 };
        self.quotas = before.reconfigured(&fresh, spent, now);
        let limit = match config.tokens {
            TokenLimits::Total(limit) | TokenLimits::Split { output: limit, .. } => limit,
        };
        self.guess_max = quarter(limit);
        self.roomy = match self.quotas.exceeded(Cost::of_call(0, 0), 1) {
            None if config.max_concurrent != Some(0) => Some(self.quotas.roomy()),
            _ => None,
        };
        self.request_worth = request_worth(&self.quotas);
        if self.config.pace_unknown != config.pace_unknown {
            self.pace = config.pace_unknown.then(|| Pace::new(now));
        }
        if self.config.ease_off != config.ease_off {
            self.ease = config.ease_off.then(Ease::default);
        }
        self.config = config;
    }

    /// Exactly these models have limits of their own from now on.
    pub(crate) fn limit_models(&mut self, limits: &[(usize, ModelLimits)], now: Timestamp) {
        for slot in 0..self.models.len() {
            if !limits.iter().any(|(limited, _)| *limited == slot) {
                self.models[slot].limits = None;
                self.models[slot].max_concurrent = None;
            }
        }
        for (slot, limits) in limits {
            let (burst, margin) = (self.config.burst, self.config.depth_margin);
            let model = &mut self.models[*slot];
            match &mut model.limits {
                Some(own) => {
                    let Own { quotas, .. } = &mut **own;
                    let fresh = Quotas::of_model(limits, burst, margin, now);
                    *quotas = quotas.reconfigured(&fresh, Cost::of_call(0, 0), now);
                    model.max_concurrent = limits.max_concurrent;
                }
                None => self.limit_model(*slot, limits, now),
            }
        }
    }
}
