//! When: the earliest moment at which a call could go, alone or behind others.

use std::time::Duration;

use super::{Cost, Load, RateLimiter};
use crate::{Dimension, Timestamp};

impl RateLimiter {
    /// When `cost` could go if time alone decides and nobody else took; `None` if a slot must be freed first.
    pub(crate) fn available(&self, slot: usize, cost: Cost) -> Option<(Timestamp, Dimension)> {
        if self.max_in_flight().is_some_and(|most| self.in_flight >= most) {
            return None;
        }
        let (model_at, model_for) = self.models[slot].available(cost)?;
        let mut latest = self.quotas.available(cost);
        let paced = self.pace.as_ref().map_or(Timestamp::ZERO, |pace| pace.when(1));
        let others =
            [(self.paused_until, self.paused_for), (model_at, model_for), (paced, Dimension::Requests)];
        for other in others {
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

    /// When a newcomer for `slot` would be served behind those already waiting, and what it would wait for. `ahead` is
    /// what stands in front of it for the provider's limits, `ahead_own` for those of its own model. Slots are taken to
    /// be free: when calls in flight will end is not known, so this is the earliest moment.
    ///
    /// Each bucket is charged the whole sum at once, as a debt it works off: exact while one limit binds, and otherwise
    /// rather too early than too late. It costs the same however many wait.
    pub(crate) fn served_at(
        &self,
        slot: usize,
        load: Load,
        ahead: Load,
        ahead_own: Load,
        now: Timestamp,
    ) -> (Timestamp, Dimension) {
        let mut last = (now.max(self.paused_until), self.paused_for);
        let cost = load.reserve;
        let model = &self.models[slot];
        let mut all = self.quotas.clone();
        all.fits(cost, now);
        all.foresee(ahead, load, self.due, self.hold);
        let [mut own, mut observed] = model.rehearsal();
        for quotas in [&mut own, &mut observed] {
            quotas.fits(cost, now);
            quotas.foresee(ahead_own, load, model.due, self.hold);
        }
        let paused = (model.paused_until, Dimension::Requests);
        for other in [paused, all.available(cost), own.available(cost), observed.available(cost)] {
            if other.0 > last.0 {
                last = other;
            }
        }
        if let Some(pace) = &self.pace {
            let at = pace.when(ahead.reserve.requests.saturating_add(1));
            if at > last.0 {
                last = (at, Dimension::Requests);
            }
        }
        last
    }

    /// The same call by call, and so exact, where nothing is charged or given back later. `ahead` and `ahead_own` in the
    /// order of service.
    pub(crate) fn rehearse(
        &self,
        slot: usize,
        cost: Cost,
        ahead: impl Iterator<Item = Cost>,
        ahead_own: impl Iterator<Item = Cost>,
        now: Timestamp,
    ) -> (Timestamp, Dimension) {
        let mut last = (now.max(self.paused_until), self.paused_for);
        let mut quotas = self.quotas.clone();
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

    /// Will calls in flight be charged or given back anything when they end, as far as is foreseen?
    pub(crate) fn charges_later(&self) -> bool {
        self.due != 0
    }

    /// Is quota expected to come back from calls in flight, earlier than it flows in?
    pub(crate) fn expects_returns(&self) -> bool {
        self.due < 0
    }

    /// Is every slot taken, the provider's or the model's?
    pub(crate) fn slots_taken(&self, slot: usize) -> bool {
        let model = &self.models[slot];
        self.max_in_flight().is_some_and(|most| self.in_flight >= most) || model.slots_taken()
    }

    /// When a slot for one more behind `ahead` waiters may be free, by how long calls lately took. A guess, for telling
    /// a caller when to come back; nobody is refused by it.
    pub(crate) fn slot_expected(&self, ahead: usize, now: Timestamp) -> Timestamp {
        let most = u64::from(self.max_in_flight().unwrap_or(1).max(1));
        let rounds = (ahead as u64 + 1).div_ceil(most);
        now + Duration::from_nanos(self.hold.saturating_mul(rounds).max(1))
    }
}
