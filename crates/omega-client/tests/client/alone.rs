//! A circuit and a gate by themselves, around what is no call of a model.

use std::sync::Arc;
use std::time::Duration;

use omega_client::{
    BreakerSettings, BreakerState, Circuit, ClientEvent, ErrorKind, Gate, GateLimits, Priority, SystemClock,
    TokenUsage,
};
use tokio::time::{Instant, advance};

fn circuit(settings: BreakerSettings) -> Circuit {
    Circuit::on(Arc::new(SystemClock::new()), "search", settings)
}

fn gate(limits: &GateLimits) -> Gate {
    Gate::alone_on(Arc::new(SystemClock::new()), "search", limits)
}

#[tokio::test(start_paused = true)]
async fn a_circuit_opens_is_tested_and_closes() {
    let circuit = circuit(BreakerSettings { failure_threshold: 2, ..BreakerSettings::default() });
    let mut events = circuit.subscribe();
    circuit.enter().unwrap().fail();
    circuit.enter().unwrap().succeed();
    circuit.enter().unwrap().fail();
    circuit.enter().unwrap().fail();
    let refused = circuit.enter().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::CircuitOpen);
    assert_eq!(refused.retry_after(), Some(Duration::from_secs(60)));
    assert_eq!(refused.to_string(), "circuit for search is open; next try in 60 s");
    let stats = circuit.stats();
    assert_eq!((stats.state, stats.failure_count, &*stats.name), (BreakerState::Open, 2, "search"));
    assert!(stats.last_failure_time.is_some());
    advance(Duration::from_secs(60)).await;
    let probes: Vec<_> = (0..3).map(|_| circuit.enter().unwrap()).collect();
    assert_eq!(circuit.enter().unwrap_err().kind(), ErrorKind::CircuitOpen);
    probes.into_iter().for_each(omega_client::CircuitPass::succeed);
    assert_eq!(circuit.stats().state, BreakerState::Closed);
    let mut states = Vec::new();
    while let Some(ClientEvent::Transition(change)) = events.try_next().unwrap() {
        states.push(change.to);
    }
    assert_eq!(states, [BreakerState::Open, BreakerState::HalfOpen, BreakerState::Closed]);
}

#[tokio::test(start_paused = true)]
async fn a_try_without_a_verdict_says_nothing_and_frees_its_place() {
    let circuit = circuit(BreakerSettings {
        failure_threshold: 1,
        half_open_max_calls: 1,
        success_threshold: 1,
        ..BreakerSettings::default()
    });
    drop(circuit.enter().unwrap());
    assert_eq!(circuit.stats().state, BreakerState::Closed);
    circuit.enter().unwrap().fail();
    advance(Duration::from_secs(60)).await;
    drop(circuit.enter().unwrap());
    circuit.enter().unwrap().succeed();
    assert_eq!(circuit.stats().state, BreakerState::Closed);
    circuit.enter().unwrap().fail();
    circuit.reset();
    assert!(circuit.enter().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_gate_lets_in_what_its_limits_hold_and_then_one_at_a_time() {
    let gate = gate(&GateLimits { requests_per_minute: Some(60), ..GateLimits::default() });
    let start = Instant::now();
    let enter = || gate.enter(0, Some(0), Priority::Normal, Duration::from_secs(30));
    for _ in 0..60 {
        enter().await.unwrap().settle(None);
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    enter().await.unwrap().settle(None);
    let waited = start.elapsed().as_secs_f64();
    assert!((0.9..1.1).contains(&waited), "{waited}");
    let refused = gate.enter(0, Some(0), Priority::Normal, Duration::ZERO).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::RateLimited);
    let stats = gate.stats();
    assert_eq!((stats.requests_last_minute, stats.max_requests_per_minute), (61, Some(60)));
}

#[tokio::test(start_paused = true)]
async fn a_gate_charges_what_was_used_and_says_what_can_never_fit() {
    let gate = gate(&GateLimits { tokens_per_minute: Some(1_000), ..GateLimits::default() });
    let enter = |tokens| gate.enter(tokens, Some(0), Priority::Normal, Duration::ZERO);
    let used = TokenUsage { input_tokens: 100, ..TokenUsage::default() };
    enter(900).await.unwrap().settle(Some(used));
    // 900 are left; what is dropped without a word is charged as it was estimated.
    drop(enter(800).await.unwrap());
    assert_eq!(enter(200).await.unwrap_err().kind(), ErrorKind::RateLimited);
    let never = enter(1_001).await.unwrap_err();
    assert_eq!(never.retry_after(), None);
    assert!(never.to_string().contains("the limit is 1000; no wait helps"), "{never}");
}

#[tokio::test(start_paused = true)]
async fn who_leaves_a_gates_queue_leaves_nothing_behind() {
    let gate = gate(&GateLimits { max_concurrent: Some(1), ..GateLimits::default() });
    let enter = || gate.enter(0, Some(0), Priority::Normal, Duration::from_secs(60));
    let inside = enter().await.unwrap();
    for _ in 0..10 {
        assert!(tokio::time::timeout(Duration::from_millis(10), enter()).await.is_err());
    }
    inside.settle(None);
    enter().await.unwrap().settle(None);
    assert_eq!(gate.usage().2, 0);
}
