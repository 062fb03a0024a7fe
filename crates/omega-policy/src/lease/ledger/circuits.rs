//! The fleet's circuits: who turned them last, and who may probe.

use super::{CLOSED_KEPT, Circuit, Holder, Ledger};
use crate::{CircuitAsk, CircuitReport, Turn};

impl Ledger {
    pub(super) fn exchange_circuit(&mut self, me: &mut Holder, ask: &CircuitAsk<String>, now: f64) {
        let circuit = self.circuits.entry(ask.model.clone()).or_default();
        // One that nobody remembers has been closed for long.
        let follows = ask.turn == circuit.turn || circuit.turn == 0;
        match ask.turned {
            Some(Turn::Opened(seconds)) if follows => {
                self.turns += 1;
                *circuit = Circuit { turn: self.turns, open: true, until: now + seconds, probes: 0 };
            }
            Some(Turn::Closed) if follows && circuit.open => {
                self.turns += 1;
                let until = now + CLOSED_KEPT;
                *circuit = Circuit { turn: self.turns, open: false, until, probes: 0 };
            }
            _ => {}
        }
        let (turn, had) = me.circuits.get(&ask.model).copied().unwrap_or_default();
        let had = if turn == circuit.turn { had } else { 0 };
        let mut has = if ask.turn == circuit.turn { ask.probes.min(had) } else { 0 };
        circuit.probes = circuit.probes.saturating_sub(had) + has;
        if circuit.open && now >= circuit.until && ask.wants_probe && circuit.probes < ask.max_probes.max(1) {
            (has, circuit.probes) = (has + 1, circuit.probes + 1);
        }
        me.circuits.insert(ask.model.clone(), (circuit.turn, has));
    }

    pub(super) fn reports(&self, me: &Holder, now: f64) -> Vec<CircuitReport<String>> {
        let report = |(model, circuit): (&String, &Circuit)| {
            let (turn, probes) = me.circuits.get(model).copied().unwrap_or_default();
            CircuitReport {
                model: model.clone(),
                turn: circuit.turn,
                open: circuit.open,
                left: if circuit.open { (circuit.until - now).max(0.0) } else { 0.0 },
                probes: if turn == circuit.turn { probes } else { 0 },
            }
        };
        self.circuits.iter().filter(|(_, circuit)| circuit.turn > 0).map(report).collect()
    }
}
