//! Hundreds of streams at once over HTTP/2 connections that carry a hundred each.

use std::path::PathBuf;

use omega_client::{ChatRequest, ChatStream, Message, UnifiedLLMClient};
use omega_emulator::{Emulator, EmulatorConfig, Finished, Tls};
use tokio::task::JoinSet;

use crate::support::*;

const STREAMS: usize = 500;

/// HTTPS with its own authority, a hundred streams on each connection.
async fn over_tls() -> Emulator {
    let config =
        EmulatorConfig { tls: Some(Tls::default()), http2_max_concurrent_streams: Some(100), ..config() };
    Emulator::start(config).await.unwrap()
}

/// The emulator's authority as a file, under a name of its own.
fn ca_file(emulator: &Emulator) -> PathBuf {
    let name = format!("authority-{}-{}.pem", std::process::id(), emulator.addr().port());
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, emulator.ca_pem().unwrap()).unwrap();
    path
}

/// Opens as many streams of this model at once; each has received its first content when this returns.
async fn open(client: &UnifiedLLMClient, model: &str, streams: usize) -> Vec<ChatStream> {
    let mut opening = JoinSet::new();
    for at in 0..streams {
        let (client, model) = (client.clone(), model.to_owned());
        opening.spawn(async move {
            let ask = ChatRequest::new(model, [Message::user(format!("number {at}"))]);
            let mut stream = client.chat_stream(ask).await.unwrap();
            // The first content is among the items that are there already.
            loop {
                let chunk = stream.next().await.expect("the stream has not ended").unwrap();
                if chunk.has_content() {
                    return stream;
                }
            }
        });
    }
    let opened = async {
        let mut open = Vec::new();
        while let Some(stream) = opening.join_next().await {
            open.push(stream.unwrap());
        }
        open
    };
    tokio::time::timeout(PATIENCE, opened).await.expect("all of them make progress at once")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_streams_make_progress_at_once() {
    let emulator = over_tls().await;
    let path = ca_file(&emulator);
    let yaml = format!("tls: {{ca_file: '{}'}}", path.display());
    let client = builder(&emulator, &yaml)
        .setting("rate_limiting.openai.max_concurrent_requests", "600")
        .build()
        .unwrap();
    std::fs::remove_file(path).unwrap();

    // Each stream stands still after its first content, so none can end before all have begun.
    let streams = open(&client, "gpt-5.2+stall-after:1", STREAMS).await;
    assert_eq!(streams.len(), STREAMS);
    let seen = emulator.requests();
    assert_eq!(seen.len(), STREAMS, "each was sent once");
    for record in &seen {
        assert_eq!(record.finished, Finished::InProgress);
        assert_eq!(record.headers.http_version, "HTTP/2.0");
    }
    let pool = client.pool_stats().unwrap();
    assert_eq!(pool.in_flight(), STREAMS);
    assert_eq!(pool.waiting(), 0);
    assert!((5..=10).contains(&pool.connections()), "{pool:?}");
    let stats = client.resilience_stats();
    assert_eq!(stats.details.providers["openai"].permits_in_flight, STREAMS as u64);
    assert_eq!(stats.rate_limiters["openai"].concurrent_requests, STREAMS as u64);

    // All of them dropped at once: everything goes back, the provider learns of it, and the connections live on.
    drop(streams);
    assert_nothing_held(&client).await;
    let seen = settled(&emulator).await;
    assert!(seen.iter().all(|record| record.finished == Finished::ClientDisconnected));
    assert_eq!(client.resilience_stats().circuit_breakers["openai"].failure_count, 0);

    // And as many again, read to their ends.
    let opened_before = client.pool_stats().unwrap().origins[0].opened_total;
    let mut reading = JoinSet::new();
    for (at, mut stream) in open(&client, "gpt-5.2", STREAMS).await.into_iter().enumerate() {
        reading.spawn(async move {
            while let Some(chunk) = stream.next().await {
                chunk.unwrap_or_else(|error| panic!("stream {at}: {error}"));
            }
            assert!(stream.usage().is_some());
        });
    }
    let read = async {
        while let Some(read) = reading.join_next().await {
            read.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("all of them end");
    assert_nothing_held(&client).await;
    let stats = client.resilience_stats();
    assert_eq!(stats.details.providers["openai"].answered_total, STREAMS as u64);
    let origin = &client.pool_stats().unwrap().origins[0];
    assert_eq!(origin.opened_total, opened_before, "the connections were used again: {origin:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_slot_waits_here_and_not_unseen_in_a_connection() {
    let emulator = over_tls().await;
    let path = ca_file(&emulator);
    let yaml = format!("tls: {{ca_file: '{}'}}", path.display());
    let client = builder(&emulator, &yaml)
        .setting("rate_limiting.openai.max_concurrent_requests", "40")
        .build()
        .unwrap();
    std::fs::remove_file(path).unwrap();
    let mut streams = open(&client, "gpt-5.2+stall-after:1", 40).await;
    let waiter = {
        let client = client.clone();
        tokio::spawn(async move { client.chat("the next one").await.map(|answer| answer.queued) })
    };
    eventually("one waits for a slot", || {
        let stats = client.resilience_stats();
        (stats.details.providers["openai"].queued == 1).then_some(())
    })
    .await;
    assert_eq!(emulator.requests().len(), 40, "what waits is not sent");
    streams.pop();
    assert!(!waiter.await.unwrap().unwrap().is_zero());
    drop(streams);
    assert_nothing_held(&client).await;
}
