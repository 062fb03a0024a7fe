//! Nothing a provider sends makes a decoder or a classifier panic, and no key or prompt is shown.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jiff::Timestamp;
use omega_policy::FailureKind;
use omega_protocol::{
    AnthropicVersion, ChatAccumulator, ChatChunk, ChatRequest, Dialect, Endpoint, EndpointOptions, Message,
    Streaming, Tool, ToolCall, estimate_input_tokens, reasons_first, route,
};
use proptest::prelude::*;

fn now() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

/// Bytes that are JSON more often than chance makes them.
fn wire_bytes() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: &[&[u8]] = &[
        b"data: ", b"event: error\n", b"\n\n", b"\r\n", b"{", b"}", b"[",
        b"]", b":", b",", b"\"choices\"", b"\"delta\"", b"\"content\"",
        b"\"error\"", b"\"message\"", b"\"type\"", b"\"code\"", b"\"usage\"",
        b"\"finish_reason\"", b"\"stop\"", b"\"tool_calls\"", b"\"candidates\"",
        b"\"status\"", b"\"failed\"", b"\"details\"", b"\"@type\"", b"\"parts\"",
        b"\"response\"", b"\"message_start\"", b"\"content_block\"", b"null", b"true",
        b"-1", b"1e999", b"99999999999999999999", b"0.5", b"\"\"", b"[DONE]",
        b"data: {\"choices\":[{\"index\":4294967295,\"delta\":{\"content\":\"x\"},\"finish_reason\":\"stop\"}]}\n\n",
        b"data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"x\"}]},\"finishReason\":\"STOP\"}]}\n\n",
        b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{}}}\n\n",
        b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":9}\n\n",
        b"<html><title>", b"\xff", b"\xef\xbb\xbf",
    ];
    let piece = prop::sample::select(PIECES);
    prop_oneof![
        proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat()),
        proptest::collection::vec(any::<u8>(), 0..200),
    ]
}

fn some_headers() -> impl Strategy<Value = HeaderMap> {
    let name = prop_oneof![
        Just("retry-after"),
        Just("retry-after-ms"),
        Just("x-should-retry"),
        Just("date"),
        Just("x-request-id"),
        Just("x-ratelimit-remaining-tokens"),
        Just("x-ratelimit-reset-tokens"),
        Just("x-ratelimit-limit-requests"),
        Just("anthropic-ratelimit-tokens-remaining"),
        Just("anthropic-ratelimit-tokens-reset"),
        Just("anthropic-ratelimit-requests-limit"),
        Just("request-id"),
    ];
    let value = prop_oneof![
        Just("0".to_owned()),
        Just("-7".to_owned()),
        Just("999999999".to_owned()),
        Just("NaN".to_owned()),
        Just("9".repeat(400)),
        Just("2026-11-23T12:00:30Z".to_owned()),
        Just("-9999-01-01T00:00:00Z".to_owned()),
        Just("Fri, 31 Dec 9999 23:59:59 GMT".to_owned()),
        Just("1h2m3.5s".to_owned()),
        "[ -~]{0,20}",
    ];
    proptest::collection::vec((name, value), 0..6).prop_map(|pairs| {
        pairs
            .into_iter()
            .filter_map(|(name, value)| {
                Some((HeaderName::from_static(name), HeaderValue::from_str(&value).ok()?))
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in wire_bytes(), cut in any::<prop::sample::Index>()) {
        let cut = cut.index(bytes.len() + 1);
        for dialect in Dialect::ALL {
            let provider = dialect.provider();
            let _ = provider.decode_chat(&bytes);
            let _ = provider.decode_embeddings(&bytes);
            let _ = provider.decode_responses(&bytes);

            let mut decoder = provider.chat_decoder();
            let mut chunks = Vec::new();
            let pushed = [&bytes[..cut], &bytes[cut..]].iter().try_for_each(|part| decoder.push(part, &mut chunks));
            let finished = decoder.finish(&mut chunks);
            prop_assert!(pushed.is_ok() || finished.is_err(), "{} forgets that its stream failed", dialect);
            let mut accumulator = ChatAccumulator::new();
            chunks.iter().for_each(|chunk: &ChatChunk| accumulator.push(chunk));
            let whole = accumulator.finish();
            if finished.is_ok() {
                prop_assert!(!whole.choices.is_empty(), "{} takes nothing for an answer", dialect);
            }

            let mut decoder = provider.responses_decoder();
            let mut events = Vec::new();
            let _ = decoder.push(&bytes, &mut events).and_then(|()| decoder.finish(&mut events));
        }
    }

    #[test]
    fn no_answer_makes_a_classifier_panic(status in 100u16..1000, headers in some_headers(), body in wire_bytes()) {
        let status = StatusCode::from_u16(status).unwrap();
        for dialect in Dialect::ALL {
            let provider = dialect.provider();
            let error = provider.classify(status, &headers, &body, now());
            prop_assert!(error.message.len() < 5_000);
            prop_assert!(!error.to_string().is_empty());
            let _ = (provider.quota_hint(&headers, now()), provider.request_id(&headers));
        }
    }

    #[test]
    fn no_json_makes_a_request_panic(text in "\\PC{0,80}", number in any::<f64>()) {
        let values = [serde_json::json!(text), serde_json::json!(number), serde_json::json!({"type": text}),
            serde_json::json!([{"type": "text", "text": text}, {"type": text, "image_url": text}])];
        for value in values {
            let request = serde_json::json!({
                "model": text, "messages": [{"role": "user", "content": value}, {"role": text, "tool_calls": value}],
                "tools": [{"type": "function", "function": {"name": text, "parameters": value}}],
                "tool_choice": value, "response_format": value, "stop": value,
            });
            let Ok(request) = serde_json::from_value::<ChatRequest>(request) else { continue };
            let _ = (estimate_input_tokens(&request), reasons_first(&request.model, &request), route(&request.model));
            for dialect in Dialect::ALL {
                let endpoint = Endpoint::new(dialect, dialect.default_base_url(), Some("k"), EndpointOptions::default());
                let _ = dialect.provider().encode_chat(&endpoint.unwrap(), &request, Streaming::Stream);
            }
        }
    }
}

#[test]
fn every_dialect_maps_the_common_statuses_alike() {
    for dialect in Dialect::ALL {
        for (status, kind) in [
            (401, FailureKind::Auth),
            (403, FailureKind::Auth),
            (404, FailureKind::UnknownModel),
            (422, FailureKind::Invalid),
            (500, FailureKind::Server),
            (502, FailureKind::Server),
            (520, FailureKind::Server),
            (529, FailureKind::Overloaded),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let error = dialect.provider().classify(status, &HeaderMap::new(), b"<html></html>", now());
            assert_eq!(error.failure.kind, kind, "{dialect} {status}");
            assert_eq!(error.status, Some(status.as_u16()));
        }
    }
}

#[test]
fn no_debug_form_shows_a_key_or_a_prompt() {
    const KEY: &str = "sk-very-secret";
    const PROMPT: &str = "my private question";
    let tool = Tool::function("f", "d", serde_json::json!({}));
    let mut call = Message::assistant(PROMPT);
    call.tool_calls.push(ToolCall::function("id", "f", "{}"));
    let messages = [Message::user(PROMPT), call, Message::tool("id", PROMPT)];
    let mut request = ChatRequest::new("gpt-5.2", messages).tools([tool]);
    request = request.extra("x", PROMPT);
    request.messages[0].extra.insert("x".to_owned(), PROMPT.into());
    for dialect in Dialect::ALL {
        for version in [AnthropicVersion::V2023_06_01, AnthropicVersion::V2026_10_21] {
            let headers = vec![("x-proxy-key".to_owned(), KEY.to_owned())];
            let options =
                EndpointOptions { anthropic_version: version, headers, ..EndpointOptions::default() };
            let endpoint = Endpoint::new(dialect, "https://example.com", Some(KEY), options.clone()).unwrap();
            let sent = dialect.provider().encode_chat(&endpoint, &request, Streaming::Whole).unwrap();
            let shown = format!("{endpoint:?} {options:?} {:?} {:?}", sent.headers(), sent.uri());
            assert!(!shown.contains(KEY), "{dialect}: {shown}");
            assert!(
                sent.headers().values().any(|value| value.as_bytes().ends_with(KEY.as_bytes())),
                "{dialect}"
            );
        }
    }
    let shown = format!("{request:?} {:?} {:?}", request.messages, request.messages[0].content);
    assert!(!shown.contains(PROMPT), "{shown}");
    let body = format!(
        r#"{{"choices":[{{"message":{{"role":"assistant","content":"{PROMPT}","tool_calls":[
            {{"id":"1","type":"function","function":{{"name":"f","arguments":"{PROMPT}"}}}}]}},"finish_reason":"stop"}}]}}"#
    );
    let response = Dialect::OpenAi.provider().decode_chat(body.as_bytes()).unwrap();
    assert!(!format!("{response:?}").contains(PROMPT), "{response:?}");
    let event = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{PROMPT}\"}}}}]}}\n\n");
    let mut chunks = Vec::new();
    Dialect::OpenAi.provider().chat_decoder().push(event.as_bytes(), &mut chunks).unwrap();
    assert!(!format!("{chunks:?}").contains(PROMPT), "{chunks:?}");
}
