//! Plain calls: defaults, retries, waits and deadlines.

use std::time::Duration;

use omega_client::{AttemptOutcome, ChatCall, ChatRequest, ErrorKind, Message, Origin};
use tokio::time::Instant;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_prompt_is_answered_by_the_preferred_model() {
    let upstream = Upstream::sequence([openai::answer("Hello!")]);
    let client = client(&upstream);
    let answer = client.chat("Hi").await.unwrap();
    assert_eq!(answer.text(), "Hello!");
    assert_eq!((answer.provider.as_str(), answer.model.as_str()), ("openai", "gpt-5.2"));
    assert_eq!(answer.attempts.len(), 1);
    assert_eq!(answer.attempts[0].outcome, AttemptOutcome::Answered);
    assert_eq!(answer.usage.as_ref().map(|usage| usage.total_tokens), Some(15));
    assert_eq!(upstream.seen()[0].body["model"], "gpt-5.2");
    assert_eq!(upstream.seen()[0].body["stream"], true, "whole answers are guarded by a stream");
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn a_whole_answer_can_be_asked_for_whole() {
    let body = serde_json::json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-5.2",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Whole"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    });
    let upstream = Upstream::new(move |_, _| {
        Reply {
            headers: vec![("content-type", "application/json".into())],
            ..Reply::new(200, [text(body.to_string())])
        }
        .after(Duration::from_secs(100))
    });
    let client = configured(&upstream, "streaming: {guard_whole_answers: false}").build().unwrap();
    let answer = client.chat("Hi").await.unwrap();
    assert_eq!(answer.text(), "Whole");
    assert_ne!(upstream.seen()[0].body["stream"], true);
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ignores_the_wish_for_a_stream_is_understood() {
    let body = serde_json::json!({
        "id": "1", "object": "chat.completion", "created": 1, "model": "gpt-5.2",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Whole"}, "finish_reason": "stop"}]
    });
    let upstream = Upstream::new(move |_, _| Reply {
        headers: vec![("content-type", "application/json; charset=utf-8".into())],
        ..Reply::new(200, [text(body.to_string())])
    });
    assert_eq!(client(&upstream).chat("Hi").await.unwrap().text(), "Whole");
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_retried_after_the_backoff_of_the_specification() {
    let upstream = Upstream::sequence([openai::server_error(), openai::server_error(), openai::answer("ok")]);
    let client = client(&upstream);
    let start = Instant::now();
    let answer = client.chat("Hi").await.unwrap();
    assert_eq!(answer.attempts.len(), 3);
    let times = upstream.times(start);
    // base 1 s, doubled, jitter up to as much again; each attempt takes 0.1 s.
    let (first, second) = (times[1] - times[0] - 0.1, times[2] - times[1] - 0.1);
    assert!((1.0..2.01).contains(&first), "{first}");
    assert!((2.0..4.01).contains(&second), "{second}");
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn max_retries_counts_attempts() {
    for attempts in [1, 2, 4] {
        let upstream = Upstream::sequence([openai::server_error()]);
        let client = builder(&upstream).max_retries(attempts).build().unwrap();
        let error = client.chat("Hi").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Provider);
        assert_eq!(upstream.count(), attempts as usize);
        assert_eq!(error.attempts().len(), attempts as usize);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_can_lower_its_attempts() {
    let upstream = Upstream::sequence([openai::server_error()]);
    let call = ChatCall::from("Hi").max_attempts(1);
    client(&upstream).chat(call).await.unwrap_err();
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn zero_attempts_are_an_error_that_says_so() {
    let upstream = Upstream::sequence([openai::answer("ok")]);
    let error = builder(&upstream).max_retries(0).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("max_retries"), "{error}");
    let given =
        builder(&upstream).config(omega_client::Config::default()).max_retries(0).build().unwrap_err();
    assert!(given.to_string().contains("max_retries"), "{given}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_the_provider_names_is_never_undercut() {
    let throttled = || openai::rate_limited().header("retry-after", "7.5");
    let upstream = Upstream::sequence([throttled(), throttled(), openai::answer("ok")]);
    let client = client(&upstream);
    let start = Instant::now();
    client.chat("Hi").await.unwrap();
    let times = upstream.times(start);
    assert!(times[1] >= 0.1 + 7.5, "{times:?}");
    assert!(times[2] >= times[1] + 0.1 + 7.5, "{times:?}");
    assert!(times[2] < 20.0, "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn a_429_pauses_the_other_calls_too() {
    let upstream =
        Upstream::sequence([openai::rate_limited().header("retry-after", "20"), openai::answer("ok")]);
    let client = client(&upstream);
    let start = Instant::now();
    let (one, other) = tokio::join!(client.chat("one"), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.chat("other").await
    });
    assert!(one.is_ok() && other.is_ok());
    let times = upstream.times(start);
    assert!(times[1..].iter().all(|at| *at >= 20.1), "{times:?}");
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn a_hostile_wait_is_refused_at_once_when_it_ends_after_the_deadline() {
    let upstream = Upstream::sequence([openai::rate_limited().header("retry-after", "999999999")]);
    let client = client(&upstream);
    let start = Instant::now();
    let error = client.chat(ChatCall::from("Hi").timeout(Duration::from_secs(60))).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!((error.kind(), error.origin()), (ErrorKind::RateLimited, Origin::Provider));
    let wait = error.retry_after().unwrap();
    assert!(wait <= Duration::from_secs(301), "capped: {wait:?}");
}

#[tokio::test(start_paused = true)]
async fn no_call_lasts_longer_than_its_deadline() {
    let slow: Vec<Step> = [openai::role()]
        .into_iter()
        .chain((0..1_000).flat_map(|_| [wait(0.7), openai::content("x")]))
        .collect();
    let replies = [
        Reply::silence(),
        openai::server_error().after(Duration::from_secs(3)),
        openai::rate_limited().header("retry-after", "4"),
        Reply::new(200, slow),
        Reply::new(200, [openai::role(), Step::Hang]),
        Reply::new(500, [Step::Hang]),
    ];
    for reply in replies {
        for timeout in [0.5, 5.0, 9.9] {
            let upstream = Upstream::sequence([reply.clone()]);
            let client = client(&upstream);
            let (start, timeout) = (Instant::now(), Duration::from_secs_f64(timeout));
            let call = ChatCall::from("Hi").timeout(timeout).fallbacks(["claude-opus-5-5"]);
            client.chat(call).await.unwrap_err();
            let took = start.elapsed();
            assert!(took <= timeout + Duration::from_millis(5), "{took:?} of {timeout:?} with {reply:?}");
            assert_nothing_held(&client);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_callers_own_deadline_is_not_the_providers_failure() {
    let upstream = Upstream::sequence([Reply::silence()]);
    let client = client(&upstream);
    for _ in 0..10 {
        let error = client.chat(ChatCall::from("Hi").timeout(Duration::from_secs(2))).await.unwrap_err();
        assert_eq!((error.kind(), error.origin()), (ErrorKind::Deadline, Origin::Local));
    }
    assert_eq!(client.resilience_stats().circuit_breakers["openai"].failure_count, 0);
    // One that has been silent for ten seconds is, however short the deadline.
    client.chat(ChatCall::from("Hi").timeout(Duration::from_secs(12))).await.unwrap_err();
    assert_eq!(client.resilience_stats().circuit_breakers["openai"].failure_count, 1);
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn a_missing_key_names_its_variable() {
    let upstream = Upstream::sequence([openai::answer("ok")]);
    let client = bare(&upstream).build().unwrap();
    let error = client.chat("Hi").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("OPENAI_API_KEY"), "{error}");
    assert_eq!(upstream.count(), 0);
    assert!(matches!(error.attempts()[0].outcome, AttemptOutcome::Skipped { .. }));
}

#[tokio::test(start_paused = true)]
async fn arguments_win_over_the_environment_which_wins_over_the_file() {
    use omega_client::{Environment, FileChoice, Sources};
    let upstream = Upstream::sequence([openai::server_error()]);
    let sources = |environment: Environment| Sources {
        file: FileChoice::Text { name: "test.yaml".into(), yaml: "resilience: {max_retries: 4}".into() },
        environment,
        ..Sources::default()
    };
    let asked = |client: omega_client::UnifiedLLMClient| {
        let upstream = std::sync::Arc::clone(&upstream);
        async move {
            let before = upstream.count();
            client.chat("Hi").await.unwrap_err();
            upstream.count() - before
        }
    };
    let from_file = builder(&upstream).sources(sources(Environment::empty())).build().unwrap();
    assert_eq!(asked(from_file).await, 4);
    let two =
        Environment::from_pairs([("OMEGA_MAX_RETRIES", "2"), ("OMEGA_CIRCUIT_BREAKER_ENABLED", "false")]);
    let from_environment = builder(&upstream).sources(sources(two.clone())).build().unwrap();
    // An argument that nobody gave does not switch the breaker on again.
    assert!(!from_environment.configuration().config.breaker.enabled);
    assert_eq!(asked(from_environment).await, 2);
    let from_argument = builder(&upstream).sources(sources(two)).max_retries(1).build().unwrap();
    assert_eq!(asked(from_argument).await, 1);
}

#[tokio::test(start_paused = true)]
async fn everything_can_be_switched_off() {
    let upstream = Upstream::sequence([openai::server_error()]);
    let client = builder(&upstream)
        .enable_circuit_breaker(false)
        .enable_rate_limiting(false)
        .max_retries(1)
        .build()
        .unwrap();
    let start = Instant::now();
    for _ in 0..100 {
        client.chat("Hi").await.unwrap_err();
    }
    assert_eq!(upstream.count(), 100);
    assert!(start.elapsed() < Duration::from_secs(11));
    let stats = client.resilience_stats();
    assert_eq!(serde_json::to_value(&stats.circuit_breakers["openai"]).unwrap()["state"], "closed");
    assert_eq!(stats.rate_limiters["openai"].requests_last_minute, 100);
}

#[tokio::test(start_paused = true)]
async fn a_request_keeps_its_own_model_and_a_prefix_is_taken_off() {
    let upstream = Upstream::by_provider(|name, _| match name {
        "openai" => openai::answer("from openai"),
        _ => anthropic::answer("from anthropic"),
    });
    let client = client(&upstream);
    let request = ChatRequest::new("anthropic/claude-opus-5-5", [Message::user("Hi")]);
    let answer = client.chat(request).await.unwrap();
    assert_eq!(answer.text(), "from anthropic");
    assert_eq!(answer.model, "claude-opus-5-5");
    assert_eq!(upstream.seen()[0].body["model"], "claude-opus-5-5");
    let error = client.chat(ChatRequest::new("llama-99", [Message::user("Hi")])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(error.to_string().contains("llama-99"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_statistics_have_the_specifications_keys_and_types() {
    let upstream = Upstream::sequence([openai::answer("ok"), openai::server_error()]);
    let client = builder(&upstream).max_retries(1).build().unwrap();
    client.chat("Hi").await.unwrap();
    let stats = serde_json::to_value(client.resilience_stats()).unwrap();
    let keys = |value: &serde_json::Value| {
        let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    };
    assert_eq!(keys(&stats), ["circuit_breakers", "details", "rate_limiters"]);
    for provider in ["openai", "anthropic", "google", "grok"] {
        assert_eq!(
            keys(&stats["circuit_breakers"][provider]),
            ["failure_count", "last_failure_time", "name", "state", "success_count"]
        );
        assert_eq!(
            keys(&stats["rate_limiters"][provider]),
            [
                "concurrent_requests",
                "max_requests_per_minute",
                "max_tokens_per_minute",
                "requests_last_minute",
                "tokens_last_minute"
            ]
        );
    }
    let (breaker, limiter) = (&stats["circuit_breakers"]["openai"], &stats["rate_limiters"]["openai"]);
    assert_eq!(breaker["name"], "openai");
    assert_eq!(breaker["state"], "closed");
    assert_eq!((&breaker["failure_count"], &breaker["success_count"]), (&0.into(), &0.into()));
    assert!(breaker["last_failure_time"].is_null());
    assert_eq!(limiter["requests_last_minute"], 1);
    assert_eq!(
        (&limiter["max_requests_per_minute"], &limiter["max_tokens_per_minute"]),
        (&60.into(), &90_000.into())
    );
    assert_eq!(stats["rate_limiters"]["anthropic"]["max_requests_per_minute"], 50);
    client.chat("Hi").await.unwrap_err();
    let stats = client.resilience_stats();
    let breaker = &stats.circuit_breakers["openai"];
    assert_eq!(breaker.failure_count, 1);
    let time: jiff::Timestamp = breaker.last_failure_time.as_deref().unwrap().parse().unwrap();
    assert!(jiff::Timestamp::now().duration_since(time).as_secs().abs() < 60);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_will_not_stream_is_asked_for_the_whole_and_remembered() {
    let whole = serde_json::json!({
        "id": "1", "object": "chat.completion", "created": 1, "model": "gpt-5.2",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Whole"}, "finish_reason": "stop"}]
    });
    let refusal = serde_json::json!({"error": {
        "message": "This model is not streamed to you", "type": "invalid_request_error", "param": "stream", "code": null
    }});
    let upstream = Upstream::new(move |seen, _| {
        if seen.body["stream"] == true {
            return Reply::error(400, &refusal);
        }
        Reply {
            headers: vec![("content-type", "application/json".into())],
            ..Reply::new(200, [text(whole.to_string())])
        }
    });
    let client = client(&upstream);
    assert_eq!(client.chat("Hi").await.unwrap().text(), "Whole");
    assert_eq!(upstream.count(), 2);
    assert_eq!(client.chat("Hi").await.unwrap().attempts.len(), 1);
    // Who asks for a stream is told the truth.
    let error = client.chat_stream("Hi").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_sound_is_asked_for_whole() {
    let upstream = Upstream::sequence([openai::server_error()]);
    let request = ChatRequest::new("gpt-5.2", [Message::user("Hi")])
        .extra("modalities", serde_json::json!(["text", "audio"]))
        .extra("audio", serde_json::json!({"voice": "alloy", "format": "mp3"}));
    client(&upstream).chat(ChatCall::from(request).max_attempts(1)).await.unwrap_err();
    assert_ne!(upstream.seen()[0].body["stream"], true);
}

#[tokio::test(start_paused = true)]
async fn hostile_waits_are_capped_in_errors_too() {
    let upstream = Upstream::sequence([openai::rate_limited().header("retry-after", "999999999")]);
    let client = builder(&upstream).max_retries(1).build().unwrap();
    let error = client.chat("Hi").await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(300)));
}

#[tokio::test(start_paused = true)]
async fn a_spent_model_is_not_asked_again_until_it_resets() {
    let quota = serde_json::json!({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "You exceeded your current quota", "details": [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "20s"}
    ]}});
    let upstream = Upstream::new(move |_, _| Reply::error(429, &quota));
    let client = builder(&upstream).google_api_key("k").build().unwrap();
    let call = || ChatRequest::new("gemini-3-pro", [Message::user("Hi")]);
    assert_eq!(client.chat(call()).await.unwrap_err().kind(), ErrorKind::QuotaExhausted);
    let error = client.chat(call()).await.unwrap_err();
    assert_eq!((error.kind(), error.origin()), (ErrorKind::QuotaExhausted, Origin::Local), "{error}");
    assert!(error.retry_after().unwrap() > Duration::from_secs(60), "{error}");
    assert_eq!(upstream.count(), 1);
    assert_eq!(client.resilience_stats().circuit_breakers["google"].failure_count, 0);
}
