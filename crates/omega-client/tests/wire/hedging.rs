//! A hedge over real connections: the provider that was too slow sees its client leave, and nothing stays behind.

use omega_client::{AttemptOutcome, BreakerState, ChatCall, ChatRequest, Message};
use omega_emulator::{Emulator, EmulatorConfig, Finished, Tls};
use omega_transport::TransportConfig;

use crate::support::*;

fn call() -> ChatCall {
    ChatCall::new(ChatRequest::new(OPENAI.model, [Message::user("Hello")])).fallbacks([ANTHROPIC.model])
}

async fn the_slow_one_is_left(tls: bool) {
    let config = EmulatorConfig { tls: tls.then(Tls::default), ..config() };
    let emulator = Emulator::start(config).await.unwrap();
    let mut transport = TransportConfig::default();
    transport.ca_pem = emulator.ca_pem().unwrap_or_default().into_bytes();
    let client = builder(&emulator, "hedging: {enabled: true, percent: 100}")
        .transport_config(transport)
        .build()
        .unwrap();
    // Until enough is known of how long first tokens take.
    for _ in 0..20 {
        client.chat(call()).await.unwrap();
    }
    for (hedges, fault) in [(1, "slow-first-token:30"), (2, "hang")] {
        fail(&emulator, Some("openai"), fault);
        let way = if hedges == 1 { Way::Guarded } else { Way::Stream };
        let heard = heard(&client, way, call()).await.unwrap();
        assert_eq!(
            (heard.provider.as_str(), heard.model.as_str()),
            ("anthropic", ANTHROPIC.model),
            "{fault}"
        );
        assert_eq!(client.resilience_stats().details.calls.hedges_won, hedges, "{fault}");
        // It is still on its way for half a minute unless it was told.
        let seen = settled(&emulator).await;
        let slow = seen.iter().rfind(|record| record.provider.name() == "openai").unwrap();
        assert_eq!((slow.finished, slow.output_tokens), (Finished::ClientDisconnected, 0), "{fault}");
        assert_nothing_held(&client).await;
    }
    heal(&emulator);
    let stats = client.resilience_stats();
    for vendor in [OPENAI, ANTHROPIC] {
        let breaker = &stats.circuit_breakers[vendor.name];
        assert_eq!((breaker.state, breaker.failure_count), (BreakerState::Closed, 0), "{}", vendor.name);
    }
    assert_eq!(stats.details.providers["openai"].cancelled_total, 2);
    let answer = client.chat(call()).await.unwrap();
    assert!(matches!(answer.attempts.last().unwrap().outcome, AttemptOutcome::Answered));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http1_the_slow_one_is_left() {
    the_slow_one_is_left(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http2_and_tls_the_slow_one_is_left() {
    the_slow_one_is_left(true).await;
}
