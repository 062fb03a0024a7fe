//! What the end of a call means to its circuit.

use std::time::Duration;

use super::{BreakerPermit, CircuitBreaker, Ramp, Role, Signal, State, TripReason};
use crate::event::Events;
use crate::time::nanos;
use crate::{Chance, Timestamp};

impl CircuitBreaker {
    pub(super) fn settle_closed(
        &mut self,
        permit: &BreakerPermit,
        signal: Signal,
        waited: Duration,
        now: Timestamp,
        chance: Chance,
        events: &mut Events,
    ) {
        let (failed, weighs, hint) = match signal {
            Signal::Success => (false, true, None),
            Signal::Failure { hint } | Signal::Overloaded { hint } => (true, true, hint),
            Signal::Throttled => (self.config.throttled_in_window, self.config.throttled_in_window, None),
            Signal::Neutral => (false, false, None),
        };
        if let (Some(window), true) = (&mut self.failure_window, weighs) {
            window.record(failed, now);
        }
        let mut trip = None;
        if let State::Closed { consecutive, broken, run_began, .. } = &mut self.state {
            let sent_at = Timestamp::from_nanos(now.as_nanos().saturating_sub(nanos(waited)));
            match signal {
                Signal::Success
                    if *consecutive != 0 && (!self.config.fresh_evidence || sent_at >= *run_began) =>
                {
                    (*consecutive, *broken) = (0, 0);
                }
                Signal::Failure { .. } => {
                    if *consecutive == 0 {
                        *run_began = sent_at;
                    }
                    *consecutive = consecutive.saturating_add(1);
                    *broken = broken.saturating_add(u32::from(permit.timed));
                    self.last_failure = Some(now);
                    if *consecutive >= self.config.failure_threshold.max(1) {
                        trip = Some((TripReason::ConsecutiveFailures, *consecutive));
                    }
                }
                _ => {}
            }
        }
        if trip.is_none()
            && failed
            && let (Some(window), Some(rate)) = (&self.failure_window, &self.config.failure_rate)
            && window.reaches(rate.percent, rate.min_calls)
        {
            trip = Some((TripReason::FailureRate, window.bad_calls()));
        }
        if let Some((reason, failures)) = trip {
            self.open(reason, failures, hint, now, chance, events);
        } else if matches!(signal, Signal::Failure { .. }) && !permit.timed {
            // It ended without a first token: known to be slow if it took at least as long as a slow one.
            self.sample_silence(waited, now, events);
        }
    }

    pub(super) fn settle_half_open(
        &mut self,
        permit: &BreakerPermit,
        signal: Signal,
        waited: Duration,
        now: Timestamp,
        chance: Chance,
        events: &mut Events,
    ) {
        match (permit.role, signal) {
            // A call that passed beyond the slots in `MetricsOnly` decides nothing.
            (Role::Call, _) => {}
            (Role::Probe, Signal::Success) => self.probe_succeeded(now, events),
            (Role::Probe | Role::SettledProbe, Signal::Failure { hint } | Signal::Overloaded { hint }) => {
                let failures = match self.state {
                    State::HalfOpen { failures, .. } => failures.saturating_add(1),
                    _ => 1,
                };
                self.last_failure = Some(now);
                // What a settled probe's stream did after its first token took its time for another reason.
                let silent = if permit.role == Role::Probe { waited } else { Duration::ZERO };
                self.open_since(TripReason::FailedProbe, failures, hint, silent, now, chance, events);
            }
            (Role::Probe, Signal::Throttled | Signal::Neutral) => self.free_slot(),
            (Role::SettledProbe, _) => {}
        }
    }

    pub(super) fn probe_succeeded(&mut self, now: Timestamp, events: &mut Events) {
        self.free_slot();
        if let State::HalfOpen { successes, .. } = &mut self.state {
            *successes += 1;
            if *successes >= self.config.success_threshold.max(1) {
                let ramp = (!self.config.ramp.is_zero()).then_some(Ramp { since: now, credit: 0 });
                self.transition(State::closed(now, ramp), now, events);
            }
        }
    }

    pub(super) fn free_slot(&mut self) {
        if let State::HalfOpen { in_flight, .. } = &mut self.state {
            *in_flight = in_flight.saturating_sub(1);
        }
    }

    pub(super) fn sample_first_token(&mut self, waited: Duration, now: Timestamp, events: &mut Events) {
        let Some(slow) = self.config.slow_first_token.as_ref().map(|slow| waited >= slow.threshold) else {
            return;
        };
        self.record_first_token(slow, now, events);
    }

    fn sample_silence(&mut self, waited: Duration, now: Timestamp, events: &mut Events) {
        if self.config.slow_first_token.as_ref().is_some_and(|slow| waited >= slow.threshold) {
            self.record_first_token(true, now, events);
        }
    }

    fn record_first_token(&mut self, slow: bool, now: Timestamp, events: &mut Events) {
        let (Some(window), Some(config)) = (&mut self.slow_window, &self.config.slow_first_token) else {
            return;
        };
        window.record(slow, now);
        if slow
            && matches!(self.state, State::Closed { .. })
            && window.reaches(config.percent, config.min_calls)
        {
            let failures = window.bad_calls();
            self.open(TripReason::SlowFirstToken, failures, None, now, Chance::ZERO, events);
        }
    }
}
