//! Fairness between tenants: virtual token counters.
//!
//! Each tenant has a counter of what it was served, divided by its weight, and the one with the lowest goes first. So
//! tenants that always wait are served equally by weight, however many calls each has in the queue, and whoever asks
//! for less than its part never waits behind those who ask for more. Source: Sheng et al., "Fairness in Serving Large
//! Language Models", OSDI 2024, arXiv 2401.00588.
//!
//! A tenant that comes back starts a little below the counter that was served last (its *virtual time*), so that a few
//! calls in a row do not wait for each other's turns; more idleness than that lead is not saved up, and neither is the
//! time in which a tenant waited and could not go. The gap in service between two tenants that can always go stays
//! within twice the largest call and the lead.
//!
//! Counters run only while somebody waits and begin anew when the queue has been empty: what nobody missed needs no
//! sharing.

use std::collections::HashMap;

use crate::TenantId;

/// Tenants told apart at most; what lies beyond shares the account of [`TenantId::NONE`]. Bounds memory, and the time a
/// forecast takes, when ids come from outside.
const TENANTS_MAX: u32 = 4_096;

/// Counters are in this part of a token, so that a weight divides even a single token without loss worth the name.
const SCALE: u64 = 1 << 20;

/// The largest weight.
pub(super) const WEIGHT_MAX: u32 = 1_000;

/// No call counts for more, however much its provider reports: a mistaken number must not shut a tenant out.
const SERVICE_MAX: u64 = 1 << 26;

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
    /// How many tenants wait.
    active: usize,
    period: u64,
    /// The counter of whoever was served last, before it was.
    virtual_time: u64,
    /// How far below the virtual time a tenant starts that comes back.
    lead: u64,
}

impl Tenants {
    /// `lead`: in tokens, how much a tenant that comes back may be served before the others are again.
    pub(super) fn new(lead: u64) -> Self {
        Self { lead: lead.saturating_mul(SCALE), ..Self::default() }
    }

    /// Where a tenant's account is kept.
    pub(super) fn slot(tenant: TenantId) -> u32 {
        if tenant.0 < TENANTS_MAX { tenant.0 } else { TenantId::NONE.0 }
    }

    /// A tenant's part. It holds for what is served from now on.
    pub(super) fn set_weight(&mut self, tenant: TenantId, weight: u32) {
        self.weights.insert(Self::slot(tenant), weight.clamp(1, WEIGHT_MAX));
    }

    /// See [`Tenants::new`]. Holds for those who come back from now on.
    pub(super) fn set_lead(&mut self, lead: u64) {
        self.lead = lead.saturating_mul(SCALE);
    }

    /// Somebody waits again after nobody did.
    pub(super) fn begin(&mut self) {
        self.period += 1;
        self.virtual_time = self.lead;
        self.accounts.clear();
    }

    /// Which busy period this is.
    pub(super) fn period(&self) -> u64 {
        self.period
    }

    /// One more waiter.
    pub(super) fn joined(&mut self, tenant: u32) {
        let counter = self.counter_on_joining(tenant);
        let account = self.accounts.entry(tenant).or_default();
        if account.waiting == 0 {
            (account.counter, account.period) = (counter, self.period);
            self.active += 1;
        }
        account.waiting += 1;
    }

    /// One waiter less.
    pub(super) fn left(&mut self, tenant: u32) {
        let Some(account) = self.accounts.get_mut(&tenant) else { return };
        account.waiting = account.waiting.saturating_sub(1);
        if account.waiting == 0 {
            self.active -= 1;
        }
    }

    /// A tenant is served `service` tokens.
    pub(super) fn serve(&mut self, tenant: u32, service: u64) {
        let counter = self.counter_on_joining(tenant);
        self.virtual_time = self.virtual_time.max(counter);
        // Whoever waited and could not go has saved up no more than one that did not wait.
        let from = counter.max(self.virtual_time.saturating_sub(self.lead));
        self.set(tenant, from.saturating_add(self.scaled(tenant, service)));
    }

    /// It cost so much instead of what it was counted for.
    pub(super) fn correct(&mut self, tenant: u32, counted: u64, charged: u64) {
        let counter = self.counter(tenant);
        let (more, less) = (charged.saturating_sub(counted), counted.saturating_sub(charged));
        let raised = counter.saturating_add(self.scaled(tenant, more));
        self.set(tenant, raised.saturating_sub(self.scaled(tenant, less)));
    }

    fn set(&mut self, tenant: u32, counter: u64) {
        let account = self.accounts.entry(tenant).or_default();
        (account.counter, account.period) = (counter, self.period);
    }

    /// What a tenant has had in this busy period.
    pub(super) fn counter(&self, tenant: u32) -> u64 {
        self.known(tenant).map_or_else(|| self.floor(), |account| account.counter)
    }

    /// What its counter will read once it waits.
    pub(super) fn counter_on_joining(&self, tenant: u32) -> u64 {
        match self.known(tenant) {
            Some(account) if account.waiting > 0 => account.counter,
            Some(account) => account.counter.max(self.floor()),
            None => self.floor(),
        }
    }

    fn known(&self, tenant: u32) -> Option<&Account> {
        self.accounts.get(&tenant).filter(|account| account.period == self.period)
    }

    fn floor(&self) -> u64 {
        self.virtual_time.saturating_sub(self.lead)
    }

    /// Does only one tenant wait, and is it this one?
    pub(super) fn is_only(&self, tenant: u32) -> bool {
        match self.active {
            0 => true,
            1 => self.known(tenant).is_some_and(|account| account.waiting > 0),
            _ => false,
        }
    }

    /// `service` on a tenant's counter.
    pub(super) fn scaled(&self, tenant: u32, service: u64) -> u64 {
        service.min(SERVICE_MAX) * SCALE / u64::from(self.weight(tenant))
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

    /// How many accounts there are.
    #[cfg(test)]
    pub(super) fn accounts(&self) -> usize {
        self.accounts.len()
    }
}
