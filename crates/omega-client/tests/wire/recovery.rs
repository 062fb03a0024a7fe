//! An outage over real HTTP: the circuit opens, the fallback serves, recovery closes it again.

use std::time::Duration;

use omega_client::{
    AttemptOutcome, BreakerState, ChatCall, ChatRequest, ClientEvent, ErrorKind, Events, Message,
    UnifiedLLMClient,
};
use omega_emulator::{Emulator, EmulatorConfig, Rule};

use crate::support::*;

/// Everything runs sixty times faster: the emulator's clock by this, the client's by its configuration.
const SCALE: f64 = 60.0;

const SCALED: &str = "
circuit_breaker: {timeout_seconds: 1, half_open_timeout_seconds: 1}
";

fn call() -> ChatCall {
    ChatCall::new(ChatRequest::new(OPENAI.model, [Message::user("Hello")])).fallbacks([ANTHROPIC.model])
}

fn state(client: &UnifiedLLMClient) -> BreakerState {
    client.resilience_stats().circuit_breakers["openai"].state
}

fn transitions(events: &mut Events) -> Vec<(BreakerState, BreakerState)> {
    let mut transitions = Vec::new();
    while let Ok(Some(event)) = events.try_next() {
        if let ClientEvent::Transition(event) = event {
            assert_eq!(event.provider, "openai");
            transitions.push((event.from, event.to));
        }
    }
    transitions
}

/// One call in the outage: answered all the same.
async fn answered(client: &UnifiedLLMClient, way: Way) -> String {
    let heard = heard(client, way, call()).await.unwrap();
    assert_eq!(heard.response.text(), "You said: Hello");
    heard.provider
}

#[tokio::test]
async fn an_outage_opens_the_circuit_and_recovery_closes_it() {
    use BreakerState::{Closed, HalfOpen, Open};
    for fault in ["overloaded", "server-error", "reset-before-headers", "bad-gateway-html"] {
        let emulator = Emulator::start(EmulatorConfig { time_scale: SCALE, ..config() }).await.unwrap();
        let client = builder(&emulator, SCALED).build().unwrap();
        let mut events = client.subscribe();
        assert_eq!(answered(&client, Way::Guarded).await, "openai");

        fail(&emulator, Some("openai"), fault);
        let mut ways = [Way::Guarded, Way::Stream].into_iter().cycle();
        let start = std::time::Instant::now();
        let mut seen = Vec::new();
        while seen.is_empty() {
            assert_eq!(answered(&client, ways.next().unwrap()).await, "anthropic", "{fault}");
            seen.extend(transitions(&mut events));
            assert!(start.elapsed() < PATIENCE, "{fault}: the circuit never opened");
        }

        // Another minute of trace time, then the provider is well again.
        let provider = omega_emulator::Provider::from_name("openai");
        play(&emulator, Rule { provider, until_s: Some(emulator.trace_seconds() + 60.0), ..rule(fault) });
        while seen.last() != Some(&(HalfOpen, Closed)) {
            answered(&client, ways.next().unwrap()).await;
            seen.extend(transitions(&mut events));
            assert!(start.elapsed() < PATIENCE, "{fault}: the circuit never closed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!((answered(&client, Way::Guarded).await.as_str(), state(&client)), ("openai", Closed));

        // A probe in the middle of the outage may have opened it again; the last one closed it.
        assert_eq!(seen[0], (Closed, Open), "{fault}");
        let (last, probes) = seen[1..].split_last_chunk::<2>().map(|(probes, last)| (last, probes)).unwrap();
        assert_eq!(*last, [(Open, HalfOpen), (HalfOpen, Closed)], "{fault}");
        for probe in probes.chunks(2) {
            assert_eq!(probe, [(Open, HalfOpen), (HalfOpen, Open)], "{fault}");
        }
        assert_nothing_held(&client).await;
    }
}

/// With the outage switched by hand and a circuit that stays open for an hour, nothing depends on the time.
#[tokio::test]
async fn an_open_circuit_leaves_the_provider_alone() {
    let emulator = emulator().await;
    let client = builder(&emulator, "circuit_breaker: {timeout_seconds: 3600}").build().unwrap();
    fail(&emulator, Some("openai"), "overloaded");
    while state(&client) == BreakerState::Closed {
        assert_eq!(answered(&client, Way::Guarded).await, "anthropic");
    }
    assert_eq!(asked(&emulator, "openai"), 5, "five failures open it, and nothing more was sent");
    for _ in 0..20 {
        let answer = client.chat(call()).await.unwrap();
        assert_eq!(answer.provider, "anthropic");
        assert!(
            matches!(
                &answer.attempts[0].outcome,
                AttemptOutcome::Refused { kind: ErrorKind::CircuitOpen, .. }
            ),
            "{:?}",
            answer.attempts
        );
    }
    assert_eq!(asked(&emulator, "openai"), 5);
    let error = client.chat(call().fallbacks::<String>([])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CircuitOpen);
    assert!(error.retry_after().is_some_and(|wait| wait > Duration::from_secs(3_000)));

    heal(&emulator);
    client.reset_circuit("openai").unwrap();
    assert_eq!(answered(&client, Way::Stream).await, "openai");
}
