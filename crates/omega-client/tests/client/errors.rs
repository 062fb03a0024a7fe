//! Each kind of error, with what it carries.

use std::time::Duration;

use omega_client::{
    AttemptOutcome, ChatCall, ChatRequest, EmbeddingsRequest, Error, ErrorKind, Message, Origin,
};
use serde_json::json;

use crate::support::*;

async fn error_of(reply: Reply) -> (Error, usize) {
    let upstream = Upstream::sequence([reply]);
    let client = client(&upstream);
    let error = client.chat(ChatCall::from("Hi").timeout(Duration::from_secs(500))).await.unwrap_err();
    assert_nothing_held(&client);
    (error, upstream.count())
}

#[tokio::test(start_paused = true)]
async fn every_status_has_its_kind_and_its_number_of_attempts() {
    let context = openai::error(
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "maximum context length is 8 tokens",
    );
    let cases = [
        (
            openai::error(401, "invalid_request_error", "invalid_api_key", "Incorrect API key"),
            ErrorKind::Authentication,
            1,
        ),
        (openai::error(403, "forbidden", "unsupported_country", "no"), ErrorKind::Authentication, 1),
        (openai::error(400, "invalid_request_error", "bad", "no"), ErrorKind::InvalidRequest, 1),
        (openai::error(422, "invalid_request_error", "bad", "no"), ErrorKind::InvalidRequest, 1),
        (
            openai::error(404, "invalid_request_error", "model_not_found", "no such model"),
            ErrorKind::InvalidRequest,
            1,
        ),
        (context, ErrorKind::ContextLength, 1),
        (openai::insufficient_quota(), ErrorKind::QuotaExhausted, 1),
        (openai::rate_limited(), ErrorKind::RateLimited, 3),
        (openai::server_error(), ErrorKind::Provider, 3),
        (openai::error(503, "server_error", "overloaded", "busy"), ErrorKind::Provider, 3),
        (Reply::new(502, [text("<html><body>Bad gateway</body></html>")]), ErrorKind::Provider, 3),
        (openai::error(409, "conflict", "conflict", "again"), ErrorKind::Provider, 3),
        (Reply::refused(), ErrorKind::Transport, 3),
        (Reply::silence(), ErrorKind::Deadline, 3),
        (Reply::new(200, [openai::role(), openai::content("a"), Step::Break]), ErrorKind::StreamBroken, 3),
        (Reply::new(200, [openai::role(), text("data: {not json\n\n")]), ErrorKind::StreamBroken, 3),
    ];
    for (reply, kind, attempts) in cases {
        let status = reply.status.filter(|status| *status != 200 && reply.refused.is_none());
        let shown = format!("{reply:?}");
        let (error, asked) = error_of(reply).await;
        assert_eq!((error.kind(), asked), (kind, attempts), "{shown}: {error}");
        assert_eq!(error.attempts().len(), attempts);
        assert_eq!(error.origin(), Origin::Provider, "{shown}");
        assert_eq!(error.status(), status, "{shown}");
        if let Some(status) = status {
            assert!(error.to_string().contains(&status.to_string()), "{error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_quota_error_says_status_type_and_code() {
    let reply = openai::error(429, "insufficient_quota", "project_spend_limit_exceeded", "You exceeded …")
        .header("x-request-id", "req_42");
    let (error, _) = error_of(reply).await;
    let text = error.to_string();
    assert!(
        text.contains("429")
            && text.contains("insufficient_quota")
            && text.contains("project_spend_limit_exceeded")
    );
    assert_eq!(error.error_type(), Some("insufficient_quota"));
    assert_eq!(error.code(), Some("project_spend_limit_exceeded"));
    assert_eq!(error.request_id(), Some("req_42"));
    assert_eq!(error.provider(), Some("openai"));
}

#[tokio::test(start_paused = true)]
async fn a_429_that_outlasts_the_attempts_keeps_its_number_and_its_origin() {
    let (error, _) = error_of(openai::rate_limited()).await;
    assert_eq!(
        (error.kind(), error.origin(), error.status()),
        (ErrorKind::RateLimited, Origin::Provider, Some(429))
    );
    assert!(error.to_string().contains("429"), "{error}");
    assert!(error.to_string().ends_with("(after 3 attempts)"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_withheld_by_policy_is_asked_for_once() {
    let body = json!({"error": {"message": "Your prompt was flagged", "type": "invalid_request_error", "code": "content_policy_violation", "param": null}});
    let (error, asked) = error_of(Reply::error(400, &body)).await;
    assert_eq!((error.kind(), asked), (ErrorKind::ContentFilter, 1), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_a_protocol_cannot_express_is_unsupported() {
    let upstream = Upstream::sequence([openai::answer("ok")]);
    let client = client(&upstream);
    let request = ChatRequest::new("claude-opus-5-5", [Message::user("Hi")]).n(3);
    let error = client.chat(request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("`n`"), "{error}");
    let error = client.embeddings(EmbeddingsRequest::new("claude-opus-5-5", ["Hi"])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert_eq!(upstream.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn should_retry_false_is_obeyed() {
    let (error, asked) = error_of(openai::server_error().header("x-should-retry", "false")).await;
    assert_eq!((error.kind(), asked), (ErrorKind::Provider, 1));
}

#[tokio::test(start_paused = true)]
async fn an_endless_error_body_is_bounded() {
    let steps = (0..200).map(|_| text("x".repeat(10_000)));
    let (error, _) = error_of(Reply::new(500, steps)).await;
    assert_eq!(error.kind(), ErrorKind::Provider);
    assert!(error.to_string().len() < 10_000, "{}", error.to_string().len());
}

#[tokio::test(start_paused = true)]
async fn a_retry_budget_that_is_empty_fails_fast() {
    let upstream = Upstream::sequence([openai::server_error()]);
    let yaml = "
circuit_breaker: {enabled: false}
rate_limiting: {enabled: false}
retry_budget: {ratio: 0, per_second: 0, opening: 2}
";
    let client = configured(&upstream, yaml).build().unwrap();
    client.chat("Hi").await.unwrap_err();
    assert_eq!(upstream.count(), 3);
    let error = client.chat("Hi").await.unwrap_err();
    assert_eq!(upstream.count(), 4, "a first try is never blocked by it");
    assert!(error.to_string().contains("budget"), "{error}");
    assert_eq!(client.resilience_stats().details.providers["openai"].budget_refused_total, 1);
}

#[tokio::test(start_paused = true)]
async fn an_error_body_that_stalls_does_not_hold_the_call_up() {
    let stalled = || Reply::new(500, [text("{\"error\": {\"message\": \"half"), Step::Hang]);
    let upstream = Upstream::sequence([stalled(), openai::answer("ok")]);
    let start = tokio::time::Instant::now();
    let answer = client(&upstream).chat("Hi").await.unwrap();
    assert_eq!(answer.text(), "ok");
    let took = start.elapsed().as_secs();
    assert!(took < 10, "five seconds for the body and the backoff, not {took}");
    assert!(matches!(&answer.attempts[0].outcome, AttemptOutcome::Failed { status: Some(500), .. }));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_a_server_quotes_is_shown_nowhere() {
    let key = "sk-test-key-1";
    let log = Log::capture();
    let upstream = Upstream::sequence([openai::error(
        401,
        "auth",
        &format!("bad-{key}"),
        &format!("key {key} is wrong"),
    )
    .header("x-request-id", key)]);
    let error = client(&upstream).chat("Hi").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authentication);
    let broken = Upstream::sequence([Reply::new(
        200,
        [
            openai::role(),
            openai::content("word"),
            text(format!("data: {{\"error\": {{\"message\": \"{key}\", \"type\": \"{key}\"}}}}\n\n")),
        ],
    )]);
    let mut stream = client(&broken).chat_stream("Hi").await.unwrap();
    let mut last = None;
    while let Some(item) = stream.next().await {
        last = Some(item);
    }
    let ended = last.unwrap().unwrap_err();
    for error in [&error, &ended] {
        let source = std::error::Error::source(error).map(|source| format!("{source} {source:?}"));
        let (id, attempts) = (error.request_id(), error.attempts());
        let said = format!("{error} {error:?} {source:?} {attempts:?} {:?} {id:?}", error.code());
        assert!(said.contains("[redacted]"), "{said}");
        assert!(!said.contains(key), "{said}");
    }
    assert!(log.lines().iter().all(|line| !line.contains(key)), "{:?}", log.lines());
}
