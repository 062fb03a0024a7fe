//! A bucket of a quota that many processes share: it fills by leases, or, without the store, by a share.

use super::{TokenBucket, UNITS, units};
use crate::Timestamp;

/// A forecast of what no lease has promised yet lies at least so far ahead: the store is asked meanwhile, and whoever
/// sleeps until then must not wake in vain time and again.
const UNPROMISED: u64 = 5_000_000;

/// What a bucket knows of its leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    /// Granted and still to flow in, in units.
    pub(super) inflow: i128,
    /// All of it comes at once, when the flow begins.
    whole: bool,
    /// The store said that what somebody waited for comes no earlier, in nanoseconds.
    not_before: u64,
    /// The provider has said that the fleet has no more than so many tokens; `u64::MAX`: nothing to tell.
    at_most: u64,
    /// When it was so, in nanoseconds.
    at_most_as_of: u64,
    /// Should the store hear of it at once?
    urgent: bool,
}

/// A grant, as the bucket takes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Lent {
    /// Tokens in all.
    pub(crate) amount: f64,
    /// Of them, usable now.
    pub(crate) ready: f64,
    /// When the rest begins to flow in.
    pub(crate) starts: Timestamp,
    /// The rest comes at once.
    pub(crate) whole: bool,
}

impl Lease {
    const NONE: Self =
        Self { inflow: 0, whole: false, not_before: 0, at_most: u64::MAX, at_most_as_of: 0, urgent: false };

    /// What flows in within `elapsed` nanoseconds at `limit`.
    pub(super) fn flow(&mut self, limit: u64, elapsed: u64) -> i128 {
        if self.inflow == 0 {
            return 0;
        }
        let most = if self.whole { self.inflow } else { i128::from(limit).saturating_mul(elapsed.into()) };
        let gained = most.min(self.inflow);
        self.inflow -= gained;
        gained
    }

    /// How long until `missing` units have come, in nanoseconds from the bucket's moment. What is promised comes at the
    /// limit's pace, and so would one call by itself; those before it only as fast as this process is expected to get on.
    pub(super) fn wait(&self, bucket: &TokenBucket, missing: i128, amount: u64) -> u64 {
        let promised = missing.min(self.inflow);
        let rest = missing - promised;
        let flows = if self.whole { 1 } else { span(promised, bucket.limit) };
        if rest <= 0 {
            return flows;
        }
        let own = rest.min(units(amount));
        let wait = flows
            .saturating_add(span(own, bucket.limit))
            .saturating_add(span(rest - own, bucket.rate))
            .max(UNPROMISED);
        wait.max(self.not_before.saturating_sub(bucket.as_of))
    }

    /// A 429 has emptied it.
    pub(super) fn drained(&mut self, tokens: u64, at: Timestamp) {
        (self.inflow, self.urgent) = (0, true);
        self.believe_at_most(tokens, at);
    }

    fn believe_at_most(&mut self, tokens: u64, at: Timestamp) {
        if tokens <= self.at_most {
            (self.at_most, self.at_most_as_of) = (tokens, at.as_nanos());
        }
    }
}

impl TokenBucket {
    /// Fills by leases from now on, and begins with nothing.
    pub(crate) fn begin_lease(&mut self, now: Timestamp) {
        self.refill(now);
        if self.lease.is_none() {
            // What was owed has been told.
            self.level = 0;
            self.capacity = self.depth;
            self.lease = Some(Lease::NONE);
        }
        self.rate = self.limit;
        self.set_brim();
    }

    /// Goes on by itself with `share` of the limit and of the depth. What it has leased stays its own if it `believes`
    /// in it.
    pub(crate) fn end_lease(&mut self, share: f64, believes: bool, now: Timestamp) {
        self.refill(now);
        if self.lease.take().is_some() && !believes {
            self.level = self.level.min(0);
        }
        let share = share.clamp(0.0, 1.0);
        // An hour of the largest limit is far below 2^127; what a double rounds off is nobody's share.
        self.rate = ((self.limit as f64 * share) as u64).clamp(self.limit.min(1), self.limit);
        self.capacity = ((self.depth as f64 * share) as i128).clamp(UNITS.min(self.depth), self.depth);
        self.level = self.level.min(self.capacity);
        self.set_brim();
    }

    /// A grant has come.
    pub(crate) fn lend(&mut self, lent: Lent, now: Timestamp) {
        self.refill(now);
        let Some(lease) = &mut self.lease else { return };
        let (amount, ready) = (fraction(lent.amount), fraction(lent.ready));
        self.level += ready.min(amount);
        if lease.inflow == 0 {
            self.as_of = self.as_of.max(lent.starts.as_nanos());
            lease.whole = lent.whole;
        }
        lease.inflow += (amount - ready).max(0);
        lease.not_before = 0;
    }

    /// Nothing was granted: what somebody waits for comes no earlier.
    pub(crate) fn not_before(&mut self, at: Timestamp) {
        if let Some(lease) = &mut self.lease {
            lease.not_before = at.as_nanos();
        }
    }

    /// How fast it is expected to get on, in tokens per second: at least a share, at most the limit.
    pub(crate) fn expect(&mut self, per_second: f64) {
        if self.lease.is_some() {
            self.rate = ((per_second * 60.0) as u64).clamp(self.limit.min(1), self.limit);
        }
    }

    /// Does it fill by leases?
    pub(crate) fn is_leased(&self) -> bool {
        self.lease.is_some()
    }

    /// Is it one process's part of something larger?
    pub(super) fn is_shared(&self) -> bool {
        self.lease.is_some() || self.rate != self.limit
    }

    /// Is something promised that has not come yet?
    pub(crate) fn awaits_flow(&self) -> bool {
        self.lease.is_some_and(|lease| lease.inflow > 0)
    }

    /// Tokens that may be used now; negative: owed. Refill first.
    pub(crate) fn at_hand(&self) -> f64 {
        self.level as f64 / UNITS as f64
    }

    /// The same with what is promised.
    pub(crate) fn holding(&self) -> f64 {
        let promised = self.lease.map_or(0, |lease| lease.inflow);
        (self.level.saturating_add(promised)) as f64 / UNITS as f64
    }

    /// Hands its debt over to the store, in whole tokens.
    pub(crate) fn pass_debt(&mut self) -> u64 {
        if self.level >= 0 || self.lease.is_none() {
            return 0;
        }
        let tokens = self.level.unsigned_abs().div_ceil(UNITS.unsigned_abs());
        let tokens = u64::try_from(tokens).unwrap_or(u64::MAX);
        self.level += units(tokens);
        tokens
    }

    /// Gives back what it has beyond `keep` tokens, in whole ones, promises last.
    pub(crate) fn hand_back(&mut self, keep: f64) -> u64 {
        let Some(lease) = &mut self.lease else { return 0 };
        let keep = fraction(keep);
        let surplus = (self.level + lease.inflow - keep).max(0) / UNITS * UNITS;
        let at_hand = surplus.min(self.level.max(0) / UNITS * UNITS);
        let promised = surplus - at_hand;
        self.level -= at_hand;
        lease.inflow -= promised;
        u64::try_from(surplus / UNITS).unwrap_or(u64::MAX)
    }

    /// What the provider has said there is at most, brought up to `now`; told once.
    pub(crate) fn tell_at_most(&mut self, now: Timestamp) -> Option<f64> {
        let lease = self.lease.as_mut()?;
        if lease.at_most == u64::MAX {
            return None;
        }
        let since = now.as_nanos().saturating_sub(lease.at_most_as_of) as f64 / 1e9;
        let tokens = lease.at_most as f64 + since * self.limit as f64 / 60.0;
        (lease.at_most, lease.urgent) = (u64::MAX, false);
        Some(tokens)
    }

    /// Is there something to tell the store that should not wait?
    pub(crate) fn has_word(&self) -> bool {
        self.lease.is_some_and(|lease| lease.urgent)
    }

    /// A header said that the provider had `remaining` left, `ago` nanoseconds before `now`.
    pub(crate) fn hear_remaining(&mut self, remaining: u64, ago: u64, now: Timestamp) {
        if let Some(lease) = &mut self.lease {
            let at = Timestamp::from_nanos(now.as_nanos().saturating_sub(ago));
            lease.believe_at_most(remaining, at);
        }
    }

    /// Tokens per second.
    pub(crate) fn pace(&self) -> f64 {
        self.limit as f64 / 60.0
    }

    /// How deep the whole quota is, in tokens.
    pub(crate) fn whole_depth(&self) -> f64 {
        self.depth as f64 / UNITS as f64
    }
}

/// Nanoseconds in which `amount` units flow in at `rate`, rounded up.
fn span(amount: i128, rate: u64) -> u64 {
    let amount = amount.max(0).unsigned_abs();
    u64::try_from(amount.div_ceil(u128::from(rate.max(1)))).unwrap_or(u64::MAX)
}

/// Tokens as units; nonsense is nothing.
fn fraction(tokens: f64) -> i128 {
    if tokens.is_finite() { (tokens.clamp(0.0, 1e18) * UNITS as f64) as i128 } else { 0 }
}
