//! What is known of one model: limits of its own, what the provider's headers showed, pauses, and how much it writes.

use std::time::Duration;

use crate::bucket::TokenBucket;
use crate::{Dimension, HintedQuota, Timestamp};

use super::lease::SlotLease;
use super::quota::{Cost, Load, Quotas, slot};
use super::resumes;
use super::tide::{Moved, Tide};

/// Output assumed of a model nobody has seen answer.
pub(crate) const OUTPUT_UNKNOWN: u64 = 1_024;

/// Answers that a mean is taken over. With 8 the simulator (long reasoning outputs, charged as written, twice the quota)
/// reached 92 % of the oracle, with 32 97 %, with 128 all of it.
const ANSWERS: u64 = 128;

/// A provider's header is believed this long after the last one that said so. Longer than any minute's window, short
/// enough that a raised tier is noticed.
pub(crate) const OBSERVED_FOR: Duration = Duration::from_secs(300);

/// One model of a provider.
#[derive(Debug, Default)]
pub(crate) struct ModelState {
    pub(crate) limits: Option<Box<Own>>,
    pub(crate) observed: Option<Box<Observed>>,
    pub(crate) max_concurrent: Option<u32>,
    /// Its part of them, where they are shared with other processes.
    pub(crate) slot_lease: Option<SlotLease>,
    pub(crate) in_flight: u32,
    /// What the calls in flight have reserved.
    pub(crate) reserved: Cost,
    /// What calls of this model have moved lately; there once one was let go.
    pub(crate) tide: Option<Box<Tide>>,
    /// Output tokens that the calls in flight are expected to be charged beyond their reservations.
    pub(crate) due: i128,
    /// Throttled until then.
    pub(crate) paused_until: Timestamp,
    /// Its own quota is spent until then.
    pub(crate) blocked_until: Timestamp,
    /// Mean output lately, in 4,096ths of a token, once something is known.
    learned: Option<u64>,
    /// Answers it is the mean of, up to a bound.
    answers: u64,
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
    /// Until when each of them is believed. Each by itself: headers that go on about requests say nothing about a
    /// token limit that was shown once.
    until: [Timestamp; 4],
}

/// What a header showed of one dimension.
pub(crate) struct News {
    pub(crate) hint: HintedQuota,
    /// What has moved since the call that it answers was let go.
    pub(crate) moved: Moved,
    /// A bucket of the limit it showed, used when none is watched yet.
    pub(crate) fresh: TokenBucket,
    /// Is it less than we thought? Without that nothing new is watched.
    pub(crate) surprising: bool,
    /// May a depth be learned: is it of that very limit?
    pub(crate) learns: bool,
    /// Kept back when a level is raised or a depth is learned.
    pub(crate) margin: Duration,
}

impl Observed {
    /// Nothing yet, in a new edition.
    fn new(edition: &mut u32) -> Box<Self> {
        *edition = edition.wrapping_add(1).max(1);
        Box::new(Self { quotas: Quotas::default(), edition: *edition, until: [Timestamp::ZERO; 4] })
    }
}

impl ModelState {
    /// Learns from an answer of `output` tokens: the mean of the first [`ANSWERS`], then an exponential one over about as
    /// many. Lengths scatter widely, and a forecast that follows the last few answers is mostly noise.
    pub(crate) fn learn(&mut self, output: u64) {
        let sample = output.min(u64::MAX >> 13) << 12;
        self.answers = (self.answers + 1).min(ANSWERS);
        let mean = self.learned.unwrap_or(sample);
        self.learned = Some(if sample >= mean {
            mean + (sample - mean) / self.answers
        } else {
            mean - (mean - sample) / self.answers
        });
    }

    /// The output expected of the next answer.
    pub(crate) fn expected_output(&self) -> u64 {
        self.learned.map_or(OUTPUT_UNKNOWN, |mean| mean.div_ceil(1 << 12))
    }

    /// The tightest tokens per minute of its own, for the bound on guesses.
    pub(crate) fn token_limit(&self) -> Option<u64> {
        self.limits.as_ref().and_then(|own| own.quotas.limit(Dimension::Tokens))
    }

    /// Could `cost` go now, as far as this model is concerned?
    pub(crate) fn fits(&mut self, cost: Cost, now: Timestamp) -> bool {
        if self.paused_until > now || self.slots_taken() {
            return false;
        }
        if let Some(observed) = &mut self.observed
            && !observed.quotas.expire(&observed.until, now)
        {
            self.observed = None;
        }
        self.limits.as_mut().is_none_or(|own| own.quotas.fits(cost, now))
            && self.observed.as_mut().is_none_or(|observed| observed.quotas.fits(cost, now))
    }

    /// Is every slot of its own taken?
    pub(crate) fn slots_taken(&self) -> bool {
        SlotLease::cap(self.slot_lease, self.max_concurrent).is_some_and(|most| self.in_flight >= most)
    }

    /// When it could go, if time alone decides; `None` if a slot must be freed first.
    pub(crate) fn available(&self, cost: Cost) -> Option<(Timestamp, Dimension)> {
        if self.slots_taken() {
            return None;
        }
        let mut latest = (self.paused_until, Dimension::Requests);
        if let Some(own) = &self.limits {
            latest = later(latest, own.quotas.available(cost));
        }
        if let Some(observed) = &self.observed {
            // A limit that is no longer believed by then no longer holds.
            latest = later(latest, observed.quotas.available_while(cost, &observed.until));
        }
        Some(latest)
    }

    /// The quotas in force, for a rehearsal.
    pub(crate) fn rehearsal(&self) -> [Quotas; 2] {
        [
            self.limits.as_ref().map(|own| own.quotas.clone()).unwrap_or_default(),
            self.observed.as_ref().map(|observed| observed.quotas.clone()).unwrap_or_default(),
        ]
    }

    pub(crate) fn take(&mut self, load: Load, now: Timestamp) {
        let cost = load.reserve;
        self.in_flight = self.in_flight.saturating_add(1);
        self.reserved = self.reserved.plus(cost);
        self.tide.get_or_insert_default().take(cost, now);
        self.due += load.due();
        if let Some(own) = &mut self.limits {
            own.quotas.take(cost);
        }
        if let Some(observed) = &mut self.observed {
            observed.quotas.take(cost);
        }
    }

    /// Follows what the headers showed of one dimension.
    pub(crate) fn observe(&mut self, dimension: Dimension, news: News, edition: &mut u32, now: Timestamp) {
        let News { hint, moved, fresh, surprising, learns, margin } = news;
        let Some(place) = slot(dimension) else { return };
        if let Some(observed) = &mut self.observed
            && !observed.quotas.expire(&observed.until, now)
        {
            self.observed = None;
        }
        let watched =
            self.observed.as_ref().is_some_and(|observed| observed.quotas.bucket(dimension).is_some());
        if !watched && !surprising {
            return;
        }
        let in_flight = self.in_flight_of(dimension);
        let paused = self.paused_until > now;
        let observed = self.observed.get_or_insert_with(|| Observed::new(edition));
        observed.until[place] = now + OBSERVED_FOR;
        let Some(bucket) = observed.quotas.bucket_or_insert(dimension, fresh.clone()) else { return };
        bucket.refill(now);
        if bucket.limit() != fresh.limit() {
            bucket.resize(&fresh);
        }
        if let Some(remaining) = hint.remaining {
            // That it is watched says that others spend the same quota, or that it is less than was configured: what has
            // flowed in since the count may be gone already.
            let moved = Moved { elapsed: Duration::ZERO, ..moved };
            bucket.follow(remaining, &moved, in_flight, margin, !paused);
            if let Some(reset) = hint.reset.filter(|_| learns) {
                bucket.learn_depth(remaining, reset, margin);
            }
        }
    }

    /// What the calls in flight have reserved of one dimension.
    pub(crate) fn in_flight_of(&self, dimension: Dimension) -> u64 {
        match dimension {
            Dimension::Requests => u64::from(self.in_flight),
            Dimension::InputTokens => self.reserved.input,
            Dimension::OutputTokens => self.reserved.output,
            _ => self.reserved.tokens(),
        }
    }

    /// A 429 of this model alone: pauses it, and empties its buckets. One that has none of its own gets the provider's
    /// for a while, or everybody who waited for it would go at once when the pause ends.
    pub(crate) fn throttled(
        &mut self,
        exhausted: Option<Dimension>,
        until: Timestamp,
        provider: &Quotas,
        edition: &mut u32,
        now: Timestamp,
    ) {
        self.paused_until = self.paused_until.max(until);
        let from = resumes(self.paused_until, now);
        if let Some(own) = &mut self.limits {
            own.quotas.drain(exhausted, now, from);
        }
        let observed = self.observed.get_or_insert_with(|| Observed::new(edition));
        observed.quotas.expire(&observed.until, now);
        observed.quotas.complete_from(provider);
        for until in &mut observed.until {
            *until = (*until).max(self.paused_until.max(now) + OBSERVED_FOR);
        }
        observed.quotas.drain(exhausted, now, from);
    }

    /// A call of this model ended or was never sent: its slot is free.
    pub(crate) fn release(&mut self, load: Load) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(lease) = &mut self.slot_lease {
            lease.freed(self.in_flight);
        }
        self.reserved = self.reserved.less(load.reserve);
        self.due -= load.due();
    }
}

fn later(a: (Timestamp, Dimension), b: (Timestamp, Dimension)) -> (Timestamp, Dimension) {
    if b.0 > a.0 { b } else { a }
}
