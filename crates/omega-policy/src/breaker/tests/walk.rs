//! Random walks: the breaker beside a model that is as naive as possible, and invariants of the design.

use proptest::prelude::*;

use super::*;

/// Keeps every permit with the epoch it came from, and recomputes from the definition. Consecutive failures only.
#[derive(Default)]
struct Naive {
    epoch: u32,
    state: BreakerState,
    failures: u32,
    successes: u32,
    /// Probes out, by the epoch's own list.
    probes: u32,
    until: u64,
    deadline: u64,
}

impl Naive {
    fn go(&mut self, state: BreakerState) {
        self.epoch += 1;
        self.state = state;
        (self.failures, self.successes, self.probes) = (0, 0, 0);
    }

    fn trip(&mut self, now: u64) {
        self.go(BreakerState::Open);
        self.until = now + 60;
    }

    fn admit(&mut self, now: u64) -> bool {
        if self.state == BreakerState::HalfOpen && self.probes > 0 && now >= self.deadline {
            self.trip(now);
        }
        if self.state == BreakerState::Open {
            if now < self.until {
                return false;
            }
            self.go(BreakerState::HalfOpen);
        }
        if self.state == BreakerState::HalfOpen {
            if self.probes == 3 {
                return false;
            }
            if self.probes == 0 {
                self.deadline = now + 60;
            }
            self.probes += 1;
        }
        true
    }

    fn end(&mut self, epoch: u32, signal: Option<Signal>, now: u64) {
        if epoch != self.epoch {
            return;
        }
        let probing = self.state == BreakerState::HalfOpen;
        self.probes = self.probes.saturating_sub(1);
        match signal {
            Some(Signal::Success) if probing => {
                self.successes += 1;
                if self.successes == 2 {
                    self.go(BreakerState::Closed);
                }
            }
            Some(Signal::Success) => self.failures = 0,
            Some(Signal::Failure { .. }) => {
                self.failures += 1;
                if probing || self.failures == 5 {
                    self.trip(now);
                }
            }
            _ => {}
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Admit,
    End(usize, Option<Signal>),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let signal = prop_oneof![
        3 => Just(Some(Signal::Success)),
        5 => Just(Some(FAILURE)),
        1 => Just(Some(Signal::Throttled)),
        1 => Just(Some(Signal::Neutral)),
        1 => Just(None),
    ];
    let step = prop_oneof![
        6 => Just(Step::Admit),
        6 => (0usize..8, signal).prop_map(|(which, signal)| Step::End(which, signal)),
        2 => (1u64..70).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..300)
}

proptest! {
    #[test]
    fn the_breaker_does_what_the_naive_model_does(steps in steps()) {
        let mut rig = Rig::new();
        rig.now = Timestamp::ZERO;
        let mut naive = Naive::default();
        let (mut out, mut second) = (Vec::new(), 0);
        for step in steps {
            match step {
                Step::Wait(by) => {
                    second += by;
                    rig.now = Timestamp::from_secs(second);
                }
                Step::Admit => {
                    let permit = rig.admit();
                    prop_assert_eq!(permit.is_ok(), naive.admit(second));
                    if let Ok(permit) = permit {
                        out.push((permit, naive.epoch));
                    }
                }
                Step::End(which, signal) if !out.is_empty() => {
                    let (permit, epoch) = out.swap_remove(which % out.len());
                    naive.end(epoch, signal, second);
                    match signal {
                        Some(signal) => rig.settle(permit, signal),
                        None => rig.breaker.release(permit),
                    }
                }
                Step::End(..) => {}
            }
            let stats = rig.stats();
            prop_assert_eq!(stats.state, naive.state);
            prop_assert!(stats.probes_in_flight <= 3);
            prop_assert_eq!(stats.probes_in_flight, if naive.state == BreakerState::HalfOpen { naive.probes } else { 0 });
            prop_assert_eq!(stats.success_count, naive.successes);
            prop_assert_eq!(stats.transitions, u64::from(naive.epoch));
        }
        prop_assert_eq!(rig.events().len() as u64, rig.stats().transitions);
    }

    /// I5: whatever happened before, an elapsed minute and two good probes always lead back to closed.
    #[test]
    fn no_history_wedges_the_circuit(steps in steps()) {
        let mut rig = Rig::new();
        let mut out = Vec::new();
        for step in steps {
            match step {
                Step::Wait(by) => rig.pass(by * 1_000),
                Step::Admit => out.extend(rig.admit()),
                Step::End(which, signal) if !out.is_empty() => {
                    let permit = out.swap_remove(which % out.len());
                    match signal {
                        Some(signal) => rig.settle(permit, signal),
                        None => rig.breaker.release(permit),
                    }
                }
                Step::End(..) => {}
            }
        }
        // Everything still out never comes back.
        rig.pass(60_000);
        let _ = rig.admit().map(|permit| rig.settle(permit, Signal::Success));
        rig.pass(60_000);
        rig.call(Signal::Success, 2);
        prop_assert_eq!(rig.state(), BreakerState::Closed);
    }
}
