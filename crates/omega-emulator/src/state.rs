//! What all requests share: settings, quotas, the scenario, the journal. Every lock is held for one decision.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::EmulatorConfig;
use crate::fault::FaultSpec;
use crate::provider::Provider;
use crate::quota::{BucketState, ChargeRule, Ledger, OverLimit, Quota, Reservation, Worth};
use crate::record::{Finished, Journal, RequestRecord};
use crate::scenario::{Asked, Fired, Scenario, Script};

/// How many different counted faults are remembered. More than a test suite uses; reached, counting starts anew.
const COUNTED_FAULTS: usize = 100_000;

pub(crate) struct State {
    pub(crate) config: EmulatorConfig,
    pub(crate) clock: Clock,
    pub(crate) stop: CancellationToken,
    journal: Mutex<Journal>,
    ledgers: [Mutex<Ledger>; 4],
    script: Mutex<Script>,
    counted: Mutex<HashMap<(Provider, String), u32>>,
    arrivals: [AtomicU64; 4],
}

/// A poisoned lock only means that another request panicked; the data are counts and stay usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The provider's own rule, where a quota names none. Sources: OpenAI's documented reservation of `max_tokens`;
/// Anthropic's settlement with real output; Google counts input only; xAI counts everything.
fn default_rule(provider: Provider) -> ChargeRule {
    match provider {
        Provider::OpenAi => ChargeRule::Est,
        Provider::Anthropic | Provider::Grok => ChargeRule::Actual,
        Provider::Google => ChargeRule::Input,
    }
}

impl State {
    pub(crate) fn new(config: EmulatorConfig, stop: CancellationToken) -> Self {
        let ledger = |provider| {
            Mutex::new(Ledger::new(config.providers[provider].quota.clone(), default_rule(provider)))
        };
        Self {
            clock: Clock::start(config.time_scale),
            stop,
            journal: Mutex::new(Journal::new(config.journal_limit)),
            ledgers: Provider::ALL.map(ledger),
            script: Mutex::new(Script::new(config.scenario.clone())),
            counted: Mutex::new(HashMap::new()),
            arrivals: Default::default(),
            config,
        }
    }

    /// A seed of its own for every request: the emulator's, the provider's and the request's number there.
    pub(crate) fn request_seed(&self, provider: Provider) -> u64 {
        let nth = self.arrivals[provider.index()].fetch_add(1, Ordering::Relaxed);
        let mixed =
            self.config.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ ((provider.index() as u64) << 56) ^ nth;
        fastrand::Rng::with_seed(mixed).u64(..)
    }

    /// Whether a fault with a count is still due, and counts it.
    pub(crate) fn still_due(&self, provider: Provider, spec: &FaultSpec) -> bool {
        let Some(times) = spec.times else { return true };
        let mut counted = lock(&self.counted);
        if counted.len() >= COUNTED_FAULTS {
            counted.clear();
        }
        let seen = counted.entry((provider, spec.to_string())).or_insert(0);
        *seen = seen.saturating_add(1);
        *seen <= times
    }

    pub(crate) fn fire(&self, asked: &Asked<'_>, dice: &mut fastrand::Rng) -> Option<Fired> {
        lock(&self.script).fire(asked, || dice.f64())
    }

    pub(crate) fn scenario_output_tokens(&self) -> Option<u64> {
        lock(&self.script).scenario.output_tokens.map(u64::from)
    }

    pub(crate) fn set_scenario(&self, scenario: Scenario) {
        *lock(&self.script) = Script::new(scenario);
    }

    pub(crate) fn set_quota(&self, provider: Provider, quota: Quota) {
        *lock(&self.ledgers[provider.index()]) = Ledger::new(quota, default_rule(provider));
    }

    /// Takes a request and its tokens from the quota.
    pub(crate) fn admit(
        &self,
        provider: Provider,
        key: &str,
        model: &str,
        worth: Worth,
    ) -> Result<Reservation, OverLimit> {
        let mut ledger = lock(&self.ledgers[provider.index()]);
        let scope = ledger.scope(key, model);
        ledger.admit(&scope, worth, self.clock.trace_now())
    }

    pub(crate) fn count_failed(&self, provider: Provider, key: &str, model: &str) {
        let mut ledger = lock(&self.ledgers[provider.index()]);
        let scope = ledger.scope(key, model);
        ledger.count_failed(&scope, self.clock.trace_now());
    }

    pub(crate) fn buckets(&self, provider: Provider, key: &str, model: &str) -> Vec<BucketState> {
        let mut ledger = lock(&self.ledgers[provider.index()]);
        let scope = ledger.scope(key, model);
        ledger.state(&scope, self.clock.trace_now())
    }

    pub(crate) fn requests(&self) -> Vec<RequestRecord> {
        lock(&self.journal).all()
    }

    pub(crate) fn clear_requests(&self) {
        lock(&self.journal).clear();
    }

    /// Opens a record; the ticket closes it.
    pub(crate) fn open(
        self: &Arc<Self>,
        provider: Provider,
        build: impl FnOnce(u64) -> RequestRecord,
    ) -> Ticket {
        let number = lock(&self.journal).open(build);
        Ticket {
            state: Arc::clone(self),
            provider,
            number,
            reservation: None,
            output: 0,
            events: 0,
            ended: false,
        }
    }
}

/// The duty to close a request's record and settle its charge, exactly once. Dropped unfinished, the client left.
pub(crate) struct Ticket {
    state: Arc<State>,
    provider: Provider,
    number: u64,
    reservation: Option<Reservation>,
    output: u64,
    events: u64,
    ended: bool,
}

impl Ticket {
    /// Writes something into the record.
    pub(crate) fn note(&self, change: impl FnOnce(&mut RequestRecord)) {
        lock(&self.state.journal).update(self.number, change);
    }

    /// Keeps what was taken from the quota, for settling.
    pub(crate) fn reserve(&mut self, reservation: Reservation) {
        let charged = reservation.charged;
        self.note(|record| record.tokens_charged = charged);
        self.reservation = Some(reservation);
    }

    /// Bytes left with this many output tokens.
    pub(crate) fn sent(&mut self, tokens: u32, content: bool) {
        self.output += u64::from(tokens);
        self.events += u64::from(content);
    }

    /// Output that no frame carries: a whole answer's, hidden reasoning.
    pub(crate) fn produced(&mut self, tokens: u64) {
        self.output += tokens;
    }

    /// The request gets no answer on purpose.
    pub(crate) fn cut(&mut self) {
        self.close(Finished::Cut);
    }

    pub(crate) fn end(mut self, finished: Finished) {
        self.close(finished);
    }

    fn close(&mut self, finished: Finished) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let now = self.state.clock.trace_now();
        let charged = self.reservation.take().map(|reservation| {
            lock(&self.state.ledgers[self.provider.index()]).settle(&reservation, self.output, now)
        });
        let (output, events) = (self.output, self.events);
        self.note(|record| {
            record.finished = finished;
            record.finished_at = Some(now);
            record.output_tokens = output;
            record.content_events = events;
            record.tokens_charged = charged.unwrap_or(record.tokens_charged);
        });
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.close(Finished::ClientDisconnected);
    }
}
