//! When: the earliest moment at which a call could go, alone or behind others.

use std::time::Duration;

use super::{Cost, RateLimiter};
use crate::{Dimension, Timestamp};

impl RateLimiter {
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
}
