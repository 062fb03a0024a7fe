//! When another target is asked, and when it is not.

use std::time::Duration;

use futures_util::future::join_all;
use omega_client::{
    Answer, AttemptOutcome, ChatCall, ChatRequest, ChatResponse, EmbeddingsCall, EmbeddingsRequest,
    ErrorKind, Message, ResponsesRequest,
};
use tokio::time::Instant;

use crate::support::*;

fn with_fallback() -> ChatCall {
    ChatCall::from("Hi").fallbacks(["claude-opus-5-5"])
}

/// OpenAI answers like this, Anthropic is healthy.
fn upstream(openai: impl Fn() -> Reply + Send + Sync + 'static) -> std::sync::Arc<Upstream> {
    Upstream::by_provider(move |name, _| match name {
        "openai" => openai(),
        _ => anthropic::answer("from the fallback"),
    })
}

fn assert_fallback(answer: &Answer<ChatResponse>) {
    assert_eq!((answer.provider.as_str(), answer.model.as_str()), ("anthropic", "claude-opus-5-5"));
    assert_eq!(answer.text(), "from the fallback");
}

#[tokio::test(start_paused = true)]
async fn exhausted_retries_turn_to_the_fallback() {
    let upstream = upstream(openai::server_error);
    let client = client(&upstream);
    let answer = client.chat(with_fallback()).await.unwrap();
    assert_fallback(&answer);
    assert_eq!((upstream.asked("openai"), upstream.asked("anthropic")), (3, 1));
    let story: Vec<_> = answer.attempts.iter().map(|attempt| attempt.provider.as_str()).collect();
    assert_eq!(story, ["openai", "openai", "openai", "anthropic"]);
    assert_eq!(client.resilience_stats().details.providers["openai"].failed_over_total, 1);
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn terminal_failures_of_one_target_turn_at_once() {
    let replies: Vec<fn() -> Reply> = vec![
        openai::insufficient_quota,
        || openai::error(401, "invalid_request_error", "invalid_api_key", "Incorrect API key"),
        || openai::error(404, "invalid_request_error", "model_not_found", "no such model"),
        || openai::error(400, "invalid_request_error", "context_length_exceeded", "maximum context length"),
    ];
    for reply in replies {
        let upstream = upstream(reply);
        let start = Instant::now();
        assert_fallback(&client(&upstream).chat(with_fallback()).await.unwrap());
        assert_eq!(upstream.asked("openai"), 1);
        assert!(start.elapsed() < Duration::from_millis(300), "{:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_request_is_asked_once_and_nowhere_else() {
    let upstream =
        upstream(|| openai::error(400, "invalid_request_error", "bad", "`temperature` is too high"));
    let error = client(&upstream).chat(with_fallback()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert_eq!(upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_is_passed_by_without_a_pause() {
    let upstream = upstream(openai::server_error);
    let client = builder(&upstream).max_retries(1).build().unwrap();
    for _ in 0..5 {
        client.chat("Hi").await.unwrap_err();
    }
    let start = Instant::now();
    let answer = client.chat(with_fallback()).await.unwrap();
    assert_fallback(&answer);
    assert_eq!(start.elapsed(), Duration::from_millis(100));
    assert_eq!(upstream.asked("openai"), 5);
    assert!(matches!(
        answer.attempts[0].outcome,
        AttemptOutcome::Refused { kind: ErrorKind::CircuitOpen, .. }
    ));
}

#[tokio::test(start_paused = true)]
async fn a_short_hint_is_waited_out_and_a_long_one_is_not() {
    for (hint, provider, at_least, at_most) in [("3", "openai", 3.1, 5.6), ("6", "anthropic", 0.1, 0.3)] {
        let upstream = Upstream::by_provider(move |name, at| match (name, at) {
            ("openai", 0) => openai::rate_limited().header("retry-after", hint),
            ("openai", _) => openai::answer("from the first"),
            _ => anthropic::answer("from the fallback"),
        });
        let start = Instant::now();
        let answer = client(&upstream).chat(with_fallback()).await.unwrap();
        assert_eq!(answer.provider, provider, "hint of {hint} s");
        let took = start.elapsed().as_secs_f64();
        assert!((at_least..=at_most).contains(&took), "{took} with a hint of {hint} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_provider_costs_ten_seconds_and_is_not_asked_again() {
    let upstream = upstream(Reply::silence);
    let start = Instant::now();
    let client = configured(&upstream, "model: gpt-4.1").build().unwrap();
    assert_fallback(&client.chat(with_fallback()).await.unwrap());
    assert_eq!(upstream.asked("openai"), 1);
    let took = start.elapsed().as_secs_f64();
    assert!((10.0..10.5).contains(&took), "{took}");
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn a_silent_provider_is_asked_again_where_there_is_no_other() {
    let upstream = Upstream::sequence([Reply::silence(), openai::answer("ok")]);
    let start = Instant::now();
    let answer = client(&upstream).chat("Hi").await.unwrap();
    assert_eq!(answer.attempts.len(), 2);
    assert!(start.elapsed() > Duration::from_secs(30), "after the whole first-byte clock");
}

#[tokio::test(start_paused = true)]
async fn a_long_queue_is_left_for_a_free_target_and_a_short_one_is_not() {
    let upstream = Upstream::by_provider(|name, _| match name {
        "openai" => openai::answer("from the first"),
        _ => anthropic::answer("from the fallback"),
    });
    let yaml = "rate_limiting: {openai: {max_requests_per_minute: 60, burst_seconds: 1}, anthropic: {burst_seconds: 60}}";
    let client = configured(&upstream, yaml).build().unwrap();
    let start = Instant::now();
    let answers = join_all((0..12).map(|_| async {
        let provider = client.chat(with_fallback()).await.unwrap().provider;
        (provider, start.elapsed())
    }))
    .await;
    let moved = answers.iter().filter(|(provider, _)| provider == "anthropic");
    assert!(moved.clone().all(|(_, at)| *at < Duration::from_millis(300)), "at once: {answers:?}");
    let providers: Vec<&str> = answers.iter().map(|(provider, _)| provider.as_str()).collect();
    // One goes at once, five wait up to five seconds, the others find the fallback free.
    assert_eq!(providers.iter().filter(|provider| **provider == "openai").count(), 6, "{providers:?}");
    assert!(start.elapsed() < Duration::from_secs(6));
    assert_nothing_held(&client);
    let openai = &client.resilience_stats().details.providers["openai"];
    assert_eq!((openai.cancelled_total, openai.failed_over_total), (0, 6), "nobody went away");
}

#[tokio::test(start_paused = true)]
async fn a_queue_held_up_by_slow_calls_is_left_after_the_failover_wait() {
    let upstream = Upstream::by_provider(|name, _| match name {
        "openai" => openai::answer("slow").after(Duration::from_secs(8)),
        _ => anthropic::answer("from the fallback"),
    });
    let yaml = "{model: gpt-4.1, rate_limiting: {openai: {max_concurrent_requests: 1}}}";
    let client = configured(&upstream, yaml).build().unwrap();
    let start = Instant::now();
    let (first, second) = tokio::join!(client.chat(with_fallback()), async {
        let answer = client.chat(with_fallback()).await;
        (answer, start.elapsed())
    });
    assert_eq!(first.unwrap().provider, "openai");
    assert_fallback(&second.0.unwrap());
    let took = second.1.as_secs_f64();
    assert!((5.0..5.5).contains(&took), "{took}");
    assert_eq!(client.resilience_stats().details.providers["openai"].cancelled_total, 0, "nobody went away");
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn a_place_is_kept_when_nobody_else_is_free() {
    let upstream = Upstream::by_provider(|name, _| match name {
        "openai" => openai::answer("from the first").after(Duration::from_secs(8)),
        _ => anthropic::answer("from the fallback").after(Duration::from_secs(100)),
    });
    let yaml = "{model: gpt-4.1, rate_limiting: {openai: {max_concurrent_requests: 1}, anthropic: {max_concurrent_requests: 1}}}";
    let client = configured(&upstream, yaml).build().unwrap();
    let busy = {
        let client = client.clone();
        let request = omega_client::ChatRequest::new("claude-opus-5-5", [omega_client::Message::user("Hi")]);
        tokio::spawn(async move { client.chat(request).await })
    };
    tokio::task::yield_now().await;
    let start = Instant::now();
    let order = join_all((0..3).map(|_| async {
        let provider = client.chat(with_fallback()).await.unwrap().provider;
        (provider, start.elapsed().as_secs())
    }))
    .await;
    let expected = [8, 16, 24].map(|at| ("openai".to_owned(), at));
    assert_eq!(order, expected);
    busy.abort();
}

#[tokio::test(start_paused = true)]
async fn a_target_without_a_key_is_skipped_with_a_record() {
    let upstream = upstream(openai::server_error);
    let client = bare(&upstream).anthropic_api_key("sk-ant").build().unwrap();
    let answer = client.chat(with_fallback()).await.unwrap();
    assert_fallback(&answer);
    assert!(
        matches!(&answer.attempts[0].outcome, AttemptOutcome::Skipped { message } if message.contains("OPENAI_API_KEY"))
    );
    assert_eq!(upstream.asked("openai"), 0);
}

#[tokio::test(start_paused = true)]
async fn when_all_fail_the_first_target_speaks_and_the_others_are_named() {
    let upstream = Upstream::by_provider(|name, _| match name {
        "openai" => openai::insufficient_quota(),
        _ => anthropic::overloaded(),
    });
    let error = client(&upstream).chat(with_fallback()).await.unwrap_err();
    assert_eq!((error.kind(), error.provider()), (ErrorKind::QuotaExhausted, Some("openai")));
    let text = error.to_string();
    assert!(text.contains("insufficient_quota") && text.contains("overloaded_error"), "{text}");
    assert_eq!(error.attempts().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_fails_before_its_content_is_failed_over_unseen() {
    let cut = || Reply::new(200, [openai::role(), Step::Break]);
    let ended = || Reply::new(200, [openai::role()]);
    let in_band = || {
        Reply::new(
            200,
            [
                openai::role(),
                text("data: {\"error\":{\"message\":\"busy\",\"type\":\"server_error\",\"code\":null}}\n\n"),
            ],
        )
    };
    for reply in [cut as fn() -> Reply, ended, in_band] {
        let upstream = upstream(reply);
        let client = client(&upstream);
        let mut stream = client.chat_stream(with_fallback()).await.unwrap();
        assert_eq!(stream.provider(), "anthropic");
        let mut said = String::new();
        while let Some(chunk) = stream.next().await {
            said.push_str(chunk.unwrap().text());
        }
        assert_eq!(said, "from the fallback");
        assert_nothing_held(&client);
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_target_is_asked_once_however_often_it_is_named() {
    let upstream = Upstream::sequence([openai::server_error()]);
    let call = ChatCall::from("Hi").fallbacks(["openai/gpt-5.2", "gpt-5.2"]).max_attempts(1);
    client(&upstream).chat(call).await.unwrap_err();
    assert_eq!(upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn configured_servers_are_targets_like_any_other() {
    let upstream = Upstream::by_provider(|name, _| match name {
        "openai" => openai::insufficient_quota(),
        _ => openai::answer("from the server"),
    });
    let yaml = "
fallbacks: [vllm/qwen3]
providers: {vllm: {protocol: openai, base_url: 'http://vllm.internal:8000/v1'}}
";
    let client = configured(&upstream, yaml).build().unwrap();
    let answer = client.chat("Hi").await.unwrap();
    assert_eq!(
        (answer.provider.as_str(), answer.model.as_str(), answer.text()),
        ("vllm", "qwen3", "from the server")
    );
    assert_eq!(upstream.seen()[1].path, "/v1/chat/completions");
    let stats = client.resilience_stats();
    assert_eq!(stats.rate_limiters["vllm"].requests_last_minute, 1);
    assert_eq!(stats.circuit_breakers.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_target_without_such_calls_is_no_alternative() {
    let limited = || openai::rate_limited().header("retry-after", "20");
    let whole = serde_json::json!({
        "id": "resp_1", "object": "response", "status": "completed", "model": "gpt-5.2", "output": []
    });
    let whole = Reply {
        headers: vec![("content-type", "application/json".into())],
        ..Reply::new(200, [text(whole.to_string())])
    };
    let upstream = Upstream::sequence([limited(), whole]);
    let client = builder(&upstream).fallbacks(["claude-opus-5-5"]).build().unwrap();
    let start = Instant::now();
    let answer = client.responses(ResponsesRequest::new("gpt-5.2", "Hi")).await.unwrap();
    assert_eq!(answer.provider, "openai");
    let took = start.elapsed().as_secs();
    assert!((20..23).contains(&took), "the hint was waited out, since nobody else could answer: {took}");
    assert_eq!(answer.attempts.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_place_is_not_given_up_for_a_target_that_cannot_take_the_call() {
    let upstream = Upstream::by_provider(|name, _| match name {
        "openai" => openai::answer("from the first").after(Duration::from_secs(8)),
        _ => anthropic::answer("from the fallback"),
    });
    let yaml = "{model: gpt-4.1, rate_limiting: {openai: {max_concurrent_requests: 1}}}";
    let client = configured(&upstream, yaml).build().unwrap();
    // Anthropic's protocol has no `n`.
    let call = || {
        ChatCall::new(ChatRequest::new("gpt-4.1", [Message::user("Hi")]).n(2)).fallbacks(["claude-opus-5-5"])
    };
    let (first, second) = tokio::join!(client.chat(call()), client.chat(call()));
    assert_eq!(first.unwrap().provider, "openai");
    assert_eq!(second.unwrap().provider, "openai");
    assert_eq!(upstream.asked("anthropic"), 0);
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn a_model_whose_own_circuit_is_open_is_no_alternative() {
    let upstream = Upstream::by_provider(|name, at| match (name, at) {
        ("openai", 0) => openai::rate_limited().header("retry-after", "20"),
        ("openai", _) => openai::answer("from the first"),
        _ => anthropic::overloaded(),
    });
    let yaml = "circuit_breaker: {scope: model, failure_threshold: 1}";
    let client = configured(&upstream, yaml).build().unwrap();
    let fallback = ChatRequest::new("claude-opus-5-5", [Message::user("Hi")]);
    client.chat(ChatCall::new(fallback).max_attempts(1)).await.unwrap_err();
    let start = Instant::now();
    let answer = client.chat(with_fallback()).await.unwrap();
    let took = start.elapsed().as_secs();
    assert_eq!(answer.provider, "openai");
    assert!((20..23).contains(&took), "the hint was waited out: {took}");
    assert_eq!(upstream.asked("anthropic"), 1, "its circuit was left alone");
}

#[tokio::test(start_paused = true)]
async fn looking_around_counts_no_refusals() {
    let upstream = Upstream::by_provider(|name, _| match name {
        "openai" => openai::answer("from the first").after(Duration::from_secs(8)),
        _ => anthropic::answer("from the fallback").after(Duration::from_secs(100)),
    });
    let yaml = "{model: gpt-4.1, rate_limiting: {openai: {max_concurrent_requests: 1}, anthropic: {max_concurrent_requests: 1}}}";
    let client = configured(&upstream, yaml).build().unwrap();
    let busy = {
        let client = client.clone();
        let request = ChatRequest::new("claude-opus-5-5", [Message::user("Hi")]);
        tokio::spawn(async move { client.chat(request).await })
    };
    tokio::task::yield_now().await;
    for answer in join_all((0..2).map(|_| client.chat(with_fallback()))).await {
        assert_eq!(answer.unwrap().provider, "openai");
    }
    let providers = client.resilience_stats().details.providers;
    let (openai, anthropic) = (&providers["openai"], &providers["anthropic"]);
    assert_eq!((openai.queued_total, openai.limit_refused_total), (1, 0));
    assert_eq!((anthropic.queued_total, anthropic.limit_refused_total), (0, 0), "it was only looked at");
    busy.abort();
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_notices_that_another_circuit_lets_calls_through_again() {
    let upstream = Upstream::by_provider(|name, at| match (name, at) {
        ("openai", _) => openai::answer("from the first").after(Duration::from_secs(25)),
        (_, 0) => anthropic::overloaded(),
        _ => anthropic::answer("from the fallback"),
    });
    let yaml = "{model: gpt-4.1, rate_limiting: {openai: {max_concurrent_requests: 1}}, \
                circuit_breaker: {failure_threshold: 1, timeout_seconds: 10}}";
    let client = configured(&upstream, yaml).build().unwrap();
    let fallback = ChatRequest::new("claude-opus-5-5", [Message::user("Hi")]);
    client.chat(ChatCall::new(fallback).max_attempts(1)).await.unwrap_err();
    let start = Instant::now();
    let (first, second) = tokio::join!(client.chat("Hi"), async {
        let answer = client.chat(with_fallback()).await.unwrap();
        (answer, start.elapsed().as_secs())
    });
    assert_eq!(first.unwrap().provider, "openai");
    assert_fallback(&second.0);
    assert!((10..=15).contains(&second.1), "{}", second.1);
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_stream_is_given_the_time_to_write() {
    let whole = |seconds| Reply {
        headers: vec![("content-type", "application/json".into())],
        ..Reply::new(200, [text(openai_whole("from the first"))]).after(Duration::from_secs(seconds))
    };
    let upstream = Upstream::by_provider(move |name, at| match (name, at) {
        ("openai", 0) => whole(2),
        ("openai", _) => whole(20),
        _ => anthropic::answer("from the fallback"),
    });
    let client = client(&upstream);
    for _ in 0..2 {
        assert_eq!(client.chat(with_fallback()).await.unwrap().provider, "openai");
    }
    assert_eq!(upstream.seen()[0].body["stream"], true);
    assert_ne!(upstream.seen()[1].body["stream"], true, "asked for the whole from then on");
}

fn openai_whole(said: &str) -> String {
    serde_json::json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_790_000_000, "model": "gpt-5.2",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}]
    })
    .to_string()
}

#[tokio::test(start_paused = true)]
async fn the_clock_of_embeddings_learns_too() {
    let answer = |seconds| {
        let body = serde_json::json!({
            "object": "list", "model": "text-embedding-3-large",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
            "usage": {"prompt_tokens": 1, "total_tokens": 1}
        });
        Reply::new(200, [text(body.to_string())]).after(Duration::from_secs(seconds))
    };
    let upstream = Upstream::by_provider(move |_, at| answer(if at < 20 { 8 } else { 20 }));
    let client = builder(&upstream).google_api_key("a-key-for-google").build().unwrap();
    for _ in 0..21 {
        let request = EmbeddingsRequest::new("text-embedding-3-large", ["Hi"]);
        let call = EmbeddingsCall::new(request).fallbacks(["gemini-embedding-001"]);
        assert_eq!(client.embeddings(call).await.unwrap().provider, "openai");
    }
}
