//! Each log line of the specification, provoked and compared to the character.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::advance;

use crate::support::*;

#[tokio::test]
async fn a_client_announces_its_layers() {
    let log = Log::capture();
    let upstream = Upstream::sequence([openai::answer("ok")]);
    client(&upstream);
    assert_eq!(
        log.lines(),
        [
            "🔱 Circuit breakers initialized for all providers",
            "🔱 Rate limiters initialized for all providers"
        ]
    );
}

#[tokio::test]
async fn a_layer_that_is_off_is_not_announced() {
    let log = Log::capture();
    let upstream = Upstream::sequence([openai::answer("ok")]);
    builder(&upstream).enable_circuit_breaker(false).enable_rate_limiting(false).build().unwrap();
    assert_eq!(log.lines(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_and_its_backoff() {
    let log = Log::capture();
    let upstream = Upstream::sequence([openai::server_error(), openai::server_error(), openai::answer("ok")]);
    let client = configured(&upstream, "backoff: {base_delay: 1.17, jitter: false}").build().unwrap();
    client.chat("Hi").await.unwrap();
    let said = "500 server_error (internal_error): The server had an error";
    assert_eq!(
        log.lines()[2..],
        [
            format!("⚠️ LLM call failed on attempt 1/3: {said}"),
            "⏳ Backing off for 1.17s (attempt 1)".to_owned(),
            format!("⚠️ LLM call failed on attempt 2/3: {said}"),
            "⏳ Backing off for 2.34s (attempt 2)".to_owned(),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_quota_error() {
    let log = Log::capture();
    let upstream = Upstream::sequence([openai::server_error(), openai::insufficient_quota()]);
    client(&upstream).chat("Hi").await.unwrap_err();
    assert!(log.has("🚨 Quota/Rate limit error on attempt 2/3: insufficient_quota"), "{:?}", log.lines());
}

#[tokio::test(start_paused = true)]
async fn the_life_of_a_circuit() {
    let log = Log::capture();
    let upstream = Upstream::new(|_, at| if at < 5 { openai::server_error() } else { openai::answer("ok") });
    let client = builder(&upstream).max_retries(1).build().unwrap();
    for _ in 0..5 {
        client.chat("Hi").await.unwrap_err();
    }
    advance(Duration::from_secs(60)).await;
    client.chat("Hi").await.unwrap();
    client.chat("Hi").await.unwrap();
    let circuit: Vec<String> =
        log.lines().into_iter().filter(|line| line.contains("ircuit")).skip(1).collect();
    assert_eq!(
        circuit,
        [
            "🚨 Circuit breaker 'openai' OPEN after 5 failures",
            "🔄 Circuit 'openai' entering HALF_OPEN state",
            "✅ Circuit 'openai' CLOSED (recovered)",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_episode_of_limiting_is_logged_once() {
    let log = Log::capture();
    let upstream = Upstream::sequence([openai::answer("ok")]);
    let yaml = "rate_limiting: {openai: {max_concurrent_requests: 1000, depth_margin_seconds: 0, max_tokens_per_minute: 1000000}}";
    let client = configured(&upstream, yaml).build().unwrap();
    join_all((0..75).map(|_| client.chat("Hi"))).await;
    assert_eq!(log.count("⏸️ Rate limit hit for openai: 60 requests in last minute"), 1, "{:?}", log.lines());
    assert_eq!(log.lines().iter().filter(|line| line.contains("⏸️")).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn provider_text_is_cut_and_kept_on_one_line_in_the_log_and_whole_in_the_error() {
    let log = Log::capture();
    let long = format!("first\nsecond\u{1b}[2J {}", "word ".repeat(200));
    let upstream = Upstream::sequence([openai::error(500, "server_error", "", &long)]);
    let error = builder(&upstream).max_retries(1).build().unwrap().chat("Hi").await.unwrap_err();
    let lines = log.lines();
    let line = lines.iter().find(|line| line.starts_with("⚠️")).unwrap();
    assert!(line.chars().count() < 400 && !line.contains('\n') && !line.contains('\u{1b}'), "{line}");
    assert!(error.to_string().contains("first") && error.to_string().len() > line.len());
}

#[tokio::test(start_paused = true)]
async fn a_file_that_merely_lies_there_is_named() {
    use omega_client::{Config, Loaded};
    let log = Log::capture();
    let upstream = Upstream::sequence([openai::answer("ok")]);
    let loaded = Loaded {
        config: Config::default(),
        file: Some("config/resilience.yaml".into()),
        file_found_by_itself: true,
        settings: Vec::new(),
        warnings: vec!["something is odd".into()],
    };
    builder(&upstream).config(loaded).build().unwrap();
    assert_eq!(
        log.lines()[..2],
        [
            "configuration read from config/resilience.yaml (found in the working directory)",
            "something is odd"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn limits_that_look_low_are_mentioned_once() {
    let log = Log::capture();
    let upstream = Upstream::new(|_, _| openai::answer("ok").header("x-ratelimit-limit-requests", "10000"));
    let client = client(&upstream);
    client.chat("Hi").await.unwrap();
    client.chat("Hi").await.unwrap();
    let line = "openai allows 10000 requests per minute, but 60 are configured; \
                to use them set rate_limiting.openai.max_requests_per_minute";
    assert_eq!(log.count(line), 1, "{:?}", log.lines());
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_the_deadline_ends_is_a_failed_attempt() {
    let log = Log::capture();
    let upstream = Upstream::sequence([Reply::silence()]);
    let call = omega_client::ChatCall::from("Hi").timeout(Duration::from_secs(2));
    client(&upstream).chat(call).await.unwrap_err();
    let line = "⚠️ LLM call failed on attempt 1/3: no answer before the call's deadline (2 s)";
    assert_eq!(log.count(line), 1, "{:?}", log.lines());
}

#[tokio::test(start_paused = true)]
async fn a_log_subscriber_may_call_the_client_back() {
    /// Asks for statistics and resets the circuit from inside a log line.
    struct Meddler(std::sync::Mutex<Option<omega_client::UnifiedLLMClient>>, std::sync::atomic::AtomicUsize);
    impl tracing::Subscriber for Meddler {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, _: &tracing::Event<'_>) {
            let client = self.0.lock().unwrap().clone();
            if let Some(client) = client {
                client.resilience_stats();
                self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if client.resilience_stats().circuit_breakers["openai"].state
                    == omega_client::BreakerState::Open
                {
                    client.reset_circuit("openai").unwrap();
                }
            }
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }
    let upstream = Upstream::sequence([openai::server_error()]);
    let client = builder(&upstream).max_retries(1).build().unwrap();
    let meddler = std::sync::Arc::new(Meddler(std::sync::Mutex::new(Some(client.clone())), 0.into()));
    let dispatch = tracing::Dispatch::from(
        std::sync::Arc::clone(&meddler) as std::sync::Arc<dyn tracing::Subscriber + Send + Sync>
    );
    let _guard = tracing::dispatcher::set_default(&dispatch);
    for _ in 0..12 {
        client.chat("Hi").await.unwrap_err();
    }
    assert_eq!(upstream.count(), 12, "each time it opened it was closed again from inside the log");
    assert!(meddler.1.load(std::sync::atomic::Ordering::Relaxed) > 12);
}
