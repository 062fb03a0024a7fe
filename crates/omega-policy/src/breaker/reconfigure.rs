//! Another configuration for a circuit that runs: what it knows stays, as far as the new one has a place for it.

use super::{Breakers, CircuitBreaker, State};
use crate::breaker::window::RateWindow;
use crate::event::Events;
use crate::{BreakerConfig, Chance, Timestamp};

impl CircuitBreaker {
    /// Goes on under `config`.
    ///
    /// An open circuit stays open, at most for as long as the new open period lasts from now. Counts stay. A window of
    /// another length begins anew. Switched off or on, the circuit is closed, and what was sent before says nothing more.
    pub(super) fn reconfigure(&mut self, config: &BreakerConfig, now: Timestamp, events: &mut Events) {
        if self.config == *config {
            return;
        }
        let before = std::mem::replace(&mut self.config, config.clone());
        if before.enabled != config.enabled {
            self.reset(now, events);
        }
        let span = |config: &BreakerConfig| config.failure_rate.as_ref().map(|rate| rate.window);
        if span(&before) != span(config) {
            self.failure_window = span(config).map(|window| RateWindow::new(window, now));
        }
        let span = |config: &BreakerConfig| config.slow_first_token.as_ref().map(|slow| slow.window);
        if span(&before) != span(config) {
            self.slow_window = span(config).map(|window| RateWindow::new(window, now));
        }
        let period = self.open_period(Chance::ZERO);
        match &mut self.state {
            State::Open { until, .. } => *until = (*until).min(now + period),
            State::HalfOpen { deadline, .. } => *deadline = (*deadline).min(now + config.half_open_timeout),
            State::Closed { .. } => {}
        }
    }
}

impl Breakers {
    /// See [`CircuitBreaker::reconfigure`]. With another scope the circuits are other ones, and begin closed.
    pub(crate) fn reconfigure(&mut self, config: BreakerConfig, now: Timestamp, events: &mut Events) {
        if self.config == config {
            return;
        }
        if self.config.scope == config.scope {
            self.each().for_each(|circuit| circuit.reconfigure(&config, now, events));
        } else {
            // Permits of the old circuits must fit none of the new ones. Twice ahead, because a settled probe still
            // concerns the state that directly follows its own.
            let generation = self.each().map(|circuit| circuit.generation).max().unwrap_or_default();
            self.generation = generation.wrapping_add(2);
            self.created = now;
            self.models.clear();
            self.provider = CircuitBreaker::new(config.clone(), None, now);
            self.provider.generation = self.generation;
            self.provider.permit(self.asks_fleet.then_some(0));
        }
        self.config = config;
    }
}
