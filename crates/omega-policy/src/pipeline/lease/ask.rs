//! What a process asks the store for: of each limit what those wait for who are first, and a little to keep in hand.

use std::time::Duration;

use super::{HEARTBEAT, SAME};
use crate::breaker::Stand;
use crate::bucket::TokenBucket;
use crate::lease::LEASE_EXPIRY;
use crate::lease::borrower::Account;
use crate::limiter::Pool;
use crate::{BucketAsk, CircuitAsk, Dimension, Pause, Pipeline, SlotAsk, Timestamp, Turn};

/// At most this part of the depth, for each process.
const DEPTH_PART: f64 = 0.25;
/// So much of what is lately used is kept in hand, in seconds (`resilience.md` §6.3).
const HORIZON: f64 = 0.2;
/// The same while the fleet has half of its depth left or more, and nobody misses what is kept: asked for as often where
/// there is little to do as where there is much, a quota of 100 calls a second cost a store more than a script for each
/// call (`--example store`).
const HORIZON_PLENTY: f64 = 1.0;
/// A probe that is not sent within this goes back.
const PROBE_KEPT: Duration = Duration::from_secs(1);

/// What somebody waits for of one limit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Need {
    /// The largest of those who are first in their lines.
    pub(super) first: f64,
    /// All of it.
    pub(super) all: f64,
    /// How much longer the most patient waits, in seconds.
    pub(super) patience: f64,
}

impl Pipeline {
    /// What those who wait need of one limit.
    pub(super) fn need(&self, pool: Pool, dimension: Dimension, now: Timestamp) -> Need {
        let patience =
            self.queue.last_deadline().map_or(0.0, |last| last.saturating_since(now).as_secs_f64());
        let mut need = Need { patience, ..Need::default() };
        for (_, _, waiter) in self.queue.heads(now) {
            if pool.is_some_and(|model| model.0 as usize != waiter.slot) {
                continue;
            }
            let amount = waiter.load.of(dimension) as f64;
            need.first = need.first.max(amount);
            need.all += self.queue.waiting_in(waiter.slot).of(dimension) as f64;
        }
        need
    }

    pub(super) fn ask_buckets(&mut self, away: bool, rests: bool, now: Timestamp) -> Vec<BucketAsk> {
        let keys: Vec<(Pool, Dimension)> =
            self.limiter.buckets().map(|(pool, dimension, _)| (pool, dimension)).collect();
        let mut asks = Vec::with_capacity(keys.len());
        let mut weight: f64 = 0.0;
        let requests_pace = self.requests_pace(now);
        for (pool, dimension) in keys {
            let need = if self.queue.is_empty() { Need::default() } else { self.need(pool, dimension, now) };
            let used = self.limiter.used(pool, dimension);
            let Some(lease) = &mut self.lease else { break };
            let (members, busy) = (f64::from(lease.members.max(1)), lease.busy);
            let account = lease.account(pool, dimension);
            account.look(used, now);
            let Some(bucket) = self.limiter.bucket_mut(pool, dimension) else { continue };
            bucket.refill(now);
            if pool.is_none() && bucket.pace() > 0.0 {
                weight = weight.max((account.long_pace / bucket.pace()).min(1.0));
            }
            account.usual = usual(account, dimension, requests_pace);
            // One that does nothing keeps nothing that others might miss.
            let is_plenty = bucket.fleet_has(bucket.whole_depth() / 2.0, now);
            let is_idle = need.all <= 0.0 && !is_plenty && now.saturating_since(busy) > HEARTBEAT;
            account.target = if is_idle { 0.0 } else { target(account, bucket, members, is_plenty) };
            let ask = match (away, rests) {
                (true, _) => {
                    let used = (used - account.used_before).max(0.0);
                    let (owed, kept) = ((used - account.kept).max(0.0), (account.kept - used).max(0.0));
                    BucketAsk {
                        owed: account.owed + owed.min(bucket.whole_depth()),
                        returned: account.returned + kept,
                        ..told(pool, dimension, bucket, account, now)
                    }
                }
                (_, true) => {
                    account.owed += bucket.pass_debt();
                    account.returned += bucket.hand_back(0.0);
                    told(pool, dimension, bucket, account, now)
                }
                _ => ask(pool, dimension, bucket, account, need, now),
            };
            asks.push(ask);
        }
        if let Some(lease) = &mut self.lease {
            lease.weight = weight;
        }
        asks
    }

    /// Requests per second lately, for the size of a usual call.
    fn requests_pace(&mut self, now: Timestamp) -> f64 {
        let used = self.limiter.used(None, Dimension::Requests);
        let Some(lease) = &mut self.lease else { return 0.0 };
        // Kept beside the accounts of the limits: there may be none of requests.
        let account = lease.account(None, Dimension::Concurrency);
        account.look(used, now);
        account.pace
    }

    pub(super) fn ask_slots(&mut self, rests: bool, now: Timestamp) -> Vec<SlotAsk> {
        let waiting = self.queue.len();
        let lanes: Vec<(usize, usize)> =
            self.queue.lanes().map(|slot| (slot, self.queue.waiting_count(slot))).collect();
        let busy = self.lease.as_ref().is_some_and(|lease| now.saturating_since(lease.busy) < HEARTBEAT);
        let asks = self.limiter.slot_limits().map(|(pool, state)| {
            let waiting = match pool {
                None => waiting,
                Some(model) => lanes
                    .iter()
                    .find_map(|(slot, count)| (*slot == model.0 as usize).then_some(*count))
                    .unwrap_or(0),
            };
            let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
            let line = state.lease.is_some_and(|lease| lease.line);
            let spare = if line || !busy { 0 } else { 1 + state.in_flight / 4 };
            let want = state.in_flight.saturating_add(waiting).saturating_add(spare).min(state.limit);
            let want = if rests { 0 } else { want };
            SlotAsk { model: pool, limit: state.limit, in_flight: state.in_flight, want }
        });
        asks.collect()
    }

    pub(super) fn ask_pauses(&mut self, now: Timestamp) -> Vec<Pause> {
        let Some(lease) = &mut self.lease else { return Vec::new() };
        let mut news = Vec::new();
        for (pool, until, spent) in self.limiter.pauses(now) {
            let told = lease.told_pauses.entry((pool, spent)).or_default();
            if *told + SAME < until {
                *told = until;
                let seconds = until.saturating_since(now).as_secs_f64();
                news.push(Pause { model: pool, seconds, spent });
            }
        }
        news
    }

    pub(super) fn ask_circuits(&mut self, now: Timestamp) -> Vec<CircuitAsk> {
        let Some(lease) = &mut self.lease else { return Vec::new() };
        let mut asks = Vec::new();
        for (pool, circuit) in self.breakers.in_scope() {
            let stand = circuit.stand();
            let known = lease.circuits.get(&pool).copied().unwrap_or_default();
            if stand == Stand::Closed && known.turn == 0 {
                continue;
            }
            let in_flight = if let Stand::HalfOpen { probes } = stand { probes } else { 0 };
            let keeps = now.saturating_since(known.given) < PROBE_KEPT;
            let probes = if keeps { known.probes } else { in_flight.min(known.probes) };
            let turned = match known.turned(stand) {
                Some(Stand::Open { until }) => Some(Turn::Opened(until.saturating_since(now).as_secs_f64())),
                Some(_) => Some(Turn::Closed),
                None => None,
            };
            asks.push(CircuitAsk {
                model: pool,
                turn: known.turn,
                turned,
                probes,
                wants_probe: known.wanted && probes <= in_flight,
                max_probes: circuit.max_probes(),
            });
        }
        asks
    }
}

/// What a call lately took of a limit.
fn usual(account: &Account, dimension: Dimension, requests_pace: f64) -> f64 {
    match dimension {
        Dimension::Requests => 1.0,
        _ if requests_pace > 0.0 => account.pace / requests_pace,
        _ => 0.0,
    }
}

/// How much is kept in hand: what is used in a fifth of a second, or in a whole one where there is plenty, and at least one
/// usual call; nothing where that is more than a process may keep to itself. Then every call asks for exactly what it needs.
fn target(account: &Account, bucket: &TokenBucket, members: f64, is_plenty: bool) -> f64 {
    let horizon = if is_plenty { HORIZON_PLENTY } else { HORIZON };
    let most = bucket.whole_depth() * DEPTH_PART / members;
    if account.usual > most { 0.0 } else { (account.pace * horizon).max(account.usual).min(most) }
}

/// What is simply told of a limit.
fn told(
    pool: Pool,
    dimension: Dimension,
    bucket: &TokenBucket,
    account: &Account,
    now: Timestamp,
) -> BucketAsk {
    BucketAsk {
        model: pool,
        dimension,
        limit: bucket.limit() as f64,
        depth: bucket.whole_depth(),
        holding: if bucket.is_leased() { bucket.holding().max(0.0) } else { 0.0 },
        late: bucket.promised_after(now + LEASE_EXPIRY),
        owed: account.owed,
        returned: account.returned,
        want: 0.0,
        least: 0.0,
        patience: 0.0,
        at_most: None,
    }
}

/// What is asked of a limit: all that those wait for who are here, or what is to be kept in hand.
fn ask(
    pool: Pool,
    dimension: Dimension,
    bucket: &mut TokenBucket,
    account: &mut Account,
    need: Need,
    now: Timestamp,
) -> BucketAsk {
    account.owed += bucket.pass_debt();
    let target = account.target;
    let keep = match need.all > 0.0 && bucket.waits_in_vain(now) {
        // It is to be had at once: asked for anew.
        true => bucket.at_hand().max(0.0),
        false => need.all + 2.0 * target,
    };
    account.returned += bucket.hand_back(keep);
    let at_most = bucket.tell_at_most(now);
    let mut ask = BucketAsk { at_most, ..told(pool, dimension, bucket, account, now) };
    let holding = bucket.holding();
    if need.all > 0.0 {
        if need.all > holding && account.ask_at <= now {
            // Of what is plenty a little more, so that the next to wait for something else need not ask for it.
            let more = if bucket.fleet_has(need.all + target, now) { target } else { 0.0 };
            ask.want = (need.all + more - holding).ceil();
            let first = (need.first - holding).ceil();
            ask.least = if first > 0.0 { first } else { account.usual.ceil().clamp(1.0, ask.want) };
            ask.want = ask.want.max(ask.least);
            ask.patience = need.patience.min(1e9);
        }
    } else if bucket.at_hand() < target / 2.0 && account.stock_at <= now {
        ask.want = (target - holding).ceil().max(0.0);
    }
    ask
}
