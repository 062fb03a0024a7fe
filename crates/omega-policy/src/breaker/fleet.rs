//! A circuit that many processes share: it follows the others, and probes only with the fleet's permission.

use std::collections::BTreeMap;

use super::{BreakerMode, BreakerScope, Breakers, CircuitBreaker, PROBE_RETRY, State};
use crate::event::Events;
use crate::lease::borrower::Shared;
use crate::{ModelId, Timestamp, TripReason};

/// What the fleet lets this process do in a half-open circuit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Permission {
    /// Probes in flight here at most; `None`: as many as are configured, nobody else is asked.
    pub(super) probes: Option<u32>,
    /// The fleet's probes were all taken: not asked again before.
    denied_until: Timestamp,
}

/// Where a circuit stands, for comparing it with the fleet's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stand {
    Closed,
    Open { until: Timestamp },
    HalfOpen { probes: u32 },
}

impl CircuitBreaker {
    pub(crate) fn stand(&self) -> Stand {
        match self.state {
            State::Closed { .. } => Stand::Closed,
            State::Open { until, .. } => Stand::Open { until },
            State::HalfOpen { in_flight, .. } => Stand::HalfOpen { probes: in_flight },
        }
    }

    /// The fleet's probes, as configured here.
    pub(crate) fn max_probes(&self) -> u32 {
        self.config.half_open_max_calls.max(1)
    }

    /// So many probes may be in flight here; `None`: nobody is asked.
    pub(crate) fn permit(&mut self, probes: Option<u32>) {
        self.permission.probes = probes;
    }

    /// There was no probe to be had.
    pub(crate) fn deny_probe(&mut self, now: Timestamp) {
        self.permission.denied_until = now + PROBE_RETRY;
    }

    /// Does the next call here depend on what the fleet says?
    pub(crate) fn awaits_permission(&self, now: Timestamp) -> bool {
        self.config.enabled
            && self.config.mode == BreakerMode::Auto
            && self.permission.probes == Some(0)
            && match self.state {
                State::Closed { .. } => false,
                State::Open { until, .. } => now >= until,
                State::HalfOpen { in_flight, .. } => in_flight == 0,
            }
    }

    /// Until when such a call is refused without a question.
    pub(crate) fn denied_until(&self) -> Timestamp {
        self.permission.denied_until
    }

    /// The fleet's circuit is open until then. A circuit that is open here already is so until then too.
    pub(crate) fn follow_open(&mut self, until: Timestamp, now: Timestamp, events: &mut Events) {
        if !self.config.enabled {
            return;
        }
        let failures = match &mut self.state {
            State::Open { until: here, .. } => {
                *here = until;
                return;
            }
            State::Closed { consecutive, .. } => *consecutive,
            State::HalfOpen { failures, .. } => *failures,
        };
        self.opened_by = Some(TripReason::Elsewhere);
        self.transition(State::Open { until, failures }, now, events);
    }

    /// The fleet's circuit is closed.
    pub(crate) fn follow_closed(&mut self, now: Timestamp, events: &mut Events) {
        if !matches!(self.state, State::Closed { .. }) {
            self.transition(State::closed(now, None), now, events);
        }
    }
}

impl Breakers {
    /// The circuits that count, by whose they are.
    pub(crate) fn in_scope(&mut self) -> impl Iterator<Item = (Option<ModelId>, &mut CircuitBreaker)> {
        let per_model = self.config.scope == BreakerScope::Model;
        let own = (!per_model).then_some((None, &mut self.provider));
        let models = self.models.iter_mut().enumerate();
        let models = models.map(|(slot, circuit)| (Some(ModelId(slot as u32)), circuit));
        own.into_iter().chain(models.filter(move |_| per_model))
    }

    /// The circuit the fleet calls by this name, if it is one of ours.
    pub(crate) fn named(&mut self, model: Option<ModelId>) -> Option<&mut CircuitBreaker> {
        match (self.config.scope, model) {
            (BreakerScope::Provider, None) => Some(&mut self.provider),
            (BreakerScope::Model, Some(model)) => Some(self.of_model(model.0 as usize)),
            _ => None,
        }
    }

    /// Has a circuit here become something that the fleet does not know, or does a call wait to probe?
    pub(crate) fn has_turned(&self, known: &BTreeMap<Option<ModelId>, Shared>) -> bool {
        let turned = |pool: Option<ModelId>, circuit: &CircuitBreaker| match known.get(&pool) {
            Some(known) => known.wanted || known.turned(circuit.stand()).is_some(),
            None => circuit.stand() != Stand::Closed,
        };
        match self.config.scope {
            BreakerScope::Provider => turned(None, &self.provider),
            BreakerScope::Model => {
                let mut models = self.models.iter().enumerate();
                models.any(|(slot, circuit)| turned(Some(ModelId(slot as u32)), circuit))
            }
        }
    }

    /// Is the fleet asked before a probe is sent?
    pub(crate) fn ask_fleet(&mut self, asks: bool) {
        self.asks_fleet = asks;
        self.each().for_each(|circuit| circuit.permit(asks.then_some(0)));
    }
}
