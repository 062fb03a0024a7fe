//! What is known of one model: limits of its own, what the provider's headers showed, pauses, and how much it writes.

use std::time::Duration;

use crate::bucket::TokenBucket;
use crate::{Dimension, HintedQuota, Timestamp};

use super::quota::{Cost, Quotas};

/// Output assumed of a model nobody has seen answer.
pub(crate) const OUTPUT_UNKNOWN: u64 = 1_024;

/// A provider's header is believed this long after the last one that said so. Longer than any minute's window, short
/// enough that a raised tier is noticed.
pub(crate) const OBSERVED_FOR: Duration = Duration::from_secs(300);

/// One model of a provider.
#[derive(Debug, Default)]
pub(crate) struct ModelState {
    pub(crate) limits: Option<Box<Own>>,
    pub(crate) observed: Option<Box<Observed>>,
    pub(crate) max_concurrent: Option<u32>,
    pub(crate) in_flight: u32,
    /// What the calls in flight have reserved.
    pub(crate) reserved: Cost,
    /// Throttled until then.
    pub(crate) paused_until: Timestamp,
    /// Its own quota is spent until then.
    pub(crate) blocked_until: Timestamp,
    /// Mean output lately, in sixteenths of a token, once something is known.
    learned: Option<u64>,
}

/// Configured limits, and which edition of them: a reservation is settled only with the buckets it was taken from.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) quotas: Quotas,
    pub(crate) edition: u32,
}

/// Limits read from the provider's headers.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) quotas: Quotas,
    pub(crate) edition: u32,
    pub(crate) expires: Timestamp,
}

impl ModelState {
    /// Learns from an answer of `output` tokens. An exponential mean over about the last eight answers: recent enough
    /// to follow a change of prompts, long enough not to swing with one answer.
    pub(crate) fn learn(&mut self, output: u64) {
        let sample = output.min(u64::MAX >> 5) << 4;
        self.learned = Some(match self.learned {
            None => sample,
            Some(mean) if sample >= mean => mean + (sample - mean) / 8,
            Some(mean) => mean - (mean - sample) / 8,
        });
    }

    /// The output expected of the next answer.
    pub(crate) fn expected_output(&self) -> u64 {
        self.learned.map_or(OUTPUT_UNKNOWN, |mean| mean.div_ceil(16))
    }

    /// The tightest tokens per minute of its own, for the bound on guesses.
    pub(crate) fn token_limit(&self) -> Option<u64> {
        self.limits.as_ref().and_then(|own| own.quotas.limit(Dimension::Tokens))
    }

    /// Could `cost` go now, as far as this model is concerned?
    pub(crate) fn fits(&mut self, cost: Cost, now: Timestamp) -> bool {
        if self.paused_until > now || self.max_concurrent.is_some_and(|most| self.in_flight >= most) {
            return false;
        }
        if self.observed.as_ref().is_some_and(|observed| observed.expires <= now) {
            self.observed = None;
        }
        self.limits.as_mut().is_none_or(|own| own.quotas.fits(cost, now))
            && self.observed.as_mut().is_none_or(|observed| observed.quotas.fits(cost, now))
    }

    /// When it could go, if time alone decides; `None` if a slot must be freed first.
    pub(crate) fn available(&self, cost: Cost) -> Option<(Timestamp, Dimension)> {
        if self.max_concurrent.is_some_and(|most| self.in_flight >= most) {
            return None;
        }
        let mut latest = (self.paused_until, Dimension::Requests);
        if let Some(own) = &self.limits {
            latest = later(latest, own.quotas.available(cost));
        }
        if let Some(observed) = &self.observed {
            let (at, dimension) = observed.quotas.available(cost);
            // A limit that is no longer believed by then no longer holds.
            latest = later(latest, (at.min(observed.expires), dimension));
        }
        Some(latest)
    }

    /// The quotas in force, for a rehearsal.
    pub(crate) fn rehearsal(&self) -> [Quotas; 2] {
        [
            self.limits.as_ref().map(|own| own.quotas).unwrap_or_default(),
            self.observed.as_ref().map(|observed| observed.quotas).unwrap_or_default(),
        ]
    }

    pub(crate) fn take(&mut self, cost: Cost) {
        self.in_flight = self.in_flight.saturating_add(1);
        self.reserved = self.reserved.plus(cost);
        if let Some(own) = &mut self.limits {
            own.quotas.take(cost);
        }
        if let Some(observed) = &mut self.observed {
            observed.quotas.take(cost);
        }
    }

    /// Follows what the headers showed of one dimension. `fresh` is a bucket of the observed limit, used when there is
    /// none of that size yet; without `surprising` news nothing new is watched.
    pub(crate) fn observe(
        &mut self,
        dimension: Dimension,
        hint: HintedQuota,
        fresh: TokenBucket,
        surprising: bool,
        edition: &mut u32,
        now: Timestamp,
    ) {
        let known = self.observed.as_ref().filter(|observed| observed.expires > now);
        let watched = known.is_some_and(|observed| observed.quotas.bucket(dimension).is_some());
        if !watched && !surprising {
            return;
        }
        if known.is_none() {
            *edition = edition.wrapping_add(1).max(1);
            let quotas = Quotas::default();
            self.observed = Some(Box::new(Observed { quotas, edition: *edition, expires: now }));
        }
        let in_flight = match dimension {
            Dimension::Requests => u64::from(self.in_flight),
            Dimension::InputTokens => self.reserved.input,
            Dimension::OutputTokens => self.reserved.output,
            _ => self.reserved.tokens(),
        };
        let Some(observed) = &mut self.observed else { return };
        observed.expires = now + OBSERVED_FOR;
        let Some(bucket) = observed.quotas.bucket_or_insert(dimension, fresh) else { return };
        bucket.refill(now);
        if bucket.limit() != fresh.limit() {
            *bucket = fresh;
        }
        if let Some(remaining) = hint.remaining {
            bucket.lower_to(remaining);
            bucket.raise_to(remaining.saturating_sub(in_flight));
        }
    }

    /// A call of this model ended or was never sent: its slot is free.
    pub(crate) fn release(&mut self, reserved: Cost) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.reserved.input = self.reserved.input.saturating_sub(reserved.input);
        self.reserved.output = self.reserved.output.saturating_sub(reserved.output);
    }
}

fn later(a: (Timestamp, Dimension), b: (Timestamp, Dimension)) -> (Timestamp, Dimension) {
    if b.0 > a.0 { b } else { a }
}
