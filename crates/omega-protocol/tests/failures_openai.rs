//! What OpenAI's and xAI's error answers mean: one row of the vendors' tables after the other.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode};
use jiff::Timestamp;
use omega_policy::{Dimension, FailureKind, Retry, Scope};
use omega_protocol::{Dialect, ProviderError};

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    pairs.iter().map(pair).collect()
}

fn now() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

fn classify_with(dialect: Dialect, status: u16, pairs: &[(&str, &str)], body: &str) -> ProviderError {
    let status = StatusCode::from_u16(status).unwrap();
    dialect.provider().classify(status, &headers(pairs), body.as_bytes(), now())
}

fn openai(status: u16, body: &str) -> ProviderError {
    classify_with(Dialect::OpenAi, status, &[], body)
}

fn error_body(kind: &str, code: &str, message: &str) -> String {
    serde_json::json!({"error": {"message": message, "type": kind, "param": null, "code": code}}).to_string()
}

#[track_caller]
fn assert_openai(status: u16, kind: &str, code: &str, expected: FailureKind) {
    let error = openai(status, &error_body(kind, code, "Some words."));
    assert_eq!(error.failure.kind, expected, "{error}");
    assert_eq!(error.status, Some(status));
    let text = error.to_string();
    assert!(text.contains(&status.to_string()) && text.contains(kind) && text.contains(code), "{text}");
}

#[test]
fn context_length_exceeded_may_fit_another_model() {
    assert_openai(400, "invalid_request_error", "context_length_exceeded", FailureKind::ContextLength);
}

#[test]
fn context_length_is_also_told_by_the_words_of_compatible_servers() {
    for message in [
        "This model's maximum context length is 128000 tokens. However, your messages resulted in 130912 tokens.",
        "Your input exceeds the context window of this model. Please adjust your input and try again.",
        "the request exceeds the available context size, try increasing it",
    ] {
        let error = openai(400, &error_body("BadRequestError", "", message));
        assert_eq!(error.failure.kind, FailureKind::ContextLength, "{message}");
    }
    // The same words in a 500 are no proof.
    let error = openai(500, &error_body("server_error", "", "maximum context length"));
    assert_eq!(error.failure.kind, FailureKind::Server);
}

#[test]
fn a_wrong_parameter_is_invalid() {
    for code in ["unsupported_parameter", "unsupported_value", "invalid_value", "missing_required_parameter"]
    {
        assert_openai(400, "invalid_request_error", code, FailureKind::Invalid);
    }
    let body = r#"{"error":{"message":"no tier","type":"invalid_request_error","param":"service_tier","code":null}}"#;
    let error = openai(400, body);
    assert_eq!((error.failure.kind, error.param.as_deref()), (FailureKind::Invalid, Some("service_tier")));
}

#[test]
fn a_policy_refusal_is_a_content_filter() {
    assert_openai(400, "invalid_request_error", "invalid_prompt", FailureKind::ContentFilter);
    assert_openai(400, "invalid_request_error", "content_policy_violation", FailureKind::ContentFilter);
}

#[test]
fn a_wrong_key_is_auth() {
    assert_openai(401, "invalid_request_error", "invalid_api_key", FailureKind::Auth);
    assert_openai(400, "invalid_request_error", "invalid_api_key", FailureKind::Auth);
    assert_openai(403, "request_forbidden", "unsupported_country_region_territory", FailureKind::Auth);
}

#[test]
fn an_unknown_model_is_told_from_a_missing_right() {
    assert_openai(404, "invalid_request_error", "model_not_found", FailureKind::UnknownModel);
    assert_openai(403, "invalid_request_error", "model_not_found", FailureKind::UnknownModel);
    assert_eq!(openai(403, &error_body("x", "", "m")).failure.kind, FailureKind::Auth);
}

#[test]
fn conflicts_and_timeouts_of_the_request_are_transient() {
    for status in [408, 409, 425] {
        assert_eq!(openai(status, "").failure.kind, FailureKind::Transient, "{status}");
    }
}

#[test]
fn too_large_and_semantically_wrong_requests_are_invalid() {
    for status in [405, 413, 415, 422, 499] {
        assert_eq!(openai(status, "").failure.kind, FailureKind::Invalid, "{status}");
    }
}

#[test]
fn a_rate_limit_names_its_bucket_and_its_wait() {
    let message = "Rate limit reached for gpt-5.2 in organization org-x on tokens per min (TPM): Limit 500000, Used \
                   498000, Requested 8000. Please try again in 720ms.";
    let error = openai(429, &error_body("tokens", "rate_limit_exceeded", message));
    assert_eq!(error.failure.kind, FailureKind::Throttled);
    assert_eq!(error.failure.exhausted, Some(Dimension::Tokens));
    assert_eq!(error.failure.retry_after, Some(Duration::from_millis(720)));

    let error = openai(429, &error_body("requests", "rate_limit_exceeded", "Please try again in 6m0s."));
    assert_eq!(error.failure.exhausted, Some(Dimension::Requests));
    assert_eq!(error.failure.retry_after, Some(Duration::from_secs(360)));

    let error =
        openai(429, &error_body("rate_limit_error", "rate_limit_exceeded", "on requests per min (RPM)"));
    assert_eq!(error.failure.exhausted, Some(Dimension::Requests));
    assert_eq!(error.failure.retry_after, None);
}

#[test]
fn a_limit_of_zero_is_a_quota_this_model_does_not_have() {
    let message = "Rate limit reached for gpt-5.2-pro in organization org-x on tokens per min (TPM): Limit 0, Used 0, \
                   Requested 12.";
    let error = openai(429, &error_body("tokens", "rate_limit_exceeded", message));
    assert_eq!(error.failure.kind, FailureKind::OutOfQuota);
    assert_eq!(error.failure.scope, Scope::Model { resets_in: None });
}

#[test]
fn the_bucket_is_also_told_by_a_header_that_says_zero() {
    let pairs = [
        ("x-ratelimit-remaining-requests", "12"),
        ("x-ratelimit-reset-requests", "9s"),
        ("x-ratelimit-remaining-tokens", "0"),
        ("x-ratelimit-reset-tokens", "1m2.5s"),
    ];
    let error = classify_with(Dialect::OpenAi, 429, &pairs, "");
    assert_eq!(error.failure.exhausted, Some(Dimension::Tokens));
    assert_eq!(error.failure.retry_after, Some(Duration::from_millis(62_500)));

    let mut both = pairs;
    (both[0].1, both[1].1) = ("0", "2m");
    let error = classify_with(Dialect::OpenAi, 429, &both, "");
    assert_eq!(error.failure.exhausted, Some(Dimension::Requests), "the one that takes longer");
    assert_eq!(error.failure.retry_after, Some(Duration::from_secs(120)));
}

#[test]
fn a_request_larger_than_the_limit_is_never_sent_again() {
    let message = "Request too large for gpt-5.2 in organization org-x on tokens per min (TPM): Limit 30,000, Requested \
                   40,123. The input or output tokens must be reduced in order to run successfully.";
    let error = openai(429, &error_body("tokens", "rate_limit_exceeded", message));
    assert_eq!(error.failure.kind, FailureKind::ContextLength);
    assert_eq!(error.failure.kind.meaning().retry, Retry::Never);
    assert!(error.failure.kind.meaning().fallback, "another provider may have room for it");

    let fits = message.replace("40,123", "30,000");
    let error = openai(429, &error_body("tokens", "rate_limit_exceeded", &fits));
    assert_eq!(error.failure.kind, FailureKind::Throttled, "exactly the limit can succeed");
}

#[test]
fn slow_down_is_throttling_in_its_new_and_its_old_form() {
    assert_openai(429, "rate_limit_error", "slow_down", FailureKind::Throttled);
    assert_openai(503, "service_unavailable_error", "slow_down", FailureKind::Throttled);
}

#[test]
fn every_quota_code_is_out_of_quota_in_either_place() {
    for code in [
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "insufficient_quota",
    ] {
        assert_openai(429, "insufficient_quota", code, FailureKind::OutOfQuota);
        assert_openai(429, "rate_limit_error", code, FailureKind::OutOfQuota);
    }
    assert_openai(429, "billing_not_active", "billing_not_active", FailureKind::OutOfQuota);
    let only_type = r#"{"error":{"message":"m","type":"insufficient_quota","param":null,"code":null}}"#;
    assert_eq!(openai(429, only_type).to_string(), "429 insufficient_quota: m");
    assert_eq!(openai(429, only_type).failure.kind, FailureKind::OutOfQuota);
}

#[test]
fn the_printed_form_has_status_type_and_code() {
    let body =
        error_body("insufficient_quota", "project_spend_limit_exceeded", "You exceeded your current quota.");
    let text = openai(429, &body).to_string();
    assert_eq!(
        text,
        "429 insufficient_quota (project_spend_limit_exceeded): You exceeded your current quota."
    );
}

#[test]
fn payment_required_is_out_of_quota_on_any_server() {
    assert_eq!(openai(402, "").failure.kind, FailureKind::OutOfQuota);
    assert_eq!(classify_with(Dialect::Grok, 402, &[], "{}").failure.kind, FailureKind::OutOfQuota);
}

#[test]
fn server_errors_are_server_errors() {
    assert_openai(500, "server_error", "server_error", FailureKind::Server);
    for status in [500, 501, 502, 503, 504, 520, 521, 522, 523, 524] {
        assert_eq!(openai(status, "").failure.kind, FailureKind::Server, "{status}");
    }
}

#[test]
fn overload_is_told_by_code_type_words_or_status() {
    assert_openai(503, "service_unavailable_error", "server_is_overloaded", FailureKind::Overloaded);
    assert_openai(500, "overloaded_error", "", FailureKind::Overloaded);
    let older = error_body("server_error", "", "The engine is currently overloaded, please try again later");
    assert_eq!(openai(503, &older).failure.kind, FailureKind::Overloaded);
    assert_eq!(openai(529, "").failure.kind, FailureKind::Overloaded);
}

#[test]
fn an_html_page_from_an_edge_is_read_by_its_status_and_title() {
    let page = format!(
        "<!DOCTYPE html>\n<html><head><TITLE>\n 502 Bad\n Gateway </TITLE></head><body>{}</body></html>",
        "x".repeat(100_000)
    );
    let error = openai(502, &page);
    assert_eq!(error.failure.kind, FailureKind::Server);
    assert_eq!(error.to_string(), "502: an HTML page, not the API: 502 Bad Gateway");
    let untitled = format!("<html>{}", "é".repeat(100_000));
    let error = openai(520, &untitled);
    assert!(error.message.len() < 300, "{} bytes", error.message.len());
    assert_eq!(openai(429, "<html><title>Rate limited</title>").failure.kind, FailureKind::Throttled);
}

#[test]
fn messages_are_bounded_and_a_missing_body_is_said() {
    let error = openai(400, &error_body("invalid_request_error", "", &"ü".repeat(100_000)));
    assert!(error.message.len() < 4200 && error.message.ends_with('…'));
    assert_eq!(openai(503, "").to_string(), "503: Service Unavailable");
    assert_eq!(openai(500, "upstream connect error").to_string(), "500: upstream connect error");
}

#[test]
fn a_redirect_is_a_wrong_address() {
    assert_eq!(openai(307, "").failure.kind, FailureKind::UnknownModel);
}

#[test]
fn error_bodies_of_compatible_servers_are_read() {
    let rows = [
        // vLLM, flat.
        (
            404,
            r#"{"object":"error","message":"The model `x` does not exist.","type":"NotFoundError","code":404}"#,
            "404 NotFoundError (404): The model `x` does not exist.",
        ),
        // Ollama.
        (404, r#"{"error":"model 'x' not found"}"#, "404: model 'x' not found"),
        // FastAPI.
        (
            422,
            r#"{"detail":[{"loc":["body"],"msg":"field required"}]}"#,
            r#"422: [{"loc":["body"],"msg":"field required"}]"#,
        ),
        (401, r#"{"detail":"Unauthorized"}"#, "401: Unauthorized"),
        // Google's compatible endpoint.
        (400, r#"[{"error":{"code":400,"message":"m","status":"INVALID_ARGUMENT"}}]"#, "400 (400): m"),
    ];
    for (status, body, text) in rows {
        assert_eq!(openai(status, body).to_string(), text);
    }
    assert_eq!(openai(404, rows[0].1).failure.kind, FailureKind::UnknownModel);
}

#[test]
fn hints_are_believed_in_order() {
    let body = error_body("tokens", "rate_limit_exceeded", "Please try again in 7s.");
    let all = [
        ("x-should-retry", "false"),
        ("retry-after-ms", "1500"),
        ("retry-after", "9"),
        ("x-ratelimit-remaining-tokens", "0"),
        ("x-ratelimit-reset-tokens", "11s"),
    ];
    let wait = |pairs: &[(&str, &str)], body: &str| {
        classify_with(Dialect::OpenAi, 429, pairs, body).failure.retry_after.map(|wait| wait.as_millis())
    };
    assert_eq!(wait(&all, &body), Some(1_500));
    assert_eq!(wait(&all[2..], &body), Some(9_000));
    assert_eq!(wait(&all[3..], &body), Some(7_000));
    assert_eq!(wait(&all[3..], ""), Some(11_000));
    assert_eq!(wait(&[], ""), None);
    let error = classify_with(Dialect::OpenAi, 429, &all, &body);
    assert_eq!(error.failure.should_retry, Some(false));
    let error = classify_with(Dialect::OpenAi, 400, &[("x-should-retry", "true")], "");
    assert_eq!(error.failure.should_retry, Some(true));
    assert_eq!(error.failure.kind, FailureKind::Invalid, "the kind stays what it is");
    let error = classify_with(Dialect::OpenAi, 503, &[("retry-after", "3")], "");
    assert_eq!(error.failure.retry_after, Some(Duration::from_secs(3)));
}

#[test]
fn the_request_id_is_kept() {
    let error = classify_with(Dialect::OpenAi, 500, &[("x-request-id", "req_1")], "");
    assert_eq!(error.request_id.as_deref(), Some("req_1"));
    let pairs = headers(&[("x-request-id", "req_2")]);
    assert_eq!(Dialect::OpenAi.provider().request_id(&pairs), Some("req_2"));
}

#[test]
fn quota_headers_are_read() {
    let hint = |pairs: &[(&str, &str)]| Dialect::OpenAi.provider().quota_hint(&headers(pairs), now());
    let quota = hint(&[
        ("x-ratelimit-limit-requests", "10,000"),
        ("x-ratelimit-remaining-requests", "9999"),
        ("x-ratelimit-reset-requests", "6ms"),
        ("x-ratelimit-limit-tokens", "2000000"),
        ("x-ratelimit-remaining-tokens", "1999000"),
        ("x-ratelimit-reset-tokens", "1h2m3.5s"),
    ])
    .unwrap();
    let requests = quota.requests.unwrap();
    assert_eq!((requests.limit, requests.remaining), (Some(10_000), Some(9_999)));
    assert_eq!(requests.reset, Some(Duration::from_millis(6)));
    let tokens = quota.tokens.unwrap();
    assert_eq!((tokens.limit, tokens.remaining), (Some(2_000_000), Some(1_999_000)));
    assert_eq!(tokens.reset, Some(Duration::from_millis(3_723_500)));

    let both = [("x-ratelimit-remaining-tokens", "500"), ("x-ratelimit-remaining-project-tokens", "40")];
    assert_eq!(hint(&both).unwrap().tokens.unwrap().remaining, Some(40), "the tighter one binds");
    assert_eq!(hint(&[]), None);
    assert_eq!(hint(&[("x-ratelimit-remaining-tokens", "-1"), ("x-ratelimit-limit-tokens", "many")]), None);
}

fn grok_fixture(name: &str) -> String {
    let path = format!("{}/tests/fixtures/grok/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

fn grok(status: u16, body: &str) -> ProviderError {
    classify_with(Dialect::Grok, status, &[], body)
}

#[test]
fn xai_answers_400_to_a_wrong_key() {
    let error = grok(400, &grok_fixture("error_key.json"));
    assert_eq!(error.failure.kind, FailureKind::Auth);
    assert!(
        error.to_string().starts_with("400 (Client specified an invalid argument): Incorrect API key"),
        "{error}"
    );
    assert_eq!(grok(401, "").failure.kind, FailureKind::Auth);
    assert_eq!(grok(403, r#"{"code":"x","error":"Your team is blocked"}"#).failure.kind, FailureKind::Auth);
}

#[test]
fn xai_credits_are_out_of_quota_with_429_and_with_403() {
    for status in [429, 403, 400] {
        let error = grok(status, &grok_fixture("error_credits.json"));
        assert_eq!(error.failure.kind, FailureKind::OutOfQuota, "{status}");
    }
}

#[test]
fn xai_rate_limits_name_their_bucket() {
    let error = grok(429, &grok_fixture("error_tokens.json"));
    assert_eq!(
        error.failure.kind,
        FailureKind::Throttled,
        "65605 of 16000 is the minute's, not the request's"
    );
    assert_eq!(error.failure.exhausted, Some(Dimension::Tokens));
}

#[test]
fn xai_context_length_is_told_by_its_words() {
    assert_eq!(grok(400, &grok_fixture("error_context.json")).failure.kind, FailureKind::ContextLength);
}

#[test]
fn the_other_rows_of_xai_are_read_by_status() {
    for (status, kind) in [
        (400, FailureKind::Invalid),
        (404, FailureKind::UnknownModel),
        (405, FailureKind::Invalid),
        (415, FailureKind::Invalid),
        (422, FailureKind::Invalid),
        (429, FailureKind::Throttled),
        (500, FailureKind::Server),
        (502, FailureKind::Server),
        (503, FailureKind::Server),
        (504, FailureKind::Server),
    ] {
        assert_eq!(grok(status, r#"{"code":"A sentence","error":"Words."}"#).failure.kind, kind, "{status}");
    }
}
