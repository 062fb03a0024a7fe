//! The circuits of one provider: one for all, or one for each model.

use super::{BreakerConfig, BreakerMode, BreakerScope, BreakerState, BreakerStats, CircuitBreaker, Gate};
use crate::{ModelId, Timestamp};

/// One circuit, or one per model.
#[derive(Debug)]
pub(crate) struct Breakers {
    pub(super) config: BreakerConfig,
    pub(super) created: Timestamp,
    pub(super) provider: CircuitBreaker,
    /// With scope `model`, by slot.
    pub(super) models: Vec<CircuitBreaker>,
    /// With which generation a new circuit begins.
    pub(super) generation: u64,
    /// Is the fleet asked before a probe is sent?
    pub(super) asks_fleet: bool,
}

impl Breakers {
    pub(crate) fn new(config: BreakerConfig, now: Timestamp) -> Self {
        Self {
            provider: CircuitBreaker::new(config.clone(), None, now),
            config,
            created: now,
            models: Vec::new(),
            generation: 0,
            asks_fleet: false,
        }
    }

    /// The circuit of the model whose state the limiter keeps at `slot`.
    #[inline]
    pub(crate) fn of(&mut self, slot: usize) -> &mut CircuitBreaker {
        match self.config.scope {
            BreakerScope::Provider => &mut self.provider,
            BreakerScope::Model => self.of_model(slot),
        }
    }

    pub(super) fn of_model(&mut self, slot: usize) -> &mut CircuitBreaker {
        while self.models.len() <= slot {
            let model = ModelId(self.models.len() as u32);
            let mut circuit = CircuitBreaker::new(self.config.clone(), Some(model), self.created);
            circuit.generation = self.generation;
            circuit.permit(self.asks_fleet.then_some(0));
            self.models.push(circuit);
        }
        &mut self.models[slot]
    }

    /// [`CircuitBreaker::look`] for that model.
    pub(crate) fn look(&self, slot: usize, now: Timestamp) -> Gate {
        match self.config.scope {
            BreakerScope::Provider => self.provider.look(now),
            BreakerScope::Model => self.models.get(slot).map_or(Gate::Pass, |circuit| circuit.look(now)),
        }
    }

    /// All circuits there are.
    pub(crate) fn each(&mut self) -> impl Iterator<Item = &mut CircuitBreaker> {
        std::iter::once(&mut self.provider).chain(&mut self.models)
    }

    /// May calls wait while a circuit is open?
    pub(crate) fn queues_when_open(&self) -> bool {
        self.config.queue_when_open && self.config.mode == BreakerMode::Auto
    }

    /// Does a failure of one model have a circuit of its own to move?
    pub(crate) fn is_per_model(&self) -> bool {
        self.config.scope == BreakerScope::Model
    }

    /// The operator's word over all of them, and over those still to come.
    pub(crate) fn set_mode(&mut self, mode: BreakerMode) {
        self.config.mode = mode;
        self.each().for_each(|circuit| circuit.set_mode(mode));
    }

    /// With scope `model`: the worst state, and the counters of all together.
    pub(crate) fn stats(&self) -> BreakerStats {
        let mut all = self.provider.stats();
        for stats in self.models.iter().map(CircuitBreaker::stats) {
            let (transitions, refused, late) = (all.transitions, all.refused, all.late_results);
            let last = all.last_failure.max(stats.last_failure);
            if severity(stats.state) > severity(all.state)
                || (stats.state == all.state && stats.failure_count > all.failure_count)
            {
                all = stats;
            }
            all.last_failure = last;
            all.transitions = transitions.saturating_add(stats.transitions);
            all.refused = refused.saturating_add(stats.refused);
            all.late_results = late.saturating_add(stats.late_results);
        }
        all
    }
}

fn severity(state: BreakerState) -> u8 {
    match state {
        BreakerState::Closed => 0,
        BreakerState::HalfOpen => 1,
        BreakerState::Open => 2,
    }
}
