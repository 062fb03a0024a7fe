//! xAI's differences from OpenAI.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

use omega_policy::FailureKind;
use omega_protocol::{
    ChatAccumulator, ChatChunk, ChatRequest, Dialect, EmbeddingsRequest, EncodeError, Endpoint,
    EndpointOptions, FinishReason, Message, Provider, ProviderError, ResponsesRequest, Streaming,
};
use serde_json::Value;

fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/grok/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn grok() -> &'static dyn Provider {
    Dialect::Grok.provider()
}

fn endpoint() -> Endpoint {
    Endpoint::new(Dialect::Grok, Dialect::Grok.default_base_url(), Some("xai-k"), EndpointOptions::default())
        .unwrap()
}

fn decode_stream(bytes: &[u8]) -> (Vec<ChatChunk>, Result<(), ProviderError>) {
    let mut decoder = grok().chat_decoder();
    let mut chunks = Vec::new();
    let result = decoder.push(bytes, &mut chunks).and_then(|()| decoder.finish(&mut chunks));
    (chunks, result)
}

#[test]
fn a_request_is_sent_as_xai_takes_it() {
    let request: ChatRequest = serde_json::from_slice(&fixture("request.json")).unwrap();
    let sent = grok().encode_chat(&endpoint(), &request, Streaming::Whole).unwrap();
    let body: Value = serde_json::from_slice(sent.body()).unwrap();
    assert_eq!(body, serde_json::from_slice::<Value>(&fixture("request.grok.json")).unwrap());
    assert_eq!(sent.uri(), "https://api.x.ai/v1/chat/completions");
    assert_eq!(sent.headers()["authorization"], "Bearer xai-k");
}

#[test]
fn a_deferred_answer_is_refused_by_name() {
    let request = ChatRequest::new("grok-4.5", [Message::user("Hi")]).extra("deferred", true);
    let error = grok().encode_chat(&endpoint(), &request, Streaming::Whole).unwrap_err();
    assert!(error.to_string().starts_with("`deferred` cannot be sent to grok"), "{error}");
}

#[test]
fn usage_is_normalised_to_include_reasoning() {
    let response = grok().decode_chat(&fixture("response.json")).unwrap();
    let usage = response.usage.as_ref().unwrap();
    assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens), (703, 254, 957));
    assert_eq!((usage.reasoning_tokens(), usage.cached_tokens()), (250, 679));
    assert_eq!(usage.extra["cost_in_usd_ticks"], 12345);
    assert_eq!(response.extra["citations"][0], "https://example.com");
    assert_eq!(response.choices[0].message.reasoning_content.as_deref(), Some("Short question."));
}

#[test]
fn usage_that_already_includes_reasoning_is_left_alone() {
    let text = String::from_utf8(fixture("response.json")).unwrap();
    let inclusive = text.replace("\"completion_tokens\": 4", "\"completion_tokens\": 254");
    assert_ne!(text, inclusive);
    let usage = grok().decode_chat(inclusive.as_bytes()).unwrap().usage.unwrap();
    assert_eq!((usage.completion_tokens, usage.total_tokens), (254, 957));
}

#[test]
fn a_stream_with_empty_deltas_is_read() {
    let (chunks, result) = decode_stream(&fixture("stream.sse"));
    result.unwrap();
    let content: Vec<bool> = chunks.iter().map(ChatChunk::has_content).collect();
    assert_eq!(content, [false, false, false, true, true, true, true, false, false]);
    let mut accumulator = ChatAccumulator::new();
    chunks.iter().for_each(|chunk| accumulator.push(chunk));
    let whole = accumulator.finish();
    assert_eq!(whole.text(), "Fine.");
    assert_eq!(whole.choices[0].message.reasoning_content.as_deref(), Some("Short question."));
    assert_eq!(whole.finish_reason(), Some(FinishReason::Stop));
    assert_eq!(whole.usage.unwrap().completion_tokens, 254);
}

#[test]
fn errors_inside_a_stream_are_read_in_both_shapes() {
    for (event, kind) in [
        (
            r#"{"code":"The service is currently unavailable","error":"The model is at capacity."}"#,
            FailureKind::Overloaded,
        ),
        (r#"{"error":{"message":"boom"}}"#, FailureKind::Server),
        (
            r#"{"code":"Some resource has been exhausted","error":"Too many tokens for team t"}"#,
            FailureKind::Throttled,
        ),
    ] {
        let (_, result) = decode_stream(format!("data: {event}\n\n").as_bytes());
        assert_eq!(result.unwrap_err().failure.kind, kind, "{event}");
    }
    let (_, result) = decode_stream(&[b"data: ", fixture("error_credits.json").as_slice(), b"\n\n"].concat());
    assert!(result.is_err());
    let one_line: Value = serde_json::from_slice(&fixture("error_credits.json")).unwrap();
    let (_, result) = decode_stream(format!("data: {one_line}\n\n").as_bytes());
    assert_eq!(result.unwrap_err().failure.kind, FailureKind::OutOfQuota);
}

#[test]
fn responses_are_offered_and_embeddings_are_not() {
    let sent = grok()
        .encode_responses(&endpoint(), &ResponsesRequest::new("grok-4.5", "Hi"), Streaming::Whole)
        .unwrap();
    assert_eq!(sent.uri(), "https://api.x.ai/v1/responses");
    let error = grok().encode_embeddings(&endpoint(), &EmbeddingsRequest::new("m", ["a"])).unwrap_err();
    assert!(matches!(error, EncodeError::Unsupported { operation: "embeddings", .. }), "{error}");
    let body = br#"{"id":"r","status":"completed","output":[],"usage":{"input_tokens":10,"output_tokens":2,
        "output_tokens_details":{"reasoning_tokens":5},"total_tokens":17}}"#;
    assert_eq!(grok().decode_responses(body).unwrap().usage.unwrap().output_tokens, 7);
}
