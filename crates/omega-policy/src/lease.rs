//! One quota for many processes: what a process asks of a store, and what the store answers.
//!
//! The store keeps the account ([`Ledger`]); a process borrows from it ahead of use (`Pipeline::poll_lease`,
//! `Pipeline::handle_lease`). Everything rests on four rules:
//!
//! - **Pre-debited.** A lease is taken off the fleet's bucket when it is granted, so that what all processes may send
//!   together never exceeds what one process alone might. What a lease has not used still counts against the depth.
//! - **In turn.** A process that needs more than is there is given it all the same, as a *flow*: the account is debited
//!   now, and the process may use the tokens as they come in. Who asked first is served first, nobody asks twice for the
//!   same tokens, and nothing is lost between two questions.
//! - **Absolute.** A request says what is held, and what has been owed and returned since the last answer that came, not
//!   since the last request. Lost, late and repeated messages then change nothing: see [`LeaseRequest::seq`] and
//!   [`LeaseRequest::acked`].
//! - **One clock.** The store's. Processes are told spans, never moments.
//!
//! Levels are doubles because a Redis script computes in doubles: the same arithmetic runs there, in SQLite and in the
//! simulator. They count tokens; up to 2^53 of them are exact.

use std::time::Duration;

use crate::{Dimension, ModelId};

pub(crate) use borrower::Borrower;
pub use ledger::{Holder, Ledger};

pub(crate) mod borrower;
mod ledger;

/// How a process takes part in a shared quota.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LeaseConfig {
    /// The part of the quota for a process that has never reached the store, from 0 to 1. Default 0.1.
    pub offline_share: f64,
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self { offline_share: 0.1 }
    }
}

/// A process that has not been heard of for this long is forgotten by the store: its slots and probes go to others, and
/// what it held counts no longer. Two seconds, as the lease length of `resilience.md`: long against a heartbeat, short
/// against a minute of quota.
pub const LEASE_EXPIRY: Duration = Duration::from_secs(2);

/// A process that rests is remembered for this long after it was last heard of, which it is every half minute: one that
/// has nothing to do for a while must not be forgotten when shares are counted, nor go by a share of long ago, or they add
/// up to more than the quota when the store is lost.
pub(crate) const RESTING: Duration = Duration::from_secs(90);

/// A process believes in its leases for this long after it last asked for them: less than [`LEASE_EXPIRY`] by more than
/// a message can be under way, so that it always stops first.
pub(crate) const BELIEVED: Duration = Duration::from_millis(1_500);

/// What a process tells the store and asks of it. `M`: how models are named; `None` or the empty name is the provider
/// itself.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LeaseRequest<M = Option<ModelId>> {
    /// Which life of the process this is: it begins another whenever its leases have become void.
    pub life: u32,
    /// Counts the requests of one life, from 1. The store answers each number once and none below one it has answered.
    pub seq: u64,
    /// The last request of this life whose answer has come; 0: none. What was granted in an answer that never came goes
    /// back.
    pub acked: u64,
    /// The store's epoch in the last answer; 0: none. A store that has lost its memory has another.
    pub epoch: u64,
    /// The process went on with its share meanwhile, or stood still: it holds nothing any more.
    pub away: bool,
    /// For how long, in seconds: since the first question that was not answered.
    pub away_for: f64,
    /// It has nothing to do for now: everything goes back.
    pub rests: bool,
    /// It ends: everything goes back, and it is forgotten.
    pub leaves: bool,
    /// Who it is, for people.
    #[cfg_attr(feature = "serde", serde(default))]
    pub label: String,
    /// The part of the provider's tightest limit it has lately used, from 0 to 1: shares go by it.
    pub weight: f64,
    /// What it needs of each limit per minute.
    pub buckets: Vec<BucketAsk<M>>,
    /// What it needs of each limit of calls in flight.
    pub slots: Vec<SlotAsk<M>>,
    /// Pauses that are new.
    pub pauses: Vec<Pause<M>>,
    /// Circuits that are not simply closed, or have just become so.
    pub circuits: Vec<CircuitAsk<M>>,
}

/// One limit per minute.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct BucketAsk<M = Option<ModelId>> {
    /// Whose limit.
    pub model: M,
    /// Of what.
    pub dimension: Dimension,
    /// Per minute, as this process is configured.
    pub limit: f64,
    /// How much may be spent at once, as this process is configured.
    pub depth: f64,
    /// What it holds and has not used, promises included.
    pub holding: f64,
    /// Of this, what is promised for later than [`LEASE_EXPIRY`] from now: nobody can have used it when the process is
    /// forgotten.
    pub late: f64,
    /// What it has used beyond what it held, since the request of [`LeaseRequest::acked`].
    pub owed: f64,
    /// What it has given back since then.
    pub returned: f64,
    /// How much more it would like.
    pub want: f64,
    /// With less than this of it nobody who waits is served. 0: nobody waits, only what is there now is of use.
    pub least: f64,
    /// Nobody who waits has more time than this, in seconds: what comes later is of no use.
    pub patience: f64,
    /// The provider's own count says that there is no more than this.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub at_most: Option<f64>,
}

/// One limit of calls in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SlotAsk<M = Option<ModelId>> {
    /// Whose limit.
    pub model: M,
    /// The limit, as this process is configured.
    pub limit: u32,
    /// Its calls in flight now.
    pub in_flight: u32,
    /// How many it would have in flight.
    pub want: u32,
}

/// The provider asked to be left alone.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Pause<M = Option<ModelId>> {
    /// About which model.
    pub model: M,
    /// For how much longer, in seconds.
    pub seconds: f64,
    /// Is the model's own quota spent, rather than it being asked too fast?
    pub spent: bool,
}

/// What a circuit has become here.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Turn {
    /// It opened, for so many seconds.
    Opened(f64),
    /// It closed.
    Closed,
}

/// One circuit.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct CircuitAsk<M = Option<ModelId>> {
    /// Whose, with breaker scope `model`.
    pub model: M,
    /// The turn of the fleet's circuit that this process has followed last; 0: none.
    pub turn: u64,
    /// What it has become since, here.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub turned: Option<Turn>,
    /// Probes it may have in flight as it knows, and wants to keep.
    pub probes: u32,
    /// Would it send one more?
    pub wants_probe: bool,
    /// The fleet's probes in flight at most, as this process is configured.
    pub max_probes: u32,
}

/// What the store answers.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LeaseGrant<M = Option<ModelId>> {
    /// Which request it answers.
    pub seq: u64,
    /// `true`: a later one was answered before, nothing has changed and nothing is granted.
    #[cfg_attr(feature = "serde", serde(default))]
    pub stale: bool,
    /// When it was carried out, in seconds on the store's clock: for people and tests, nobody goes by it.
    pub at: f64,
    /// Of this life of the store's memory.
    pub epoch: u64,
    /// Seconds for which the store grants nothing, because it cannot know what was spent while it was away.
    pub learning: f64,
    /// Processes known now.
    pub members: u32,
    /// The sum of their weights.
    pub weights: f64,
    /// In the order of the request.
    pub buckets: Vec<BucketGrant>,
    /// In the order of the request.
    pub slots: Vec<SlotGrant>,
    /// All pauses in force.
    pub pauses: Vec<Pause<M>>,
    /// All circuits that have ever opened.
    pub circuits: Vec<CircuitReport<M>>,
}

/// A part of one limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct BucketGrant {
    /// So much, in all.
    pub amount: f64,
    /// Of it, usable now. The rest flows in at the limit's pace.
    pub ready: f64,
    /// Seconds until it begins to flow in.
    pub starts: f64,
    /// It does not flow in but comes at once then: it is more than the bucket is deep.
    pub whole: bool,
    /// Nothing was granted because what somebody waits for comes only after so many seconds, too late for it. 0: it was.
    pub refused_for: f64,
    /// What the fleet's bucket holds now.
    pub level: f64,
    /// By so many seconds, in all, debts have put off what was promised before this answer.
    #[cfg_attr(feature = "serde", serde(default))]
    pub put_off: f64,
}

/// A part of one limit of calls in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SlotGrant {
    /// So many may be in flight here.
    pub allowed: u32,
    /// Somebody has none and waits: a call that ends gives its slot back.
    pub line: bool,
}

/// The fleet's circuit.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct CircuitReport<M = Option<ModelId>> {
    /// Whose.
    pub model: M,
    /// Which turn it is.
    pub turn: u64,
    /// Open, or half-open?
    pub open: bool,
    /// Seconds until it may be tested.
    pub left: f64,
    /// Probes this process may have in flight.
    pub probes: u32,
}

/// How a process stands with the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LeaseStats {
    /// It spends what the store grants.
    pub is_joined: bool,
    /// The store cannot be reached: it spends its share.
    pub is_away: bool,
    /// Processes, as the store last said; 0: it never has.
    pub members: u32,
    /// The part of the quota it goes on with when the store is lost.
    pub share: f64,
    /// Questions to the store.
    pub exchanges: u64,
    /// Of these, not answered in time.
    pub lost: u64,
}

impl<M> LeaseRequest<M> {
    /// The same with models named otherwise.
    pub fn named<N>(self, mut name: impl FnMut(M) -> N) -> LeaseRequest<N> {
        let Self { life, seq, acked, epoch, away, away_for, rests, leaves, label, weight, .. } = self;
        let buckets = self.buckets.into_iter().map(|ask| {
            let BucketAsk { dimension, limit, depth, holding, late, owed, returned, want, least, .. } = ask;
            let (patience, at_most, model) = (ask.patience, ask.at_most, name(ask.model));
            BucketAsk {
                model,
                dimension,
                limit,
                depth,
                holding,
                late,
                owed,
                returned,
                want,
                least,
                patience,
                at_most,
            }
        });
        let buckets = buckets.collect();
        let slots = self.slots.into_iter().map(|ask| {
            let SlotAsk { model, limit, in_flight, want } = ask;
            SlotAsk { model: name(model), limit, in_flight, want }
        });
        let slots = slots.collect();
        let pauses = self.pauses.into_iter().map(|pause| pause.named(&mut name)).collect();
        let circuits = self.circuits.into_iter().map(|ask| {
            let CircuitAsk { model, turn, turned, probes, wants_probe, max_probes } = ask;
            CircuitAsk { model: name(model), turn, turned, probes, wants_probe, max_probes }
        });
        let circuits = circuits.collect();
        LeaseRequest {
            life,
            seq,
            acked,
            epoch,
            away,
            away_for,
            rests,
            leaves,
            label,
            weight,
            buckets,
            slots,
            pauses,
            circuits,
        }
    }
}

impl<M> LeaseGrant<M> {
    /// The same with models named otherwise.
    pub fn named<N>(self, mut name: impl FnMut(M) -> N) -> LeaseGrant<N> {
        let Self { seq, stale, at, epoch, learning, members, weights, buckets, slots, .. } = self;
        let pauses = self.pauses.into_iter().map(|pause| pause.named(&mut name)).collect();
        let circuits = self.circuits.into_iter().map(|report| {
            let CircuitReport { model, turn, open, left, probes } = report;
            CircuitReport { model: name(model), turn, open, left, probes }
        });
        let circuits = circuits.collect();
        LeaseGrant { seq, stale, at, epoch, learning, members, weights, buckets, slots, pauses, circuits }
    }
}

impl<M> Pause<M> {
    fn named<N>(self, name: &mut impl FnMut(M) -> N) -> Pause<N> {
        let Self { model, seconds, spent } = self;
        Pause { model: name(model), seconds, spent }
    }
}
