//! The limiter's side of a shared quota: which limits there are, and what a process has of each.

use super::{RateLimiter, resumes};
use crate::bucket::TokenBucket;
use crate::{Dimension, ModelId, Timestamp};

/// A limit: the provider's or one model's.
pub(crate) type Pool = Option<ModelId>;

/// A process's part of a limit of calls in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlotLease {
    /// So many may be in flight here.
    pub(crate) allowed: u32,
    /// So many the store holds for this process.
    pub(crate) held: u32,
    /// Somebody has none and waits.
    pub(crate) line: bool,
    /// It was given fewer than it wanted: there are no more.
    pub(crate) short: bool,
    /// When the store was last asked.
    pub(crate) asked: Timestamp,
}

impl SlotLease {
    /// A call has ended. While somebody stands in line its slot is not used again here.
    pub(crate) fn freed(&mut self, in_flight: u32) {
        if self.line {
            self.allowed = self.allowed.min(in_flight);
        }
    }

    /// The cap that holds, with the lease if there is one.
    pub(crate) fn cap(lease: Option<Self>, most: Option<u32>) -> Option<u32> {
        match lease {
            Some(lease) => most.map(|most| most.min(lease.allowed)),
            None => most,
        }
    }
}

/// What is known of a limit of calls in flight.
pub(crate) struct SlotState<'a> {
    pub(crate) limit: u32,
    pub(crate) in_flight: u32,
    pub(crate) lease: &'a mut Option<SlotLease>,
}

impl RateLimiter {
    /// Every limit per minute.
    pub(crate) fn buckets_mut(&mut self) -> impl Iterator<Item = (Pool, Dimension, &mut TokenBucket)> {
        let is_on = self.config.enabled;
        let own = self.quotas.present_mut().map(|(dimension, bucket)| (None, dimension, bucket));
        let models = self.models.iter_mut().enumerate().filter_map(|(slot, model)| {
            let pool = Some(ModelId(slot as u32));
            let quotas = &mut model.limits.as_mut()?.quotas;
            Some(quotas.present_mut().map(move |(dimension, bucket)| (pool, dimension, bucket)))
        });
        own.chain(models.flatten()).filter(move |_| is_on)
    }

    /// The same, to be looked at.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (Pool, Dimension, &TokenBucket)> {
        let is_on = self.config.enabled;
        let own = self.quotas.present().map(|(dimension, bucket)| (None, dimension, bucket));
        let models = self.models.iter().enumerate().filter_map(|(slot, model)| {
            let pool = Some(ModelId(slot as u32));
            let quotas = &model.limits.as_ref()?.quotas;
            Some(quotas.present().map(move |(dimension, bucket)| (pool, dimension, bucket)))
        });
        own.chain(models.flatten()).filter(move |_| is_on)
    }

    /// One of them.
    pub(crate) fn bucket_mut(&mut self, pool: Pool, dimension: Dimension) -> Option<&mut TokenBucket> {
        match pool {
            None => self.quotas.bucket_mut(dimension),
            Some(model) => {
                self.models.get_mut(model.0 as usize)?.limits.as_mut()?.quotas.bucket_mut(dimension)
            }
        }
    }

    /// Every limit of calls in flight.
    pub(crate) fn slot_limits(&mut self) -> impl Iterator<Item = (Pool, SlotState<'_>)> {
        let is_on = self.config.enabled;
        let own = self
            .config
            .max_concurrent
            .map(|limit| (None, SlotState { limit, in_flight: self.in_flight, lease: &mut self.slot_lease }));
        let models = self.models.iter_mut().enumerate().filter_map(|(slot, model)| {
            let (limit, in_flight) = (model.max_concurrent?, model.in_flight);
            Some((Some(ModelId(slot as u32)), SlotState { limit, in_flight, lease: &mut model.slot_lease }))
        });
        own.into_iter().chain(models).filter(move |_| is_on)
    }

    /// The same, to be looked at: whose, the limit, those in flight, the part of it.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (Pool, u32, u32, Option<SlotLease>)> {
        let is_on = self.config.enabled;
        let own = self.config.max_concurrent.map(|limit| (None, limit, self.in_flight, self.slot_lease));
        let models = self.models.iter().enumerate().filter_map(|(slot, model)| {
            Some((Some(ModelId(slot as u32)), model.max_concurrent?, model.in_flight, model.slot_lease))
        });
        own.into_iter().chain(models).filter(move |_| is_on)
    }

    /// What was used of a limit in all; see [`Tide::used`](super::tide::Tide).
    pub(crate) fn used(&self, pool: Pool, dimension: Dimension) -> f64 {
        match pool {
            None => self.tide.used(dimension),
            Some(model) => {
                let tide = self.models.get(model.0 as usize).and_then(|model| model.tide.as_ref());
                tide.map_or(0.0, |tide| tide.used(dimension))
            }
        }
    }

    /// Are there no more slots for somebody here, by the last answer?
    pub(crate) fn is_short_of_slots(&self) -> bool {
        self.slots().any(|(_, limit, in_flight, slot)| {
            in_flight >= limit || slot.is_some_and(|slot| slot.short && in_flight >= slot.allowed)
        })
    }

    /// Calls in flight.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// When pauses end: the provider's and those of single models; and whether a model's own quota is spent.
    pub(crate) fn pauses(&self, now: Timestamp) -> impl Iterator<Item = (Pool, Timestamp, bool)> {
        let own = Some((None, self.paused_until, false));
        let models = self.models.iter().enumerate().flat_map(|(slot, model)| {
            let pool = Some(ModelId(slot as u32));
            [(pool, model.paused_until, false), (pool, model.blocked_until, true)]
        });
        own.into_iter().chain(models).filter(move |(_, until, _)| *until > now)
    }

    /// Another process was told to leave the provider, or one model, alone.
    pub(crate) fn heed_pause(&mut self, pool: Pool, until: Timestamp, spent: bool, now: Timestamp) {
        match pool {
            None if until > self.paused_until => {
                self.paused_until = until;
                let from = resumes(until, now);
                self.quotas.present_mut().for_each(|(_, bucket)| bucket.hold_until(from));
            }
            None => {}
            Some(model) => {
                let slot = self.slot(model);
                let model = &mut self.models[slot];
                if spent {
                    model.blocked_until = model.blocked_until.max(until);
                } else {
                    model.paused_until = model.paused_until.max(until);
                }
            }
        }
    }
}
