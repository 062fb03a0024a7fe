//! Follows what the provider's headers say of its quota.

use super::model::News;
use super::{HintedQuota, QuotaHint, RateLimiter, Reservation};
use crate::bucket::TokenBucket;
use crate::event::Events;
use crate::{Dimension, Event, Timestamp};

impl RateLimiter {
    /// Follows the provider's headers; see [`QuotaHint`].
    ///
    /// `reservation`: of the call whose answer carried them. What was taken after it is not in the provider's count.
    pub(crate) fn handle_hint(
        &mut self,
        slot: usize,
        reservation: &Reservation,
        hint: &QuotaHint,
        now: Timestamp,
        events: &mut Events,
    ) {
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
                self.follow(slot, reservation, dimension, hinted, now);
            }
        }
    }

    fn follow(
        &mut self,
        slot: usize,
        reservation: &Reservation,
        dimension: Dimension,
        hint: HintedQuota,
        now: Timestamp,
    ) {
        let configured = self.quotas.limit(dimension);
        // Without a limit from either side there is nothing to pace by.
        let Some(limit) = hint.limit.into_iter().chain(configured).min() else { return };
        let tighter = configured.is_none_or(|configured| limit < configured);
        let margin = self.config.depth_margin;
        let model = &mut self.models[slot];
        let granted = reservation.granted;
        let moved = model.tide.get_or_insert_default().since(granted, dimension, now);
        let spent = match (hint.remaining, self.quotas.bucket_mut(dimension)) {
            (Some(remaining), Some(bucket)) => {
                bucket.refill(now);
                bucket.is_above(remaining, &moved)
            }
            _ => false,
        };
        let fresh = TokenBucket::new(limit, self.config.burst, margin, now);
        let surprising = tighter || spent;
        model.observe(
            dimension,
            News {
                hint,
                moved,
                fresh,
                surprising,
                learns: self.config.learn_burst && hint.limit == Some(limit),
                margin,
            },
            &mut self.edition,
            now,
        );
        // The provider-wide level may follow upward only where the header speaks of that very limit, and of all that
        // we send: with a second model in play, one model's remainder says nothing about the whole.
        if self.sole == Some(Some(slot)) && hint.limit.is_some() && hint.limit == configured {
            let in_flight = self.models[slot].in_flight_of(dimension);
            let may_raise = self.paused_until <= now;
            if let (Some(bucket), Some(remaining)) = (self.quotas.bucket_mut(dimension), hint.remaining)
                && bucket.is_leased()
            {
                // Of a quota that others spend too it says only how much there is for all of them at most.
                bucket.hear_remaining(remaining, now.saturating_since(granted).as_nanos() as u64, now);
                return;
            }
            if let (Some(bucket), Some(remaining)) = (self.quotas.bucket_mut(dimension), hint.remaining) {
                bucket.follow(remaining, &moved, in_flight, margin, may_raise);
                if let Some(reset) = hint.reset.filter(|_| self.config.learn_burst) {
                    bucket.learn_depth(remaining, reset, margin);
                }
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
}
