//! The circuit breaker: stops asking a provider that fails, and finds out with a few probes when to ask again.
//!
//! Three states, each holding only its own fields. Every permit carries the *generation* it was issued in, which
//! changes with every transition and with nothing else: a result from an earlier generation can change a counter and
//! no more, however late it comes. Probe slots count calls **in flight**, not calls made, so a probe that ends without
//! a verdict (cancelled, throttled, the caller's own mistake) gives its slot to the next one and can never wedge the
//! circuit; probes that never end are bounded by the half-open deadline.
//!
//! Nothing here asks the time or schedules anything: an open period ends when a call arrives after it.

use std::time::Duration;

use crate::backoff::grow;
use crate::event::Events;
use crate::time::nanos;
use crate::{Chance, Event, HINT_MAX, ModelId, Timestamp};

pub use config::{
    BreakerConfig, BreakerMode, BreakerScope, BreakerState, BreakerStats, FailureRate, SlowFirstToken,
    TripReason,
};
use fleet::Permission;
pub(crate) use fleet::Stand;
pub(crate) use scope::Breakers;
use window::RateWindow;

mod config;
mod fleet;
mod reconfigure;
mod scope;
mod settle;
mod window;

/// The breaker's half of a permit.
#[derive(Debug)]
pub(crate) struct BreakerPermit {
    /// The generation whose state the result may change.
    generation: u64,
    role: Role,
    /// Has its first token been timed?
    timed: bool,
}

impl BreakerPermit {
    /// Has its first token come?
    pub(crate) fn was_timed(&self) -> bool {
        self.timed
    }
}

/// What a permit's result can mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// An ordinary call.
    Call,
    /// A probe that holds a slot.
    Probe,
    /// A probe that was settled as a success at its first token and whose stream still runs. It holds no slot. If it
    /// breaks after all, it speaks against the state its own success led to.
    SettledProbe,
}

/// What the breaker hears of a call that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Answered completely.
    Success,
    /// A failure that counts, with the provider's hint: an open period lasts at least that long.
    Failure {
        /// How long the provider asked to be left alone.
        hint: Option<Duration>,
    },
    /// The provider says that it is overloaded: a failure like any other, or, with `overload_counts` off, one that
    /// weighs in the failure-rate window alone.
    Overloaded {
        /// How long the provider asked to be left alone.
        hint: Option<Duration>,
    },
    /// 429: neither recovery nor failure.
    Throttled,
    /// Says nothing about the provider.
    Neutral,
}

/// May a call that waits here go on?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Yes.
    Pass,
    /// All probe slots are taken: when one is freed, or at this deadline, it will be different.
    Wait(Timestamp),
    /// The circuit is open until then.
    Shut(Timestamp),
}

/// How long a caller is told to wait for a probe slot that may be freed at any moment.
const PROBE_RETRY: Duration = Duration::from_secs(1);

/// When to come back for a probe slot: it may be freed at any moment, and is at the half-open deadline.
pub(crate) fn probe_retry(deadline: Timestamp, now: Timestamp) -> Timestamp {
    deadline.min(now + PROBE_RETRY).max(now + Duration::from_nanos(1))
}

/// One step of open-period growth is forgiven per this much healthy time, as in Envoy's outlier ejection.
const HEALTHY_PERIOD: Duration = Duration::from_secs(60);

/// While ramping up, at least one call in this many goes.
const RAMP_FLOOR: u64 = 10;

#[derive(Debug)]
enum State {
    Closed {
        consecutive: u32,
        /// Those of them that broke after content had come.
        broken: u32,
        /// When the first of those consecutive failures was sent.
        run_began: Timestamp,
        since: Timestamp,
        ramp: Option<Ramp>,
    },
    Open {
        until: Timestamp,
        failures: u32,
    },
    HalfOpen {
        in_flight: u32,
        successes: u32,
        deadline: Timestamp,
        failures: u32,
    },
}

impl State {
    fn closed(now: Timestamp, ramp: Option<Ramp>) -> Self {
        Self::Closed { consecutive: 0, broken: 0, run_began: now, since: now, ramp }
    }
}

/// Gradual recovery: calls accrue a share of a call each, and go when a whole one is reached. No chance needed.
#[derive(Debug)]
struct Ramp {
    since: Timestamp,
    /// In thousandths of a call.
    credit: u64,
}

/// One circuit.
#[derive(Debug)]
pub(crate) struct CircuitBreaker {
    config: BreakerConfig,
    /// Named in events, with breaker scope `model`.
    model: Option<ModelId>,
    state: State,
    generation: u64,
    /// Open periods in a row, less those forgiven.
    cycle: u32,
    failure_window: Option<RateWindow>,
    slow_window: Option<RateWindow>,
    last_failure: Option<Timestamp>,
    opened_by: Option<TripReason>,
    transitions: u64,
    refused: u64,
    late_results: u64,
    permission: Permission,
}

impl CircuitBreaker {
    /// A closed circuit.
    pub(crate) fn new(config: BreakerConfig, model: Option<ModelId>, now: Timestamp) -> Self {
        let failure_window = config.failure_rate.as_ref().map(|rate| RateWindow::new(rate.window, now));
        let slow_window = config.slow_first_token.as_ref().map(|slow| RateWindow::new(slow.window, now));
        Self {
            config,
            model,
            state: State::closed(now, None),
            generation: 0,
            cycle: 0,
            failure_window,
            slow_window,
            last_failure: None,
            opened_by: None,
            transitions: 0,
            refused: 0,
            late_results: 0,
            permission: Permission::default(),
        }
    }

    /// What a call would meet now, without taking anything. Notices a half-open deadline that has passed.
    pub(crate) fn gate(&mut self, now: Timestamp, events: &mut Events) -> Gate {
        match self.state {
            State::Closed { ramp: None, .. } if self.config.mode != BreakerMode::ForcedOpen => {
                return Gate::Pass;
            }
            State::HalfOpen { in_flight, deadline, failures, .. } if in_flight > 0 && now >= deadline => {
                self.open(
                    TripReason::ProbesTimedOut,
                    failures.saturating_add(1),
                    None,
                    now,
                    Chance::ZERO,
                    events,
                );
            }
            _ => {}
        }
        self.look(now)
    }

    /// The same without noticing anything, for questions.
    pub(crate) fn look(&self, now: Timestamp) -> Gate {
        if !self.config.enabled {
            return Gate::Pass;
        }
        match (self.config.mode, &self.state) {
            (BreakerMode::MetricsOnly, _) => Gate::Pass,
            // Nobody knows when the operator will change his mind; the usual period is when to ask again.
            (BreakerMode::ForcedOpen, _) => Gate::Shut(now + self.config.timeout.max(PROBE_RETRY)),
            (BreakerMode::Auto, State::Open { until, .. }) if now < *until => Gate::Shut(*until),
            (BreakerMode::Auto, _) if self.awaits_permission(now) => match self.denied_until() {
                until if now < until => Gate::Shut(until),
                _ => Gate::Wait(now + PROBE_RETRY),
            },
            (BreakerMode::Auto, State::HalfOpen { in_flight, deadline, .. })
                if *in_flight >= self.slots() =>
            {
                Gate::Wait(*deadline)
            }
            (BreakerMode::Auto, _) => Gate::Pass,
        }
    }

    /// Is a newcomer turned away? Says when it may be different. Does not count it.
    pub(crate) fn turns_away(&mut self, now: Timestamp, events: &mut Events) -> Option<Timestamp> {
        match self.gate(now, events) {
            Gate::Pass => self.ramp_refusal(now),
            Gate::Shut(until) => Some(until),
            Gate::Wait(deadline) => Some(probe_retry(deadline, now)),
        }
    }

    /// Counts calls that were refused.
    pub(crate) fn count_refused(&mut self, calls: u64) {
        self.refused = self.refused.saturating_add(calls);
    }

    /// Takes what [`CircuitBreaker::gate`] just allowed. The call that finds an open period elapsed is a probe itself.
    pub(crate) fn acquire(&mut self, now: Timestamp, events: &mut Events) -> BreakerPermit {
        if self.config.enabled {
            if let State::Open { until, failures } = self.state
                && now >= until
            {
                let deadline = now + self.config.half_open_timeout;
                self.transition(
                    State::HalfOpen { in_flight: 0, successes: 0, deadline, failures },
                    now,
                    events,
                );
            }
            let slots = self.slots();
            let timeout = self.config.half_open_timeout;
            if let State::HalfOpen { in_flight, deadline, .. } = &mut self.state
                && *in_flight < slots
            {
                if *in_flight == 0 {
                    // The deadline bounds how long slots are held; while none is held it does not run.
                    *deadline = now + timeout;
                }
                *in_flight += 1;
                return BreakerPermit { generation: self.generation, role: Role::Probe, timed: false };
            }
        }
        BreakerPermit { generation: self.generation, role: Role::Call, timed: false }
    }

    /// A stream's first content arrived, `waited` after it was sent.
    ///
    /// A probe is settled as a success and frees its slot, so that recovery is not delayed by the length of an answer.
    /// An ordinary call changes nothing but the slow-first-token window: only a complete answer resets the failure
    /// count, or a provider that cuts every stream after one token would never open its circuit.
    pub(crate) fn first_token(
        &mut self,
        permit: &mut BreakerPermit,
        waited: Duration,
        now: Timestamp,
        events: &mut Events,
    ) {
        if !self.config.enabled || permit.timed {
            return;
        }
        permit.timed = true;
        if permit.generation != self.generation {
            return;
        }
        match permit.role {
            Role::Probe => {
                permit.role = Role::SettledProbe;
                self.probe_succeeded(now, events);
            }
            Role::Call => {
                if let State::Closed { consecutive, broken, run_began, .. } = &mut self.state
                    && self.config.fresh_evidence
                {
                    // It answers; whether it also ends what it begins is counted by those that broke.
                    (*consecutive, *run_began) = (*broken, now);
                }
                self.sample_first_token(waited, now, events);
            }
            Role::SettledProbe => {}
        }
    }

    /// A call ended. `waited` is the time since it was sent.
    pub(crate) fn settle(
        &mut self,
        permit: BreakerPermit,
        signal: Signal,
        waited: Duration,
        now: Timestamp,
        chance: Chance,
        events: &mut Events,
    ) {
        if !self.config.enabled {
            return;
        }
        if !self.concerns(&permit) {
            self.late_results = self.late_results.saturating_add(1);
            return;
        }
        // Overload counts like any failure, or only where that was asked for: then of probes alone.
        let signal = match signal {
            Signal::Overloaded { hint } if self.config.overload_counts => Signal::Failure { hint },
            signal => signal,
        };
        match self.state {
            State::Closed { .. } => self.settle_closed(&permit, signal, waited, now, chance, events),
            State::HalfOpen { .. } => self.settle_half_open(&permit, signal, waited, now, chance, events),
            // Only calls that passed a circuit in `MetricsOnly` can end here: they are counted elsewhere.
            State::Open { .. } => {}
        }
    }

    /// The caller went away: the slot is freed and nothing is recorded.
    pub(crate) fn release(&mut self, permit: BreakerPermit) {
        if self.config.enabled && permit.role == Role::Probe && permit.generation == self.generation {
            self.free_slot();
        }
    }

    /// Closes the circuit and forgets its failures; calls in flight no longer concern it.
    pub(crate) fn reset(&mut self, now: Timestamp, events: &mut Events) {
        // Twice, because a settled probe still concerns the closed state that directly follows its own generation.
        self.generation = self.generation.wrapping_add(1);
        self.cycle = 0;
        self.last_failure = None;
        self.opened_by = None;
        if matches!(self.state, State::Closed { .. }) {
            self.generation = self.generation.wrapping_add(1);
            self.state = State::closed(now, None);
            self.clear_windows(now);
        } else {
            self.transition(State::closed(now, None), now, events);
        }
    }

    /// The operator's word.
    pub(crate) fn set_mode(&mut self, mode: BreakerMode) {
        self.config.mode = mode;
    }

    /// A snapshot.
    pub(crate) fn stats(&self) -> BreakerStats {
        let mut stats = BreakerStats {
            last_failure: self.last_failure,
            transitions: self.transitions,
            refused: self.refused,
            late_results: self.late_results,
            opened_by: self.opened_by,
            ..BreakerStats::default()
        };
        match self.state {
            State::Closed { consecutive, .. } => stats.failure_count = consecutive,
            State::Open { until, failures } => {
                stats.state = BreakerState::Open;
                stats.failure_count = failures;
                stats.retry_at = Some(until);
            }
            State::HalfOpen { in_flight, successes, failures, .. } => {
                stats.state = BreakerState::HalfOpen;
                stats.failure_count = failures;
                stats.success_count = successes;
                stats.probes_in_flight = in_flight;
            }
        }
        if self.config.enabled && self.config.mode == BreakerMode::ForcedOpen {
            stats.state = BreakerState::Open;
        }
        stats
    }

    /// Does a permit's result concern the present state?
    fn concerns(&self, permit: &BreakerPermit) -> bool {
        let follows = permit.role == Role::SettledProbe
            && permit.generation.wrapping_add(1) == self.generation
            && matches!(self.state, State::Closed { .. });
        permit.generation == self.generation || follows
    }

    fn open(
        &mut self,
        reason: TripReason,
        failures: u32,
        hint: Option<Duration>,
        now: Timestamp,
        chance: Chance,
        events: &mut Events,
    ) {
        self.open_since(reason, failures, hint, Duration::ZERO, now, chance, events);
    }

    /// `waited`: how long the probe that failed had been out. Periods that grow are counted from when it was sent: a
    /// provider that hangs would otherwise be probed more rarely than one that answers with errors, and its recovery
    /// found later by as long as a probe takes to fail. A constant period is the specification's and starts now.
    #[expect(clippy::too_many_arguments, reason = "one transition, with everything it depends on")]
    fn open_since(
        &mut self,
        reason: TripReason,
        failures: u32,
        hint: Option<Duration>,
        waited: Duration,
        now: Timestamp,
        chance: Chance,
        events: &mut Events,
    ) {
        if let State::Closed { since, .. } = self.state {
            let healthy = nanos(now.saturating_since(since)) / nanos(HEALTHY_PERIOD);
            self.cycle = self.cycle.saturating_sub(u32::try_from(healthy).unwrap_or(u32::MAX));
        }
        self.cycle = self.cycle.saturating_add(1);
        self.opened_by = Some(reason);
        let mut period = self.open_period(chance);
        if self.config.open_growth > 1.0 {
            period = period.saturating_sub(waited).max(PROBE_RETRY.min(period));
        }
        let until = (now + period).max(now + hint.unwrap_or_default().min(HINT_MAX));
        self.transition(State::Open { until, failures }, now, events);
    }

    /// How long the `cycle`-th open period in a row lasts.
    fn open_period(&self, chance: Chance) -> Duration {
        let BreakerConfig { timeout, open_growth, max_open, .. } = self.config;
        if open_growth <= 1.0 || open_growth.is_nan() {
            return timeout;
        }
        let grown = grow(timeout, open_growth, self.cycle.saturating_sub(1)).min(max_open.max(timeout));
        // Up to a tenth shorter, so that a fleet that lost the same provider does not probe it in the same instant.
        grown - chance.of(grown / 10)
    }

    /// The one place where the state changes.
    fn transition(&mut self, next: State, now: Timestamp, events: &mut Events) {
        let model = self.model;
        let event = match &next {
            State::Closed { .. } => Event::Closed { model, at: now },
            State::Open { until, failures } => {
                Event::Opened { model, failures: *failures, until: *until, at: now }
            }
            State::HalfOpen { .. } => Event::HalfOpened { model, at: now },
        };
        self.state = next;
        self.generation = self.generation.wrapping_add(1);
        self.transitions = self.transitions.saturating_add(1);
        // What a window saw before must not open the circuit again at the next failure.
        self.clear_windows(now);
        events.push(event);
    }

    fn clear_windows(&mut self, now: Timestamp) {
        for window in [&mut self.failure_window, &mut self.slow_window].into_iter().flatten() {
            window.clear(now);
        }
    }

    /// After a recovery with `ramp`: is this one of the calls that do not go yet?
    fn ramp_refusal(&mut self, now: Timestamp) -> Option<Timestamp> {
        let State::Closed { ramp, .. } = &mut self.state else { return None };
        let Ramp { since, credit } = ramp.as_mut()?;
        let length = nanos(self.config.ramp);
        let elapsed = nanos(now.saturating_since(*since));
        if elapsed >= length {
            *ramp = None;
            return None;
        }
        if self.config.mode == BreakerMode::MetricsOnly {
            return None;
        }
        let share = (u128::from(elapsed) * 1_000 / u128::from(length)) as u64;
        *credit += share.max(1_000 / RAMP_FLOOR);
        if *credit >= 1_000 {
            *credit -= 1_000;
            return None;
        }
        Some(now + Duration::from_nanos((length - elapsed).min(length / RAMP_FLOOR).max(1)))
    }

    fn slots(&self) -> u32 {
        self.max_probes().min(self.permission.probes.unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests;
