//! The circuit breaker through whole calls.

use std::time::Duration;

use futures_util::future::join_all;
use omega_client::{BreakerState, ChatCall, ClientEvent, ErrorKind, Origin, UnifiedLLMClient};
use tokio::time::{Instant, advance};

use crate::support::*;

fn state(client: &UnifiedLLMClient) -> BreakerState {
    client.resilience_stats().circuit_breakers["openai"].state
}

/// The specification's own test: ten calls that fail, then the state is "open".
#[tokio::test(start_paused = true)]
async fn ten_failures_open_the_circuit() {
    let upstream = Upstream::sequence([openai::server_error()]);
    let client = client(&upstream);
    let mut kinds = Vec::new();
    for _ in 0..10 {
        kinds.push(client.chat("test").await.unwrap_err().kind());
    }
    let stats = serde_json::to_value(client.resilience_stats()).unwrap();
    assert_eq!(stats["circuit_breakers"]["openai"]["state"], "open");
    assert_eq!(upstream.count(), 5, "nothing is sent once it is open");
    assert!(kinds[..2].iter().all(|kind| *kind == ErrorKind::Provider), "{kinds:?}");
    assert!(kinds[2..].iter().all(|kind| *kind == ErrorKind::CircuitOpen), "{kinds:?}");
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_refuses_at_once_and_says_when_to_come_back() {
    let upstream = Upstream::sequence([openai::server_error()]);
    let client = builder(&upstream).max_retries(1).build().unwrap();
    for _ in 0..5 {
        client.chat("test").await.unwrap_err();
    }
    let start = Instant::now();
    let error = client.chat("test").await.unwrap_err();
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!((error.kind(), error.origin()), (ErrorKind::CircuitOpen, Origin::Local));
    assert_eq!(error.provider(), Some("openai"));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(60)));
    assert_eq!(error.to_string(), "circuit for openai is open; next try in 60 s");
    advance(Duration::from_millis(59_500)).await;
    assert_eq!(client.chat("test").await.unwrap_err().retry_after(), Some(Duration::from_millis(500)));
    assert_eq!(upstream.count(), 5);
}

#[tokio::test(start_paused = true)]
async fn two_good_probes_close_it_again() {
    let upstream = Upstream::new(|_, at| if at < 5 { openai::server_error() } else { openai::answer("ok") });
    let client = builder(&upstream).max_retries(1).build().unwrap();
    let mut events = client.subscribe();
    for _ in 0..5 {
        client.chat("test").await.unwrap_err();
    }
    advance(Duration::from_secs(60)).await;
    client.chat("probe").await.unwrap();
    assert_eq!(state(&client), BreakerState::HalfOpen);
    client.chat("probe").await.unwrap();
    assert_eq!(state(&client), BreakerState::Closed);
    let mut transitions = Vec::new();
    while let Ok(Some(event)) = events.try_next() {
        if let ClientEvent::Transition(transition) = event {
            assert_eq!(transition.provider, "openai");
            transitions.push((transition.from, transition.to, transition.at));
        }
    }
    use BreakerState::{Closed, HalfOpen, Open};
    let states: Vec<_> = transitions.iter().map(|(from, to, _)| (*from, *to)).collect();
    assert_eq!(states, [(Closed, Open), (Open, HalfOpen), (HalfOpen, Closed)]);
    assert!(transitions[1].2 - transitions[0].2 >= Duration::from_secs(60));
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn half_open_lets_three_probes_through_at_once() {
    let upstream = Upstream::new(|_, at| {
        if at < 5 { openai::server_error() } else { openai::answer("ok").after(Duration::from_secs(5)) }
    });
    let client = builder(&upstream).max_retries(1).build().unwrap();
    for _ in 0..5 {
        client.chat("test").await.unwrap_err();
    }
    advance(Duration::from_secs(60)).await;
    let results = join_all((0..10).map(|_| client.chat("probe"))).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3);
    let refused = results.into_iter().filter_map(Result::err);
    assert!(refused.inspect(|error| assert_eq!(error.kind(), ErrorKind::CircuitOpen)).count() == 7);
    assert_eq!(upstream.count(), 8);
    assert_eq!(state(&client), BreakerState::Closed);
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_dropped_gives_its_slot_back() {
    let upstream = Upstream::new(|_, at| if at < 5 { openai::server_error() } else { Reply::silence() });
    let client = builder(&upstream).max_retries(1).build().unwrap();
    for _ in 0..5 {
        client.chat("test").await.unwrap_err();
    }
    advance(Duration::from_secs(60)).await;
    for _ in 0..10 {
        let probe = tokio::time::timeout(Duration::from_secs(1), client.chat("probe")).await;
        assert!(probe.is_err(), "it must have been let through, and dropped: {probe:?}");
    }
    assert_eq!(upstream.count(), 15);
    assert_eq!(state(&client), BreakerState::HalfOpen);
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn a_stream_settles_its_probe_at_the_first_content() {
    let long = || {
        Reply::new(200, [openai::role(), openai::content("a"), wait(30.0), openai::content("b"), Step::Hang])
    };
    let upstream = Upstream::new(move |_, at| if at < 5 { openai::server_error() } else { long() });
    let client = builder(&upstream).max_retries(1).build().unwrap();
    for _ in 0..5 {
        client.chat("test").await.unwrap_err();
    }
    advance(Duration::from_secs(60)).await;
    let one = client.chat_stream("probe").await.unwrap();
    assert_eq!(state(&client), BreakerState::HalfOpen);
    let other = client.chat_stream("probe").await.unwrap();
    assert_eq!(state(&client), BreakerState::Closed, "without waiting for their ends");
    drop((one, other));
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_cuts_every_stream_after_one_token_opens_its_circuit() {
    let upstream = Upstream::sequence([Reply::new(200, [openai::role(), openai::content("a"), Step::Break])]);
    let client = builder(&upstream).max_retries(1).build().unwrap();
    for _ in 0..5 {
        let mut stream = client.chat_stream("test").await.unwrap();
        let mut last = None;
        while let Some(item) = stream.next().await {
            last = Some(item);
        }
        assert_eq!(last.unwrap().unwrap_err().kind(), ErrorKind::StreamBroken);
    }
    assert_eq!(state(&client), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_plain_429_never_opens_it_and_a_spent_quota_does() {
    let upstream = Upstream::sequence([openai::rate_limited()]);
    let client = configured(
        &upstream,
        "rate_limiting: {openai: {max_requests_per_minute: 10000, max_tokens_per_minute: 10000000}}",
    )
    .max_retries(1)
    .build()
    .unwrap();
    for _ in 0..10 {
        client.chat("test").await.unwrap_err();
    }
    assert_eq!(state(&client), BreakerState::Closed);
    let upstream = Upstream::sequence([openai::insufficient_quota()]);
    let client = crate::support::client(&upstream);
    for _ in 0..5 {
        client.chat("test").await.unwrap_err();
    }
    assert_eq!(upstream.count(), 5, "a spent quota is never retried");
    assert_eq!(state(&client), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn waiters_are_shed_when_the_circuit_opens() {
    let upstream = Upstream::sequence([openai::server_error().after(Duration::from_secs(2))]);
    let client = builder(&upstream).max_retries(1).build().unwrap();
    let start = Instant::now();
    // Ten go out together and ten wait for their slots; the first four failures each let one of them go, the fifth
    // opens the circuit and sheds the other six.
    let results =
        join_all((0..20).map(|_| async { (client.chat("test").await.unwrap_err(), start.elapsed()) })).await;
    assert_eq!(upstream.count(), 14);
    let shed: Vec<_> = results.iter().filter(|(error, _)| error.kind() == ErrorKind::CircuitOpen).collect();
    assert_eq!(shed.len(), 6);
    assert!(shed.iter().all(|(_, at)| *at == Duration::from_secs(2)), "{shed:?}");
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn a_circuit_can_be_closed_by_hand() {
    let upstream = Upstream::new(|_, at| if at < 5 { openai::server_error() } else { openai::answer("ok") });
    let client = builder(&upstream).max_retries(1).build().unwrap();
    for _ in 0..5 {
        client.chat("test").await.unwrap_err();
    }
    assert_eq!(state(&client), BreakerState::Open);
    client.reset_circuit("openai").unwrap();
    assert_eq!(state(&client), BreakerState::Closed);
    client.chat(ChatCall::from("test")).await.unwrap();
    assert_eq!(client.reset_circuit("nobody").unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test(start_paused = true)]
async fn with_the_adaptive_preset_calls_without_a_fallback_wait_out_an_outage() {
    let start = Instant::now();
    let upstream = Upstream::new(move |_, _| {
        if start.elapsed() < Duration::from_secs(20) { openai::server_error() } else { openai::answer("ok") }
    });
    // `max_wait_seconds` bounds the wait for an open circuit as it does any other.
    let yaml = "preset: adaptive\nbackoff: {jitter: false}\nrate_limiting: {openai: {max_wait_seconds: 60}}";
    let client = configured(&upstream, yaml).build().unwrap();
    let results = join_all((0..30).map(|_| {
        let client = client.clone();
        async move { client.chat("test").await }
    }))
    .await;
    assert!(results.iter().all(Result::is_ok), "{:?}", results.iter().find(|result| result.is_err()));
    let took = start.elapsed();
    assert!((20..36).contains(&took.as_secs()), "a probe every fifteen seconds at the latest: {took:?}");
    assert!(upstream.count() < 30 + 35, "{} calls for 30 answers", upstream.count());
    assert_eq!(state(&client), BreakerState::Closed);
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn with_the_adaptive_preset_overload_is_retried_and_opens_nothing() {
    let upstream = Upstream::new(|_, number| match number % 4 {
        3 => openai::answer("ok"),
        _ => openai::error(529, "overloaded_error", "overloaded", "busy"),
    });
    let client = configured(&upstream, "preset: adaptive").build().unwrap();
    for _ in 0..10 {
        client.chat("test").await.unwrap();
    }
    assert_eq!(state(&client), BreakerState::Closed);
    assert_eq!(client.resilience_stats().circuit_breakers["openai"].failure_count, 0);
}
