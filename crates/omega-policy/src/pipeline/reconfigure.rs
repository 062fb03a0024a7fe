//! Another configuration for layers that run.

use super::{Pipeline, PipelineConfig};
use crate::queue::Waiter;
use crate::{ModelId, ModelLimits, Rejection, Ticket, Timestamp};

impl Pipeline {
    /// Goes on under `config`: what is counted, spent, owed, paused and learned stays, and so do calls in flight and those
    /// who wait. An equal configuration changes nothing.
    ///
    /// - A limit that changes keeps the level of its bucket; a new one begins with what the last minute has left of it.
    /// - An open circuit stays open, for no longer than the new open period. Another breaker scope begins closed.
    /// - Waiters that no longer fit any limit are refused; where there is more room now, they go at the next
    ///   [`Pipeline::poll_granted`].
    ///
    /// Limits of single models are given with [`Pipeline::limit_models`], after it.
    pub fn reconfigure(&mut self, config: PipelineConfig, now: Timestamp) {
        let now = self.tick(now);
        let PipelineConfig { breaker, limiter, retry } = config;
        self.budget.reconfigure(retry.budget.clone(), now);
        self.retry = retry;
        self.breakers.reconfigure(breaker, now, &mut self.events);
        self.queue.reconfigure(limiter.aging, limiter.lead());
        self.limiter.reconfigure(limiter, now);
        self.lease_buckets(now);
        self.refuse_impossible();
    }

    /// Exactly these models have limits of their own from now on; see [`Pipeline::limit_model`]. Those that had some keep
    /// the level of their buckets.
    pub fn limit_models(&mut self, limits: impl IntoIterator<Item = (ModelId, ModelLimits)>, now: Timestamp) {
        let now = self.tick(now);
        let limits: Vec<_> =
            limits.into_iter().map(|(model, limits)| (self.limiter.slot(model), limits)).collect();
        self.limiter.limit_models(&limits, now);
        self.lease_buckets(now);
        self.refuse_impossible();
    }

    /// Refuses waiters that are larger than a limit is now: they would wait for ever.
    fn refuse_impossible(&mut self) {
        let Self { queue, limiter, .. } = self;
        let too_large = |waiter: &Waiter| limiter.exceeded(waiter.slot, waiter.load.reserve);
        let lanes: Vec<usize> = queue.lanes().collect();
        let doomed: Vec<(Ticket, Rejection)> = lanes
            .into_iter()
            .flat_map(|slot| queue.lane(slot))
            .filter_map(|(ticket, waiter)| {
                let (dimension, limit, requested) = too_large(waiter)?;
                Some((ticket, Rejection::ExceedsCapacity { dimension, limit, requested }))
            })
            .collect();
        limiter.refused_total += doomed.len() as u64;
        doomed.into_iter().for_each(|(ticket, why)| queue.refuse(ticket, why));
    }
}
