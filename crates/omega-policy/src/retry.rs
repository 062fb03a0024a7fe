//! Try again, when, or give up and why.
//!
//! A retry must pass, in this order: the failure's row of the table, the provider's own word, the number of attempts,
//! the circuit, the wait against the deadline, and the budget. The budget comes last because it is the only one that
//! is used up by saying yes.

use std::time::Duration;

use crate::time::nanos;
use crate::{Backoff, Chance, Failure, GiveUp, Retry, Timestamp, Verdict};

/// Attempts, delays and the budget that keeps retries from multiplying an outage.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryConfig {
    /// Attempts in all, the first included (`max_retries`). At least 1. Default 3.
    pub max_attempts: u32,
    /// The delays between them.
    pub backoff: Backoff,
    /// `None`: no budget.
    pub budget: Option<BudgetConfig>,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { max_attempts: 3, backoff: Backoff::default(), budget: Some(BudgetConfig::default()) }
    }
}

/// Retries allowed relative to recent first tries.
#[derive(Clone, Debug, PartialEq)]
pub struct BudgetConfig {
    /// Retries as a share of recent first tries, in percent. Default 100.
    pub percent: u32,
    /// Retries per second allowed whatever the traffic. Default 1.
    pub per_second: u32,
    /// Retries in hand at the start. Default 10.
    pub opening: u32,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self { percent: 100, per_second: 1, opening: 10 }
    }
}

/// A snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryStats {
    /// Attempts sent, first tries and retries.
    pub attempts: u64,
    /// Retries among them.
    pub retries: u64,
    /// Retries the budget refused.
    pub budget_refused: u64,
    /// Retries the budget would allow now.
    pub budget_available: u64,
}

/// First tries count toward the budget for this long. Finagle uses 10 s; calls to language models fail later than
/// that (a silent one after two minutes), and a window shorter than the calls would forget the first try before its
/// retry is due.
const WINDOW: Duration = Duration::from_secs(120);

const SLOTS: u64 = 10;

const SLOT_NANOS: u64 = WINDOW.as_nanos() as u64 / SLOTS;

/// Hundredths in one retry: percents add up exactly, where `1 / ratio` in whole numbers would turn 30 % into 33 %.
const RETRY: u64 = 100;

/// Seconds of `per_second` that may be saved up by a quiet client.
const RESERVE_SECONDS: u64 = 10;

/// How many retries may be made, in proportion to first tries. An empty budget says no at once: a client that *waits*
/// for retry tokens deadlocks, because nothing succeeds while everybody waits.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    config: Option<BudgetConfig>,
    /// Deposits of recent first tries that are not spent, oldest first from `head + 1`, in hundredths of a retry.
    slots: [u64; SLOTS as usize],
    /// The number, since the origin of time, of the slot now being filled.
    head: u64,
    /// When the next slot begins: until then there is nothing to forget, and nothing to divide.
    rolls_at: Timestamp,
    /// The opening balance and what `per_second` added, in hundredths of a retry.
    reserve: u64,
    /// Until when `per_second` has been credited.
    credited: Timestamp,
    /// Processes among which what does not grow with traffic is divided. At least 1.
    among: u32,
    stats: RetryStats,
}

impl RetryBudget {
    pub(crate) fn new(config: Option<BudgetConfig>, now: Timestamp) -> Self {
        let reserve = config.as_ref().map_or(0, |config| u64::from(config.opening) * RETRY);
        Self {
            config,
            slots: [0; SLOTS as usize],
            head: slot_of(now),
            rolls_at: now,
            reserve,
            credited: now,
            among: 1,
            stats: RetryStats::default(),
        }
    }

    /// Goes on under `config`. What is in hand stays, up to what a quiet client could have saved now.
    pub(crate) fn reconfigure(&mut self, config: Option<BudgetConfig>, now: Timestamp) {
        if self.config == config {
            return;
        }
        self.forget(now);
        self.credit(now);
        self.reserve = match (&self.config, &config) {
            (None, _) => Self::new(config.clone(), now).reserve,
            (Some(_), Some(config)) => self.reserve.min(reserve_max(config)),
            (Some(_), None) => 0,
        };
        self.credited = now;
        self.config = config;
    }

    /// So many processes share the budget: the reserve, and what flows into it, is divided among them. What first tries
    /// earn is a ratio, and the same for one process and for all of them.
    pub(crate) fn share_among(&mut self, members: u32) {
        self.among = members.max(1);
        if let Some(config) = &self.config {
            self.reserve = self.reserve.min(reserve_max(config) / u64::from(self.among));
        }
    }

    /// An attempt is sent; a first try earns its share of a retry.
    pub(crate) fn sent(&mut self, first_try: bool, now: Timestamp) {
        self.stats.attempts += 1;
        if !first_try {
            self.stats.retries += 1;
            return;
        }
        let Some(percent) = self.config.as_ref().map(|config| u64::from(config.percent)) else { return };
        self.forget(now);
        let slot = &mut self.slots[(self.head % SLOTS) as usize];
        *slot = slot.saturating_add(percent);
    }

    /// An attempt that was counted was not sent after all: what it earned is taken back, so that calls which go away
    /// before they are sent cannot earn retries for others.
    pub(crate) fn unsent(&mut self, first_try: bool, now: Timestamp) {
        self.stats.attempts = self.stats.attempts.saturating_sub(1);
        if !first_try {
            self.stats.retries = self.stats.retries.saturating_sub(1);
            return;
        }
        let Some(percent) = self.config.as_ref().map(|config| u64::from(config.percent)) else { return };
        self.forget(now);
        // Its deposit stands in this slot or, if it was held back for long, in one before it.
        let mut due = percent;
        for step in 0..SLOTS {
            let slot = &mut self.slots[((self.head + SLOTS - step) % SLOTS) as usize];
            let part = due.min(*slot);
            *slot -= part;
            due -= part;
        }
    }

    /// Takes one retry from the budget, or says that it is empty.
    pub(crate) fn withdraw(&mut self, now: Timestamp) -> bool {
        if self.config.is_none() {
            return true;
        }
        self.forget(now);
        self.credit(now);
        if self.balance() < RETRY {
            self.stats.budget_refused += 1;
            return false;
        }
        // The oldest deposits go first, since they expire first; the reserve, which does not expire, last.
        let mut due = RETRY;
        for step in 1..=SLOTS {
            let slot = &mut self.slots[((self.head + step) % SLOTS) as usize];
            let part = due.min(*slot);
            *slot -= part;
            due -= part;
        }
        self.reserve -= due;
        true
    }

    pub(crate) fn stats(&self, now: Timestamp) -> RetryStats {
        let Some(config) = &self.config else {
            return RetryStats { budget_available: u64::MAX, ..self.stats };
        };
        let mut later = Self { config: Some(config.clone()), ..*self };
        later.forget(now);
        later.credit(now);
        RetryStats { budget_available: later.balance() / RETRY, ..self.stats }
    }

    fn balance(&self) -> u64 {
        self.slots.iter().fold(self.reserve, |sum, slot| sum.saturating_add(*slot))
    }

    /// Forgets the deposits that have left the window.
    #[inline]
    fn forget(&mut self, now: Timestamp) {
        if now >= self.rolls_at {
            self.roll(now);
        }
    }

    fn roll(&mut self, now: Timestamp) {
        let head = slot_of(now);
        for step in 1..=head.saturating_sub(self.head).min(SLOTS) {
            self.slots[((self.head + step) % SLOTS) as usize] = 0;
        }
        if head > self.head {
            // A gap longer than the window has cleared every slot above, whatever number they had.
            self.head = head;
        }
        self.rolls_at = Timestamp::from_nanos(self.head.saturating_add(1).saturating_mul(SLOT_NANOS));
    }

    /// Adds what `per_second` has earned.
    fn credit(&mut self, now: Timestamp) {
        let Some(config) = &self.config else { return };
        let per_second = u64::from(config.per_second);
        let most = reserve_max(config) / u64::from(self.among);
        // Whole hundredths only, and time is marked as credited only as far as they reach: nothing is rounded away.
        let elapsed = nanos(now.saturating_since(self.credited));
        let rate = u128::from(per_second) * u128::from(RETRY);
        let span = 1_000_000_000 * u128::from(self.among);
        let earned = u128::from(elapsed) * rate / span;
        if self.reserve >= most || rate == 0 {
            self.credited = self.credited.max(now);
        } else if earned > 0 {
            let paid_for = (earned * span).div_ceil(rate);
            self.credited = self.credited + Duration::from_nanos(u64::try_from(paid_for).unwrap_or(u64::MAX));
            self.reserve = self.reserve.saturating_add(u64::try_from(earned).unwrap_or(u64::MAX)).min(most);
        }
    }
}

/// The most that may lie in reserve, in hundredths of a retry.
fn reserve_max(config: &BudgetConfig) -> u64 {
    let saved = u64::from(config.per_second).saturating_mul(RESERVE_SECONDS * RETRY);
    (u64::from(config.opening) * RETRY).max(saved)
}

fn slot_of(now: Timestamp) -> u64 {
    now.as_nanos() / SLOT_NANOS
}

/// What a retry decision looks at, besides the table.
pub(crate) struct Situation {
    /// Attempts made, this one included.
    pub(crate) attempts: u32,
    /// Nothing may reach past this.
    pub(crate) deadline: Timestamp,
    /// Is there another target?
    pub(crate) alternative: bool,
    /// The longest hint waited out while there is one.
    pub(crate) failover_wait: Duration,
    /// How long the provider asked to be left alone, capped.
    pub(crate) hint: Duration,
    /// Until when the limiter lets nobody go, whoever caused it.
    pub(crate) paused_until: Timestamp,
    /// The delay before the last retry, zero if there was none.
    pub(crate) last_delay: Duration,
    /// Is the circuit open now?
    pub(crate) circuit_open: bool,
}

/// Try again, when, or give up and why. Takes from the budget only when the answer is to try again.
pub(crate) fn decide(
    config: &RetryConfig,
    budget: &mut RetryBudget,
    failure: &Failure,
    situation: &Situation,
    now: Timestamp,
    chance: Chance,
) -> Verdict {
    let retry = failure.kind.meaning().retry;
    if retry == Retry::Never || failure.should_retry == Some(false) {
        return Verdict::GiveUp(GiveUp::NotRetryable);
    }
    if retry == Retry::AnotherTargetFirst && situation.alternative {
        return Verdict::GiveUp(GiveUp::AnotherTarget);
    }
    if situation.attempts >= config.max_attempts.max(1) {
        return Verdict::GiveUp(GiveUp::AttemptsExhausted);
    }
    if situation.circuit_open {
        return Verdict::GiveUp(GiveUp::CircuitOpen);
    }
    // A pause that another call's answer imposed holds this one back just as long.
    let asked = situation.hint.max(situation.paused_until.saturating_since(now));
    if situation.alternative && asked > situation.failover_wait {
        return Verdict::GiveUp(GiveUp::AnotherTarget);
    }
    let attempt = situation.attempts.saturating_sub(1);
    let delay = config.backoff.delay(attempt, situation.last_delay, chance).max(situation.hint);
    let at = now + delay;
    // A retry that starts when the time is up cannot be answered in it; nor is it worth a sleep to be told so by the
    // limiter afterwards.
    let earliest = at.max(situation.paused_until);
    if earliest >= situation.deadline {
        return Verdict::GiveUp(GiveUp::DeadlineTooSoon { earliest });
    }
    if !budget.withdraw(now) {
        return Verdict::GiveUp(GiveUp::BudgetExhausted);
    }
    Verdict::RetryAt { at, delay }
}

#[cfg(test)]
mod tests;
