//! The process's side: what it holds and has told the store. What it asks for is decided in `pipeline/lease.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{BELIEVED, LeaseConfig, RESTING};
use crate::limiter::Pool;
use crate::{Dimension, Timestamp};

/// What is kept in hand follows the use of about so many seconds.
const USE_OVER: f64 = 1.0;
/// And the share of the quota without the store that of so many: what a process happened to do in the last second says
/// little about its next minutes.
const SHARE_OVER: f64 = 60.0;

/// The gap after the first failed question, and the longest one.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// A process takes itself to be forgotten so much earlier than the store forgets it.
const REST_MARGIN: Duration = Duration::from_secs(10);

/// Where a process stands towards the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has nothing to do and holds nothing.
    Apart,
    /// It fills its buckets by leases.
    Joined,
    /// The store cannot be reached: it goes on with its share.
    Away,
}

/// What is known of one limit per minute.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Account {
    /// Since the last request that was answered: used beyond what was held, and given back.
    pub(crate) owed: f64,
    pub(crate) returned: f64,
    /// Away: of what it was granted so much was left when the store was lost. It is used first, and owed to nobody.
    pub(crate) kept: f64,
    /// What was used of the limit in all when it was last looked at, and when.
    pub(crate) used: f64,
    pub(crate) looked: Timestamp,
    /// What is used, per second.
    pub(crate) pace: f64,
    /// The same over a longer time.
    pub(crate) long_pace: f64,
    /// The same when the store was lost: everything since is owed, but for what was kept.
    pub(crate) used_before: f64,
    /// Not asked again before, for those who wait.
    pub(crate) ask_at: Timestamp,
    /// The same for what is to be kept in hand.
    pub(crate) stock_at: Timestamp,
    /// What a call lately took.
    pub(crate) usual: f64,
    /// So much is kept in hand.
    pub(crate) target: f64,
}

/// What is known of one circuit of the fleet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shared {
    pub(crate) turn: u64,
    pub(crate) open: bool,
    /// Until when it is open as the fleet has it, on our clock.
    pub(crate) until: Timestamp,
    pub(crate) probes: u32,
    /// When the last probe was given.
    pub(crate) given: Timestamp,
    /// A call waits for a probe.
    pub(crate) wanted: bool,
}

/// A question that is under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) seq: u64,
    pub(crate) at: Timestamp,
    pub(crate) rests: bool,
}

#[derive(Debug)]
pub(crate) struct Borrower {
    pub(crate) config: LeaseConfig,
    pub(crate) standing: Standing,
    pub(crate) life: u32,
    pub(crate) seq: u64,
    pub(crate) acked: u64,
    pub(crate) epoch: u64,
    pub(crate) asked: Option<Asked>,
    /// When the last question was made that was answered.
    pub(crate) answered: Timestamp,
    /// Away: since when.
    pub(crate) lost_at: Timestamp,
    /// Away: when it is asked again.
    pub(crate) try_at: Timestamp,
    pub(crate) failures: u32,
    /// Nobody is let go before the store has been asked once more.
    pub(crate) asks_first: bool,
    /// Until then the store grants nothing to anybody, and what is used meanwhile is nobody's debt.
    pub(crate) learning_until: Timestamp,
    /// Its fair part of the quota, by the last answer; `None`: there was none.
    pub(crate) share: Option<f64>,
    pub(crate) members: u32,
    /// The part of the tightest limit it lately used.
    pub(crate) weight: f64,
    /// When it last said that it rests.
    pub(crate) rested: Timestamp,
    /// The last moment at which it had something to do.
    pub(crate) busy: Timestamp,
    pub(crate) accounts: BTreeMap<(Pool, usize), Account>,
    pub(crate) circuits: BTreeMap<Pool, Shared>,
    /// Until when the fleet knows us to be paused.
    pub(crate) told_pauses: BTreeMap<(Pool, bool), Timestamp>,
    pub(crate) exchanges: u64,
    pub(crate) lost: u64,
}

impl Borrower {
    pub(crate) fn new(config: LeaseConfig, now: Timestamp) -> Self {
        Self {
            config,
            standing: Standing::Apart,
            life: 1,
            seq: 0,
            acked: 0,
            epoch: 0,
            asked: None,
            answered: now,
            lost_at: now,
            try_at: now,
            failures: 0,
            asks_first: false,
            learning_until: Timestamp::ZERO,
            share: None,
            members: 0,
            weight: 0.0,
            rested: now,
            busy: now,
            accounts: BTreeMap::new(),
            circuits: BTreeMap::new(),
            told_pauses: BTreeMap::new(),
            exchanges: 0,
            lost: 0,
        }
    }

    /// Are its leases too old to be believed?
    pub(crate) fn is_stale(&self, now: Timestamp) -> bool {
        self.standing == Standing::Joined && now.saturating_since(self.answered) > BELIEVED
    }

    /// Has it rested for so long that the store may have forgotten it, or was never known to it?
    pub(crate) fn is_forgotten(&self, now: Timestamp) -> bool {
        self.acked == 0 || now.saturating_since(self.answered) + REST_MARGIN > RESTING
    }

    /// Its part of the quota while it is away.
    pub(crate) fn offline_share(&self) -> f64 {
        self.share.unwrap_or(self.config.offline_share).clamp(0.0, 1.0)
    }

    /// Another life: what it held, owed and returned is another's now.
    pub(crate) fn begin_life(&mut self) {
        self.life = self.life.wrapping_add(1);
        (self.seq, self.acked) = (0, 0);
        for account in self.accounts.values_mut() {
            (account.owed, account.returned, account.kept) = (0.0, 0.0, 0.0);
        }
        self.told_pauses.clear();
        for circuit in self.circuits.values_mut() {
            (circuit.probes, circuit.wanted) = (0, false);
        }
    }

    /// A question failed: the gap until the next one doubles.
    pub(crate) fn failed(&mut self, now: Timestamp) {
        let gap = RETRY_FIRST.saturating_mul(1 << self.failures.min(4)).min(RETRY_MAX);
        self.failures = self.failures.saturating_add(1);
        self.lost += 1;
        self.try_at = now + gap;
    }

    pub(crate) fn account(&mut self, pool: Pool, dimension: Dimension) -> &mut Account {
        self.accounts.entry((pool, dimension as usize)).or_default()
    }
}

impl Account {
    /// What was used in all by now: keeps the pace.
    pub(crate) fn look(&mut self, used: f64, now: Timestamp) {
        if self.looked == Timestamp::ZERO {
            (self.used, self.looked) = (used, now);
            return;
        }
        let span = now.saturating_since(self.looked).as_secs_f64();
        // Two looks at the same moment say nothing of a pace.
        if span < 1e-3 {
            return;
        }
        let lately = ((used - self.used) / span).max(0.0);
        let part = span / (span + USE_OVER);
        self.pace += (lately - self.pace) * part;
        self.long_pace += (lately - self.long_pace) * span / (span + SHARE_OVER);
        (self.used, self.looked) = (used, now);
    }
}
