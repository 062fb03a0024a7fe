//! Work and memory stay in proportion to what comes, however it comes: byte by byte, in many tiny events, nested
//! deeply, or with numbers that nothing holds. A test here that does not end has found a quadratic path.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

use omega_policy::FailureKind;
use omega_protocol::sse::{EventTooLarge, Item, SseParser};
use omega_protocol::{
    ChatAccumulator, ChatChunk, ChatRequest, ChatResponse, Dialect, ProviderError, estimate_input_tokens,
};
use serde_json::json;

fn decode(dialect: Dialect, bytes: &[u8]) -> (Vec<ChatChunk>, Result<(), ProviderError>) {
    let mut decoder = dialect.provider().chat_decoder();
    let mut chunks = Vec::new();
    let result = decoder.push(bytes, &mut chunks).and_then(|()| decoder.finish(&mut chunks));
    (chunks, result)
}

fn whole(chunks: &[ChatChunk]) -> ChatResponse {
    let mut accumulator = ChatAccumulator::new();
    chunks.iter().for_each(|chunk| accumulator.push(chunk));
    accumulator.finish()
}

fn event(name: &str, data: &serde_json::Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

#[test]
fn a_large_event_may_come_byte_by_byte() {
    let mut text = b"data: ".to_vec();
    text.resize(2 << 20, b'x');
    text.extend_from_slice(b"\n\n");
    let mut parser = SseParser::new();
    let mut sizes = Vec::new();
    for byte in &text {
        let pushed: Result<(), EventTooLarge> = parser.push(std::slice::from_ref(byte), |item| {
            if let Item::Event { data, .. } = item {
                sizes.push(data.len());
            }
            Ok(())
        });
        pushed.unwrap();
    }
    assert_eq!(sizes, [(2 << 20) - 6]);
}

#[test]
fn a_stream_may_have_very_many_calls() {
    const CALLS: u32 = 100_000;
    let mut accumulator = ChatAccumulator::new();
    for index in 0..CALLS {
        let call =
            json!({"index": index, "id": format!("c{index}"), "function": {"name": "f", "arguments": "{}"}});
        let chunk = json!({"choices": [{"index": index % 128, "delta": {"tool_calls": [call]}}]});
        accumulator.push(&serde_json::from_value(chunk).unwrap());
    }
    let whole = accumulator.finish();
    assert_eq!(whole.choices.len(), 128);
    assert_eq!(
        whole.choices.iter().map(|choice| choice.message.tool_calls.len()).sum::<usize>(),
        CALLS as usize
    );
}

#[test]
fn json_nested_too_deeply_is_an_error_and_never_a_crash() {
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(200_000), close.repeat(200_000));
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        for dialect in Dialect::ALL {
            let provider = dialect.provider();
            for body in
                [deep.clone(), format!("{{\"x\":{deep}}}"), format!("{{\"error\":{{\"message\":{deep}}}}}")]
            {
                assert_eq!(
                    provider.decode_chat(body.as_bytes()).unwrap_err().failure.kind,
                    FailureKind::Server
                );
                assert!(decode(dialect, format!("data: {body}\n\n").as_bytes()).1.is_err(), "{dialect}");
                assert!(decode(dialect, format!("{body}\n\n").as_bytes()).1.is_err(), "{dialect}");
                let now = jiff::Timestamp::UNIX_EPOCH;
                let error = provider.classify(
                    http::StatusCode::BAD_REQUEST,
                    &Default::default(),
                    body.as_bytes(),
                    now,
                );
                assert_eq!(error.failure.kind, FailureKind::Invalid, "{dialect}");
            }
        }
        let request = format!(r#"{{"model":"m","messages":[],"x":{deep}}}"#);
        assert!(serde_json::from_str::<ChatRequest>(&request).is_err());
    }
    assert!(serde_json::from_str::<ChatRequest>(&deep("[", "]")).is_err());
}

#[test]
fn arguments_nested_deeply_are_carried_without_being_looked_into() {
    let arguments = format!("{{\"a\":{}1{}}}", "[".repeat(50_000), "]".repeat(50_000));
    let body = format!(
        r#"{{"candidates":[{{"content":{{"parts":[{{"functionCall":{{"name":"f","args":{arguments}}}}}]}},"finishReason":"STOP"}}]}}"#
    );
    // Whether such a call is taken is the parser's business; that it ends is ours.
    if let Ok(answer) = Dialect::Google.provider().decode_chat(body.as_bytes()) {
        assert_eq!(answer.tool_calls()[0].arguments(), arguments);
        let request = ChatRequest::new("m", [answer.choices[0].message.clone()]);
        assert!(estimate_input_tokens(&request) > 10_000);
    }
}

#[test]
fn numbers_that_nothing_holds_do_no_harm() {
    for number in ["99999999999999999999", "-1", "1e300", "0.5"] {
        let body = format!(
            r#"{{"created":{number},"choices":[{{"message":{{"role":"assistant","content":"x"}},"finish_reason":"stop"}}],
                "usage":{{"prompt_tokens":{number},"completion_tokens":{number},"total_tokens":{number},
                "completion_tokens_details":{{"reasoning_tokens":{number}}}}}}}"#
        );
        for dialect in [Dialect::OpenAi, Dialect::Grok] {
            assert_eq!(dialect.provider().decode_chat(body.as_bytes()).unwrap().text(), "x", "{number}");
        }
        let usage = format!(
            r#"{{"input_tokens":{number},"output_tokens":{number},"cache_read_input_tokens":{number},"cache_creation_input_tokens":{number}}}"#
        );
        let body = format!(
            r#"{{"type":"message","content":[{{"type":"text","text":"x"}}],"stop_reason":"end_turn","usage":{usage}}}"#
        );
        assert_eq!(
            Dialect::Anthropic.provider().decode_chat(body.as_bytes()).unwrap().text(),
            "x",
            "{number}"
        );
        let usage = format!(
            r#"{{"promptTokenCount":{number},"candidatesTokenCount":{number},"thoughtsTokenCount":{number},"toolUsePromptTokenCount":{number}}}"#
        );
        let body = format!(
            r#"{{"candidates":[{{"content":{{"parts":[{{"text":"x"}}]}},"finishReason":"STOP"}}],"usageMetadata":{usage}}}"#
        );
        assert_eq!(Dialect::Google.provider().decode_chat(body.as_bytes()).unwrap().text(), "x", "{number}");
    }
}

#[test]
fn lists_that_only_a_server_gone_wrong_writes_end_while_they_are_read() {
    let list = |item: &str, count: usize| vec![item; count].join(",");
    for (dialect, most, body) in [
        (Dialect::OpenAi, 1024, |list: String| format!(r#"{{"choices":[{list}]}}"#)),
        (Dialect::Google, 128, |list: String| format!(r#"{{"candidates":[{list}]}}"#)),
    ] as [(Dialect, usize, fn(String) -> String); 2]
    {
        let item = r#"{"finish_reason":"stop","finishReason":"STOP","message":{"role":"assistant"}}"#;
        let event = |count| format!("data: {}\n\n", body(list(item, count)));
        assert!(dialect.provider().decode_chat(body(list(item, most)).as_bytes()).is_ok(), "{dialect}");
        let error = dialect.provider().decode_chat(body(list(item, most + 1)).as_bytes()).unwrap_err();
        assert_eq!(error.failure.kind, FailureKind::Server, "{dialect}");
        decode(dialect, event(most).as_bytes()).1.unwrap();
        let error = decode(dialect, event(most + 1).as_bytes()).1.unwrap_err();
        assert_eq!(error.failure.kind, FailureKind::StreamBroken, "{dialect}");
    }
    let calls = format!(r#"data: {{"choices":[{{"delta":{{"tool_calls":[{}]}}}}]}}"#, list("{}", 1025));
    let error = decode(Dialect::OpenAi, format!("{calls}\n\n").as_bytes()).1.unwrap_err();
    assert_eq!(error.failure.kind, FailureKind::StreamBroken);
}

fn anthropic_start() -> String {
    event(
        "message_start",
        &json!({"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 1}}}),
    )
}

fn anthropic_end(reason: &str) -> String {
    event("message_delta", &json!({"type": "message_delta", "delta": {"stop_reason": reason}}))
        + &event("message_stop", &json!({"type": "message_stop"}))
}

/// A result of a server's own tool comes whole in the beginning of its block.
fn search_result(index: u64, size: usize) -> String {
    let block = json!({"type": "web_search_tool_result", "tool_use_id": "s", "content": "x".repeat(size)});
    event(
        "content_block_start",
        &json!({"type": "content_block_start", "index": index, "content_block": block}),
    )
}

#[test]
fn what_is_kept_for_the_echo_is_bounded_and_the_answer_after_it_is_whole() {
    let mut stream = anthropic_start();
    (0..5).for_each(|index| stream += &search_result(index, 4 << 20));
    // A call in pieces, and one that comes whole in its beginning.
    let call = json!({"type": "tool_use", "id": "a", "name": "f", "input": {}});
    stream += &event("content_block_start", &json!({"index": 7, "content_block": call}));
    for piece in ["{\"q\":", "1}"] {
        let delta = json!({"type": "input_json_delta", "partial_json": piece});
        stream += &event("content_block_delta", &json!({"index": 7, "delta": delta}));
    }
    stream += &event("content_block_stop", &json!({"index": 7}));
    let call = json!({"type": "tool_use", "id": "b", "name": "g", "input": {"q": 2}});
    stream += &event("content_block_start", &json!({"index": 8, "content_block": call}));
    stream += &event("content_block_stop", &json!({"index": 8}));
    stream += &anthropic_end("tool_use");
    let (chunks, result) = decode(Dialect::Anthropic, stream.as_bytes());
    result.unwrap();
    let whole = whole(&chunks);
    assert!(whole.choices[0].message.extra.is_empty(), "20 MiB are not kept");
    let calls: Vec<_> = whole.tool_calls().iter().map(|call| (call.name(), call.arguments())).collect();
    assert_eq!(calls, [("f", r#"{"q":1}"#), ("g", r#"{"q":2}"#)]);

    let small = anthropic_start() + &search_result(0, 100) + &anthropic_end("end_turn");
    let (chunks, result) = decode(Dialect::Anthropic, small.as_bytes());
    result.unwrap();
    let kept = &chunks.iter().find_map(|chunk| chunk.choices.first()?.delta.extra.get("anthropic")).unwrap();
    assert_eq!(kept["content"][0]["content"].as_str().unwrap().len(), 100);
}

#[test]
fn fields_that_gemini_adds_without_end_are_not_held_back_without_end() {
    let mut stream = String::new();
    for number in 0..6 {
        let name = format!("future{number}");
        let text = json!({"content": {"parts": [{"text": "x"}]}, &name: "y".repeat(1 << 20)});
        stream += &format!("data: {}\r\n\r\n", json!({"candidates": [text], &name: "z".repeat(1 << 20)}));
    }
    stream += "data: {\"candidates\":[{\"finishReason\":\"STOP\",\"future0\":\"last\"}],\"future0\":\"last\"}\r\n\r\n";
    let (chunks, result) = decode(Dialect::Google, stream.as_bytes());
    result.unwrap();
    let whole = whole(&chunks);
    assert_eq!(whole.text(), "xxxxxx");
    for kept in [&whole.extra, &whole.choices[0].extra] {
        assert_eq!(kept["future0"], "last", "the latest of a name counts");
        let size: usize = kept.values().filter_map(|value| value.as_str()).map(str::len).sum();
        assert!((2 << 20..4 << 20).contains(&size), "{size}");
    }
}
