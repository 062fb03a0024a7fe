//! Fairness between tenants: virtual token counters.
//!
//! Each tenant has a counter of what it was served, divided by its weight, and the one with the lowest goes first. So
//! tenants that always wait are served equally by weight, however many calls each has in the queue, and whoever asks
//! for less than its part never waits behind those who ask for more. A tenant that comes back starts from the lowest
//! counter of those who wait: idleness is not saved up. Source: Sheng et al., "Fairness in Serving Large Language
//! Models", OSDI 2024, arXiv 2401.00588; the gap in service between two tenants that both wait stays within twice the
//! largest call.
//!
//! Counters run only while somebody waits and begin anew when the queue has been empty: what nobody missed needs no
//! sharing.

use std::collections::{BTreeSet, HashMap};

use crate::TenantId;

/// Tenants told apart at most; what lies beyond shares the account of [`TenantId::NONE`]. Bounds memory, and the time a
/// forecast takes, when ids come from outside.
const TENANTS_MAX: u32 = 4_096;

/// Counters are in this part of a token, so that weights up to it divide without being lost.
const SCALE: u64 = 1_024;

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    counter: u64,
    /// The busy period the counter belongs to.
    period: u64,
    waiting: usize,
}

/// The accounts of those who wait or were served while others waited.
#[derive(Debug, Default)]
pub(super) struct Tenants {
    accounts: HashMap<u32, Account>,
    weights: HashMap<u32, u32>,
    /// Who waits, by counter.
    active: BTreeSet<(u64, u32)>,
    period: u64,
}

impl Tenants {
    /// Where a tenant's account is kept.
    pub(super) fn slot(tenant: TenantId) -> u32 {
        if tenant.0 < TENANTS_MAX { tenant.0 } else { TenantId::NONE.0 }
    }

    pub(super) fn set_weight(&mut self, tenant: TenantId, weight: u32) {
        self.weights.insert(Self::slot(tenant), weight.max(1));
    }

    /// Somebody waits again after nobody did.
    pub(super) fn begin(&mut self) {
        self.period += 1;
        self.accounts.retain(|_, account| account.waiting > 0);
    }

    /// One more waiter.
    pub(super) fn joined(&mut self, tenant: u32) {
        let counter = self.counter_on_joining(tenant);
        let account = self.accounts.entry(tenant).or_default();
        if account.waiting == 0 {
            (account.counter, account.period) = (counter, self.period);
            self.active.insert((counter, tenant));
        }
        account.waiting += 1;
    }

    /// One waiter less.
    pub(super) fn left(&mut self, tenant: u32) {
        let Some(account) = self.accounts.get_mut(&tenant) else { return };
        account.waiting = account.waiting.saturating_sub(1);
        if account.waiting == 0 {
            self.active.remove(&(account.counter, tenant));
        }
    }

    /// Adds to a tenant's counter, or takes off what it was charged too much. `false`: it changed nothing.
    pub(super) fn charge(&mut self, tenant: u32, service: i64) -> bool {
        let change = self.scaled(tenant, service.unsigned_abs());
        let (counter, period) = (self.counter(tenant), self.period);
        let account = self.accounts.entry(tenant).or_default();
        let charged =
            if service >= 0 { counter.saturating_add(change) } else { counter.saturating_sub(change) };
        if account.waiting > 0 {
            self.active.remove(&(account.counter, tenant));
            self.active.insert((charged, tenant));
        }
        (account.counter, account.period) = (charged, period);
        charged != counter
    }

    /// What a tenant has had in this busy period.
    pub(super) fn counter(&self, tenant: u32) -> u64 {
        self.accounts
            .get(&tenant)
            .filter(|account| account.period == self.period)
            .map_or(0, |account| account.counter)
    }

    /// What its counter will read once it waits.
    pub(super) fn counter_on_joining(&self, tenant: u32) -> u64 {
        let account = self.accounts.get(&tenant);
        let counter = self.counter(tenant);
        if account.is_some_and(|account| account.waiting > 0) {
            return counter;
        }
        self.active.first().map_or(counter, |(least, _)| counter.max(*least))
    }

    /// How many accounts there are.
    #[cfg(test)]
    pub(super) fn known(&self) -> usize {
        self.accounts.len()
    }

    /// Is nobody else waiting?
    pub(super) fn is_only(&self, tenant: u32) -> bool {
        self.active.iter().all(|(_, each)| *each == tenant)
    }

    /// `service` on a tenant's counter.
    pub(super) fn scaled(&self, tenant: u32, service: u64) -> u64 {
        service.saturating_mul(SCALE) / u64::from(self.weight(tenant))
    }

    /// How much a tenant may be served until its counter reaches `turn`.
    pub(super) fn until(&self, tenant: u32, turn: u64) -> u64 {
        let room = u128::from(turn.saturating_sub(self.counter(tenant)));
        let service = room * u128::from(self.weight(tenant)) / u128::from(SCALE);
        u64::try_from(service).unwrap_or(u64::MAX)
    }

    fn weight(&self, tenant: u32) -> u32 {
        self.weights.get(&tenant).copied().unwrap_or(1)
    }
}
