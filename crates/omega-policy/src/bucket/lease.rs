//! A bucket of a quota that many processes share: it fills by leases, or, without the store, by a share.

use std::collections::VecDeque;

use super::{TokenBucket, UNITS};
use crate::Timestamp;

/// A forecast of what no lease has promised yet lies at least so far ahead: the store is asked meanwhile, and whoever
/// sleeps until then must not wake in vain time and again.
const UNPROMISED: u64 = 5_000_000;

/// Promised, and flowing in at the limit's pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flow {
    /// What has still to come, in units.
    amount: i128,
    /// From then on, in nanoseconds.
    from: u64,
    /// All of it comes at that moment.
    whole: bool,
}

/// What the fleet had is known for this long: two heartbeats.
const FRESH: u64 = 1_000_000_000;

/// What a bucket knows of its leases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lease {
    /// In the order of asking.
    flows: VecDeque<Flow>,
    /// What the fleet's bucket held, in units; negative: promised to others and us.
    fleet: i128,
    /// When it was so, in nanoseconds.
    fleet_as_of: u64,
    /// The provider has said that the fleet has no more than so many tokens, and when.
    at_most: Option<(u64, u64)>,
    /// Should the store hear of it at once?
    urgent: bool,
    /// By so many nanoseconds, in all, promises were put off when the store was last heard.
    put_off: u64,
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
    /// What has flowed in by `now`.
    pub(super) fn flow(&mut self, limit: u64, now: u64) -> i128 {
        let mut gained = 0;
        // Each by itself: where somebody has given back what stood between two of them, they overlap.
        for flow in self.flows.iter_mut().filter(|flow| flow.from <= now) {
            let most = i128::from(limit).saturating_mul((now - flow.from).into());
            let part = if flow.whole { flow.amount } else { most.min(flow.amount) };
            gained += part;
            flow.amount -= part;
            flow.from = now;
        }
        while self.flows.front().is_some_and(|flow| flow.amount == 0) {
            self.flows.pop_front();
        }
        gained
    }

    fn promised(&self) -> i128 {
        self.flows.iter().map(|flow| flow.amount).sum()
    }

    /// When `missing` units will have come. What is promised comes when it was promised; what is not, behind everything
    /// that the fleet was promised when it was last heard of.
    pub(super) fn when(&self, bucket: &TokenBucket, missing: i128) -> u64 {
        let (mut rest, mut by_then) = (missing, bucket.as_of);
        for flow in &self.flows {
            let wait = if flow.whole { 0 } else { span(rest.min(flow.amount), bucket.limit) };
            by_then = by_then.max(flow.from.saturating_add(wait));
            if rest <= flow.amount {
                return by_then;
            }
            rest -= flow.amount;
        }
        let since = bucket.as_of.saturating_sub(self.fleet_as_of);
        let there = self.fleet.saturating_add(i128::from(bucket.limit).saturating_mul(since.into()));
        let wait = span(rest.saturating_sub(there), bucket.limit).max(UNPROMISED);
        bucket.as_of.saturating_add(wait).max(by_then)
    }

    /// A 429 has emptied it, and nothing more comes before `from`: what was promised comes that much later.
    pub(super) fn drained(&mut self, tokens: u64, from: u64) {
        self.urgent = true;
        self.believe_at_most(tokens, from);
        self.hold_until(from);
    }

    fn hold_until(&mut self, from: u64) {
        let late = self.flows.front().map_or(0, |flow| from.saturating_sub(flow.from));
        self.flows.iter_mut().for_each(|flow| flow.from = flow.from.saturating_add(late));
    }

    fn believe_at_most(&mut self, tokens: u64, at: u64) {
        if self.at_most.is_none_or(|(known, _)| tokens <= known) {
            self.at_most = Some((tokens, at));
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
            self.as_of = self.as_of.min(now.as_nanos());
            self.lease = Some(Box::default());
        }
        self.rate = self.limit;
        self.set_brim();
    }

    /// Goes on by itself with `share` of the limit and of the depth. What it has leased stays its own if it `believes`
    /// in it; what was only promised does not.
    pub(crate) fn end_lease(&mut self, share: f64, believes: bool, now: Timestamp) {
        self.refill(now);
        let share = share.clamp(0.0, 1.0);
        if let Some(lease) = self.lease.take() {
            // Of what nobody had borrowed a moment ago its share is its own, too.
            let is_known = now.as_nanos().saturating_sub(lease.fleet_as_of) <= FRESH;
            let left = if is_known { (lease.fleet.clamp(0, self.depth) as f64 * share) as i128 } else { 0 };
            self.level = if believes { self.level.saturating_add(left) } else { self.level.min(0) };
        }
        // An hour of the largest limit is far below 2^127; what a double rounds off is nobody's share.
        self.rate = ((self.limit as f64 * share) as u64).clamp(self.limit.min(1), self.limit);
        self.capacity = ((self.depth as f64 * share) as i128).clamp(UNITS.min(self.depth), self.depth);
        self.level = self.level.min(self.capacity);
        self.set_brim();
    }

    /// The same for one process alone: it fills by itself.
    pub(crate) fn alone(&self) -> Self {
        if !self.is_shared() {
            return self.clone();
        }
        let mut alone = Self { rate: self.limit, capacity: self.depth, lease: None, ..self.clone() };
        alone.set_brim();
        alone
    }

    /// A grant has come.
    pub(crate) fn lend(&mut self, lent: Lent, now: Timestamp) {
        self.refill(now);
        let Some(lease) = &mut self.lease else { return };
        let amount = fraction(lent.amount);
        let ready = fraction(lent.ready).min(amount);
        self.level += ready;
        if amount > ready {
            let from = lent.starts.as_nanos();
            lease.flows.push_back(Flow { amount: amount - ready, from, whole: lent.whole });
        }
    }

    /// What the fleet's bucket holds now.
    pub(crate) fn hear_fleet(&mut self, tokens: f64, now: Timestamp) {
        if let Some(lease) = &mut self.lease {
            lease.fleet = if tokens < 0.0 { -fraction(-tokens) } else { fraction(tokens) };
            lease.fleet_as_of = now.as_nanos();
        }
    }

    /// Nothing that was promised comes before `from`.
    pub(crate) fn hold_until(&mut self, from: Timestamp) {
        if let Some(lease) = &mut self.lease {
            lease.hold_until(from.as_nanos());
        }
    }

    /// Debts have put off what was promised, by `in_all` seconds until now.
    pub(crate) fn put_off(&mut self, in_all: f64, now: Timestamp) {
        self.refill(now);
        let Some(lease) = &mut self.lease else { return };
        let in_all = (in_all.max(0.0) * 1e9) as u64;
        let later = in_all.saturating_sub(lease.put_off);
        lease.put_off = in_all;
        if later > 0 {
            let now = now.as_nanos();
            lease.flows.iter_mut().for_each(|flow| flow.from = flow.from.max(now).saturating_add(later));
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

    /// Could others have what is promised here later than now, because the fleet has it at hand? So it is when somebody
    /// has given back what was promised to him.
    pub(crate) fn waits_in_vain(&self, now: Timestamp) -> bool {
        let Some(lease) = &self.lease else { return false };
        let Some(first) = lease.flows.front() else { return false };
        first.from > now.as_nanos().saturating_add(UNPROMISED) && self.fleet_has(1.0, now)
    }

    /// Has the fleet so many tokens at hand, by what was last heard?
    pub(crate) fn fleet_has(&self, tokens: f64, now: Timestamp) -> bool {
        self.lease.as_ref().is_some_and(|lease| {
            let since = now.as_nanos().saturating_sub(lease.fleet_as_of);
            lease.fleet.saturating_add(i128::from(self.limit).saturating_mul(since.into()))
                >= fraction(tokens)
        })
    }

    /// Tokens that may be used now; negative: owed. Refill first.
    pub(crate) fn at_hand(&self) -> f64 {
        self.level as f64 / UNITS as f64
    }

    /// The same with what is promised.
    pub(crate) fn holding(&self) -> f64 {
        let promised = self.lease.as_ref().map_or(0, |lease| lease.promised());
        self.level.saturating_add(promised) as f64 / UNITS as f64
    }

    /// What is promised for later than `at`, in tokens.
    pub(crate) fn promised_after(&self, at: Timestamp) -> f64 {
        let Some(lease) = &self.lease else { return 0.0 };
        let at = at.as_nanos();
        let later = lease.flows.iter().map(|flow| {
            let by_then = match flow.whole {
                true if flow.from <= at => flow.amount,
                true => 0,
                false => i128::from(self.limit).saturating_mul(at.saturating_sub(flow.from).into()),
            };
            (flow.amount - by_then).max(0)
        });
        (later.sum::<i128>() / UNITS) as f64
    }

    /// Hands its debt over to the store, in tokens.
    pub(crate) fn pass_debt(&mut self) -> f64 {
        if self.level >= 0 || self.lease.is_none() {
            return 0.0;
        }
        let owed = self.level.unsigned_abs() as f64 / UNITS as f64;
        self.level = 0;
        owed
    }

    /// Gives back what it has beyond `keep` tokens: first what was promised last. Says how much, in tokens.
    pub(crate) fn hand_back(&mut self, keep: f64) -> f64 {
        let Some(lease) = &mut self.lease else { return 0.0 };
        let surplus = (self.level.saturating_add(lease.promised()) - fraction(keep)).max(0);
        let mut due = surplus;
        while let Some(last) = lease.flows.back_mut().filter(|_| due > 0) {
            let part = due.min(last.amount);
            last.amount -= part;
            due -= part;
            if last.amount == 0 {
                lease.flows.pop_back();
            }
        }
        let at_hand = due.min(self.level.max(0));
        self.level -= at_hand;
        (surplus - due + at_hand) as f64 / UNITS as f64
    }

    /// What is promised is not waited for any more. Says how much it was, in tokens.
    pub(crate) fn drop_promises(&mut self) -> f64 {
        let dropped = self.lease.as_mut().map_or(0, |lease| {
            let promised = lease.promised();
            lease.flows.clear();
            promised
        });
        dropped as f64 / UNITS as f64
    }

    /// What the provider has said there is at most, brought up to `now`; told once.
    pub(crate) fn tell_at_most(&mut self, now: Timestamp) -> Option<f64> {
        let lease = self.lease.as_mut()?;
        lease.urgent = false;
        let (tokens, at) = lease.at_most.take()?;
        let since = now.as_nanos().saturating_sub(at) as f64 / 1e9;
        Some(tokens as f64 + since * self.limit as f64 / 60.0)
    }

    /// Is there something to tell the store that should not wait?
    pub(crate) fn has_word(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.urgent)
    }

    /// A header said that the provider had `remaining` left, `ago` nanoseconds before `now`.
    pub(crate) fn hear_remaining(&mut self, remaining: u64, ago: u64, now: Timestamp) {
        if let Some(lease) = &mut self.lease {
            lease.believe_at_most(remaining, now.as_nanos().saturating_sub(ago));
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
