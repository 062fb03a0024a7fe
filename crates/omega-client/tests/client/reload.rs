//! Another configuration for a client that runs: what is counted stays counted.

use std::time::Duration;

use futures_util::future::join_all;
use omega_client::{
    BreakerState, Config, Environment, ErrorKind, FileChoice, Loaded, Sources, UnifiedLLMClient,
};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::support::*;

fn loaded(yaml: &str) -> Loaded {
    let pairs = [("OPENAI_API_KEY", "sk-test-key-1"), ("ANTHROPIC_API_KEY", "sk-ant-test-key-2")];
    let file = FileChoice::Text { name: "test.yaml".into(), yaml: yaml.into() };
    Config::load(&Sources { file, environment: Environment::from_pairs(pairs), ..Sources::default() })
        .unwrap()
}

fn rpm(limit: u64) -> String {
    format!(
        "rate_limiting: {{openai: {{max_requests_per_minute: {limit}, max_tokens_per_minute: 10000000}}}}"
    )
}

fn sent(client: &UnifiedLLMClient) -> u64 {
    client.resilience_stats().rate_limiters["openai"].requests_last_minute
}

#[tokio::test(start_paused = true)]
async fn a_reload_is_no_gift_of_quota() {
    let upstream = Upstream::sequence([openai::answer("ok")]);
    let before = configured(&upstream, &rpm(6)).build().unwrap();
    for _ in 0..6 {
        before.chat("hi").await.unwrap();
    }
    for _ in 0..5 {
        let after = before.reconfigured(loaded(&rpm(6))).unwrap();
        assert_eq!(sent(&after), 6);
        let refused =
            after.chat(omega_client::ChatCall::from("hi").max_wait(Duration::ZERO)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::RateLimited);
    }
}

#[tokio::test(start_paused = true)]
async fn a_higher_limit_serves_those_who_wait_already() {
    let upstream = Upstream::sequence([openai::answer("ok")]);
    let before = configured(&upstream, &rpm(2)).build().unwrap();
    let tasks = TaskTracker::new();
    let start = Instant::now();
    for _ in 0..2 {
        before.chat("hi").await.unwrap();
    }
    // The next would wait for half a minute.
    let waiting = tasks.spawn({
        let client = before.clone();
        async move {
            client.chat("hi").await.unwrap();
            start.elapsed()
        }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = before.reconfigured(loaded(&rpm(600))).unwrap();
    let waited = waiting.await.unwrap();
    assert!(waited < Duration::from_secs(5), "{waited:?}");
    assert_eq!(sent(&after), 3);
    assert_nothing_held(&after);
    assert_nothing_held(&before);
}

#[tokio::test(start_paused = true)]
async fn calls_under_way_end_where_they_began_and_count_in_both() {
    let upstream = Upstream::sequence([openai::answer("ok").after(Duration::from_secs(10))]);
    let before = configured(&upstream, &rpm(60)).build().unwrap();
    let calls = (0..5).map(|_| before.chat("hi"));
    let reload = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        before.reconfigured(loaded(&rpm(30))).unwrap()
    };
    let (answers, after) = tokio::join!(join_all(calls), reload);
    assert!(answers.iter().all(Result::is_ok));
    let stats = after.resilience_stats();
    assert_eq!((stats.details.calls.started, stats.details.calls.answered), (5, 5));
    assert_eq!(stats.rate_limiters["openai"].max_requests_per_minute, Some(30));
    assert_nothing_held(&after);
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_stays_open() {
    let upstream = Upstream::sequence([openai::server_error()]);
    let before = configured(&upstream, "resilience: {max_retries: 1}").build().unwrap();
    for _ in 0..5 {
        before.chat("hi").await.unwrap_err();
    }
    let after = before.reconfigured(loaded("resilience: {max_retries: 2}")).unwrap();
    assert_eq!(after.resilience_stats().circuit_breakers["openai"].state, BreakerState::Open);
    assert_eq!(after.chat("hi").await.unwrap_err().kind(), ErrorKind::CircuitOpen);
    assert_eq!(upstream.count(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_used_changes_nothing() {
    let upstream = Upstream::sequence([openai::answer("ok")]);
    let before = configured(&upstream, &rpm(7)).build().unwrap();
    let error = before.reconfigured(loaded("model: nobody-knows-this")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(before.resilience_stats().rate_limiters["openai"].max_requests_per_minute, Some(7));
    before.chat("hi").await.unwrap();
}
