//! What goes into a pipeline and what comes out of it: plain values, in the order of a call's life.

use std::time::Duration;

use crate::{Timestamp, Usage};

/// A model, as a small number the caller assigned. Per-model state (limits, learned output lengths, blocks) hangs
/// on it. Use [`ModelId::OTHER`] beyond the models worth telling apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelId(pub u32);

impl ModelId {
    /// Every model that has no number of its own.
    pub const OTHER: Self = Self(0);
}

/// Who pays or asks, as a small number the caller assigned: quota is shared fairly between tenants. Use
/// [`TenantId::NONE`] where there are none to tell apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(pub u32);

impl TenantId {
    /// Everybody who has no number of its own.
    pub const NONE: Self = Self(0);
}

/// How urgent a call is: while calls wait, those of a higher priority go first. A class that was passed over for long gets
/// a turn now and then ([`LimiterConfig::aging`](crate::LimiterConfig)), so that none is starved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Priority {
    /// Work that may wait: batches, evaluations.
    Low = 0,
    /// The rest.
    #[default]
    Normal = 1,
    /// Somebody is watching.
    High = 2,
}

impl Priority {
    /// All of them, the lowest first.
    pub const ALL: [Self; 3] = [Self::Low, Self::Normal, Self::High];
}

/// What a call needs, as well as is known before it is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Estimated input tokens.
    pub input_tokens: u64,
    /// The caller's own bound on the output (`max_tokens`), if it gave one.
    pub max_output_tokens: Option<u64>,
}

/// One logical call while it is inside the layers: survives its retries, one for each target.
#[derive(Clone, Debug)]
pub struct Call {
    /// Which model.
    pub model: ModelId,
    /// What it needs.
    pub demand: Demand,
    /// How urgent it is.
    pub priority: Priority,
    /// Whose it is.
    pub tenant: TenantId,
    /// When it came, before its first attempt: a retry stands in the queue before those who came after it.
    pub arrived: Timestamp,
    /// Nothing (queueing, sleeping, calling) may reach past this.
    pub deadline: Timestamp,
    /// The first admission must be served by then (`max_wait_seconds`).
    pub admit_by: Timestamp,
    /// No retry starts after this: whoever knows how long an answer takes need not let one begin that cannot end before
    /// the deadline. At most `deadline`.
    pub retry_by: Timestamp,
    /// Is there another target the caller would turn to? Decides what silence and long hints mean.
    pub alternative: bool,
    /// With an alternative at hand, a provider's hint longer than this is not waited out here
    /// (`failover_wait_seconds`).
    pub failover_wait: Duration,
    /// Attempts already sent to this target. Counted by the pipeline.
    pub attempts: u32,
    /// The wait before the last retry, zero if there was none: [`Jitter::Decorrelated`](crate::Jitter::Decorrelated)
    /// grows from it. Kept by the pipeline.
    pub last_delay: Duration,
}

impl Call {
    /// A call that comes now: not urgent, of nobody in particular, with no other target, and whose first admission may
    /// take as long as all of it.
    pub fn new(model: ModelId, demand: Demand, deadline: Timestamp, now: Timestamp) -> Self {
        Self {
            model,
            demand,
            priority: Priority::Normal,
            tenant: TenantId::NONE,
            arrived: now,
            deadline,
            admit_by: deadline,
            retry_by: deadline,
            alternative: false,
            failover_wait: Duration::ZERO,
            attempts: 0,
            last_delay: Duration::ZERO,
        }
    }

    /// Until when it may wait to be let go.
    pub(crate) fn waits_until(&self) -> Timestamp {
        if self.attempts == 0 { self.admit_by.min(self.deadline) } else { self.retry_by.min(self.deadline) }
    }
}

/// The right to send one attempt. Goes back exactly once, through [`Pipeline::complete`] or [`Pipeline::cancel`].
#[must_use = "a permit that is not returned holds its slot for ever"]
#[derive(Debug)]
pub struct Permit {
    pub(super) model: ModelId,
    pub(super) slot: usize,
    pub(super) tenant: TenantId,
    /// In which busy period, and for how much, it was counted between tenants.
    pub(super) counted: Option<(u64, u64)>,
    /// Is it a call's first attempt?
    pub(super) first_try: bool,
    pub(super) breaker: crate::breaker::BreakerPermit,
    pub(super) reservation: crate::limiter::Reservation,
}

impl Permit {
    /// Which model it was issued for.
    pub fn model(&self) -> ModelId {
        self.model
    }
}

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub(crate) u64);

/// The answer to [`Pipeline::admit`].
#[derive(Debug)]
pub enum Admission {
    /// Go.
    Granted(Permit),
    /// Wait for [`Pipeline::poll_granted`] to name this ticket, or give it back with [`Pipeline::leave`].
    Queued(Ticket),
    /// No, and why.
    Rejected(Rejection),
}

/// Why a call was not admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// The circuit is open, or half-open with every probe slot taken.
    CircuitOpen {
        /// The earliest moment at which it may be different.
        retry_at: Timestamp,
    },
    /// This model's own quota is spent (a per-day limit) until then.
    ModelBlocked {
        /// When the quota resets.
        until: Timestamp,
    },
    /// Larger than the limit itself: no wait helps.
    ExceedsCapacity {
        /// Which limit.
        dimension: crate::Dimension,
        /// The limit, per minute.
        limit: u64,
        /// What the call needs.
        requested: u64,
    },
    /// Could be served, but not in time.
    DeadlineTooSoon {
        /// When it could be served.
        earliest: Timestamp,
        /// What it would wait for.
        dimension: crate::Dimension,
    },
    /// As many callers are waiting as may wait.
    QueueFull {
        /// When the queue as it stands will have been served.
        earliest: Timestamp,
    },
}

/// What to do after an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Answered: hand it over.
    Done,
    /// Sleep until then, then [`Pipeline::admit`] again.
    RetryAt {
        /// When to come back.
        at: Timestamp,
        /// The wait itself, for the log.
        delay: Duration,
    },
    /// Stop here: report the failure, or turn to another target.
    GiveUp(GiveUp),
}

/// Why no further attempt is made at this target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GiveUp {
    /// It would fail the same way: the table says [`Retry::Never`](crate::Retry::Never), or the provider said
    /// `x-should-retry: false`.
    NotRetryable,
    /// `max_retries` attempts were made.
    AttemptsExhausted,
    /// The circuit is open now: another attempt would be refused.
    CircuitOpen,
    /// The retry budget is empty; waiting for it would only make an outage worse.
    BudgetExhausted,
    /// The wait would end after the deadline.
    DeadlineTooSoon {
        /// When the retry would have started.
        earliest: Timestamp,
    },
    /// Another target should be asked first (silence, or a hint longer than `failover_wait`).
    AnotherTarget,
}

/// What is known of an attempt whose caller went away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// It was never sent: everything goes back.
    Nothing,
    /// It was sent; this much was seen of it. The larger of it and the estimated input stays charged.
    Sent {
        /// Tokens seen so far.
        seen: Option<Usage>,
    },
}
