//! Calls dropped at random moments over real connections: everything goes back, the providers learn of it, and no
//! circuit takes it for a failure.

use std::time::Duration;

use omega_client::{BreakerState, ChatRequest, Message, UnifiedLLMClient};
use omega_emulator::{Emulator, EmulatorConfig, Finished, Latency, Tls};
use omega_transport::TransportConfig;
use tokio::task::JoinSet;

use crate::support::*;

const CALLS: usize = 600;

async fn emulator(tls: bool) -> Emulator {
    let mut config =
        EmulatorConfig { tls: tls.then(Tls::default), http2_max_concurrent_streams: Some(20), ..config() };
    // About 50 ms to an answer's end, over many pieces: there is time to be dropped anywhere.
    let latency = Latency { base_s: 0.015, jitter_s: 0.005, tokens_per_s: 300.0, ..Latency::none() };
    for provider in omega_emulator::Provider::ALL {
        config.providers[provider].latency = latency.clone();
    }
    Emulator::start(config).await.unwrap()
}

/// A client whose limits queue some of the calls.
fn limited(emulator: &Emulator) -> UnifiedLLMClient {
    let mut transport = TransportConfig::default();
    transport.ca_pem = emulator.ca_pem().unwrap_or_default().into_bytes();
    let mut builder = builder(emulator, "");
    for vendor in &VENDORS {
        builder = builder.setting(format!("rate_limiting.{}.max_concurrent_requests", vendor.name), "25");
    }
    builder.transport_config(transport).build().unwrap()
}

async fn dropped_at_random(tls: bool) {
    let emulator = emulator(tls).await;
    let client = limited(&emulator);
    let mut dice = fastrand::Rng::with_seed(if tls { 2 } else { 1 });
    let mut calls = JoinSet::new();
    for at in 0..CALLS {
        let vendor = &VENDORS[at % VENDORS.len()];
        let client = client.clone();
        // Half of them are dropped: in the queue, on their way, before the first piece or between two.
        let patience = (at % 2 == 0).then(|| Duration::from_micros(dice.u64(0..150_000)));
        let arrival = Duration::from_micros(dice.u64(0..300_000));
        calls.spawn(async move {
            tokio::time::sleep(arrival).await;
            let ask = ChatRequest::new(vendor.model, [Message::user("Hello [[output-tokens:8]]")]);
            let way = [Way::Guarded, Way::Stream][at / 2 % 2];
            match patience {
                None => heard(&client, way, ask).await.map(|_| true),
                Some(patience) => tokio::time::timeout(patience, heard(&client, way, ask))
                    .await
                    .map_or(Ok(false), |heard| heard.map(|_| true)),
            }
        });
    }
    let (mut ended, mut dropped) = (0, 0);
    while let Some(call) = calls.join_next().await {
        // Whatever is not dropped is answered: nothing of a dropped call stands in its way.
        if call.unwrap().unwrap() { ended += 1 } else { dropped += 1 }
    }
    assert!(ended >= CALLS / 2, "{ended} ended");
    assert!(dropped > 0, "none was dropped");

    // Some that are certainly in the middle of their answer.
    fail(&emulator, None, "stall-after:1");
    for vendor in &VENDORS {
        let ask = ChatRequest::new(vendor.model, [Message::user("Hello")]);
        drop(client.chat_stream(ask).await.unwrap());
    }
    heal(&emulator);

    assert_nothing_held(&client).await;
    let seen = settled(&emulator).await;
    let left = seen.iter().filter(|record| record.finished == Finished::ClientDisconnected).count();
    assert!(left >= VENDORS.len(), "the providers saw {left} clients leave");
    let stats = client.resilience_stats();
    let (mut cancelled, mut failed) = (0, 0);
    for vendor in &VENDORS {
        let breaker = &stats.circuit_breakers[vendor.name];
        let details = &stats.details.providers[vendor.name];
        assert_eq!((breaker.state, breaker.failure_count), (BreakerState::Closed, 0), "{}", vendor.name);
        assert_eq!(details.transitions_total, 0, "{}", vendor.name);
        cancelled += details.cancelled_total;
        failed += details.failed_total;
    }
    assert_eq!(failed, 0, "a caller who leaves is nobody's failure");
    assert!(
        cancelled >= dropped as u64 / 2,
        "{cancelled} permits and places came back, {dropped} were dropped"
    );

    // What they then have to give is all there.
    for vendor in &VENDORS {
        let ask = ChatRequest::new(vendor.model, [Message::user("Hello")]);
        assert_eq!(client.chat(ask).await.unwrap().text(), "You said: Hello");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_dropped_over_http1_leave_nothing_behind() {
    dropped_at_random(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_dropped_over_http2_and_tls_leave_nothing_behind() {
    dropped_at_random(true).await;
}
