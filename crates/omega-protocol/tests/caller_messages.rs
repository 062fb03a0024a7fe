//! Anthropic's protocol as its server speaks it: requests read, answers and streams written, held against the reader of
//! the very same protocol.

mod chunks;

use std::time::Duration;

use omega_protocol::{
    CallerError, CallerProtocol, ChatChunk, ChatRequest, ChatResponse, Content, ContentPart, Dialect,
    Endpoint, EndpointOptions, FinishReason, ReasoningEffort, ResponseFormat, Role, Streaming, ToolChoice,
};
use serde_json::{Value, json};

use chunks::{chunk, delta, finish};

fn read(body: &Value) -> Result<ChatRequest, omega_protocol::RequestError> {
    CallerProtocol::Messages.format().read_request(body.to_string().as_bytes())
}

fn good(extra: Value) -> Value {
    let mut body = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
    body
}

fn refused_at(body: &Value) -> String {
    let error = read(body).expect_err("refused");
    error.field.unwrap_or_else(|| panic!("no field: {}", error.message))
}

#[test]
fn a_conversation_is_read_whole() {
    let request = read(&json!({
        "model": "m", "max_tokens": 100, "temperature": 0.5, "top_p": 0.9, "top_k": 5, "stop_sequences": ["END"],
        "stream": true, "metadata": {"user_id": "u"},
        "system": [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "see"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                {"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}},
                {"type": "document", "title": "T", "source": {"type": "base64", "media_type": "application/pdf", "data": "BBBB"}},
                {"type": "document", "title": "N", "source": {"type": "text", "media_type": "text/plain", "data": "notes"}},
            ]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "calling"},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "boom"}], "is_error": true},
                {"type": "text", "text": "and?"},
            ]},
        ],
    }))
    .expect("a request");
    assert_eq!((request.model.as_str(), request.max_tokens, request.stream), ("m", Some(100), Some(true)));
    assert_eq!(
        (request.temperature, request.top_p, request.stop.clone()),
        (Some(0.5), Some(0.9), vec!["END".into()])
    );
    assert_eq!((&request.extra["user"], &request.extra["top_k"]), (&json!("u"), &json!(5)));
    let roles: Vec<&Role> = request.messages.iter().map(|message| &message.role).collect();
    assert_eq!(roles, [&Role::System, &Role::User, &Role::Assistant, &Role::Tool, &Role::User]);
    assert_eq!(request.messages[0].content.text(), "Be brief.\n\nBe kind.");
    let Content::Parts(parts) = &request.messages[1].content else { panic!("parts") };
    assert!(matches!(&parts[1], ContentPart::ImageUrl { url, .. } if url == "data:image/png;base64,AAAA"));
    assert!(matches!(&parts[2], ContentPart::ImageUrl { url, .. } if url == "https://a.example/b.png"));
    assert!(
        matches!(&parts[3], ContentPart::File { file, .. } if file["file_data"] == "data:application/pdf;base64,BBBB")
    );
    assert_eq!(parts[4].as_text(), Some("N\n\nnotes"));
    let call = &request.messages[2].tool_calls[0];
    assert_eq!((call.id.as_str(), call.name(), call.arguments()), ("t1", "f", r#"{"a":1}"#));
    assert_eq!(request.messages[3].tool_call_id.as_deref(), Some("t1"));
    assert_eq!(request.messages[3].content.text(), "Error: boom");
    assert_eq!(request.messages[4].content.text(), "and?");
}

#[test]
fn tools_choices_thinking_and_forms_are_read() {
    let tools = json!({"tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}, "strict": true}]});
    let request = read(&good(tools)).expect("a request");
    let function = request.tools[0].function.as_ref().expect("a function");
    assert_eq!((function.name.as_str(), function.strict), ("f", Some(true)));
    for (choice, expected, parallel) in [
        (json!({"type": "auto"}), ToolChoice::Auto, None),
        (json!({"type": "any", "disable_parallel_tool_use": true}), ToolChoice::Required, Some(false)),
        (json!({"type": "none"}), ToolChoice::None, None),
        (json!({"type": "tool", "name": "f"}), ToolChoice::Function("f".into()), None),
    ] {
        let request = read(&good(json!({"tool_choice": choice}))).expect("a request");
        assert_eq!((request.tool_choice, request.parallel_tool_calls), (Some(expected), parallel));
    }
    for (said, expected) in [
        (json!({"thinking": {"type": "enabled", "budget_tokens": 2_000}}), Some(ReasoningEffort::Low)),
        (json!({"thinking": {"type": "enabled", "budget_tokens": 10_000}}), Some(ReasoningEffort::Medium)),
        (json!({"thinking": {"type": "enabled", "budget_tokens": 30_000}}), Some(ReasoningEffort::High)),
        (json!({"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}}), None),
        (
            json!({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}),
            Some(ReasoningEffort::Max),
        ),
        (json!({}), None),
    ] {
        assert_eq!(read(&good(said.clone())).expect("a request").reasoning_effort, expected, "{said}");
    }
    let schema = json!({"type": "object"});
    for form in [
        json!({"output_config": {"format": {"type": "json_schema", "schema": schema}}}),
        json!({"output_format": {"type": "json_schema", "schema": schema}}),
    ] {
        let format = read(&good(form)).expect("a request").response_format;
        assert!(
            matches!(format, Some(ResponseFormat::JsonSchema(format)) if format.schema == Some(schema.clone()))
        );
    }
}

#[test]
fn what_cannot_be_said_elsewhere_is_refused_at_its_place() {
    let user = |block: Value| json!({"messages": [{"role": "user", "content": [block]}]});
    for (extra, field) in [
        (json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}), "tools.0.type"),
        (json!({"mcp_servers": []}), "mcp_servers"),
        (json!({"container": "c"}), "container"),
        (json!({"messages": [{"role": "robot", "content": "x"}]}), "messages.0.role"),
        (json!({"max_tokens": "many"}), "max_tokens"),
        (json!({"messages": 5}), "messages"),
        (user(json!({"type": "search_result"})), "messages.0.content.0.type"),
        (
            user(json!({"type": "image", "source": {"type": "file", "file_id": "f"}})),
            "messages.0.content.0.source.type",
        ),
        (
            user(json!({"type": "document", "source": {"type": "url", "url": "u"}})),
            "messages.0.content.0.source.type",
        ),
        (
            user(
                json!({"type": "document", "citations": {"enabled": true}, "source": {"type": "text", "data": "d"}}),
            ),
            "messages.0.content.0.citations.enabled",
        ),
        (user(json!({"type": "text"})), "messages.0.content.0.text"),
    ] {
        assert_eq!(refused_at(&good(extra.clone())), field, "{extra}");
    }
}

#[test]
fn hostile_bodies_are_errors_and_never_more() {
    let deep = format!("{{\"messages\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    for body in ["", "[]", "7", "null", "{\"messages\":[[]]}", "{\"system\":[[[]]]}", deep.as_str()] {
        let _ = CallerProtocol::Messages.format().read_request(body.as_bytes());
    }
    let long = format!("{{\"{}\": 1}}", "k".repeat(100_000));
    let error = CallerProtocol::Messages.format().read_request(long.as_bytes()).expect_err("unknown");
    assert!(error.message.len() < 1_000, "{} bytes", error.message.len());
}

#[test]
fn a_request_that_goes_home_again_says_what_it_said() {
    let body = good(json!({
        "system": "s", "stop_sequences": ["X"], "temperature": 0.5,
        "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}], "tool_choice": {"type": "any"},
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "tool_use", "id": "t", "name": "f", "input": {"b": [1]}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "r"}]},
        ],
    }));
    let request = read(&body).expect("a request");
    let endpoint =
        Endpoint::new(Dialect::Anthropic, "https://a.example", Some("k"), EndpointOptions::default());
    let provider = Dialect::Anthropic.provider();
    let sent =
        provider.encode_chat(&endpoint.expect("an endpoint"), &request, Streaming::Whole).expect("encoded");
    let sent: Value = serde_json::from_slice(sent.body()).expect("JSON");
    assert_eq!(sent, body);
}

fn answer() -> ChatResponse {
    serde_json::from_value(json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 5, "model": "gpt",
        "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
            "role": "assistant", "content": "text",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}],
        }}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14, "prompt_tokens_details": {"cached_tokens": 3}},
    }))
    .expect("an answer")
}

#[test]
fn an_answer_is_read_back_as_it_was() {
    let body = CallerProtocol::Messages.format().write_answer(&answer());
    let back = Dialect::Anthropic.provider().decode_chat(&body).expect("a message");
    assert_eq!((back.text(), back.finish_reason()), ("text", Some(FinishReason::ToolCalls)));
    assert_eq!(back.tool_calls()[0].arguments(), r#"{"a":1}"#);
    let usage = back.usage.expect("usage");
    assert_eq!((usage.prompt_tokens, usage.cached_tokens(), usage.completion_tokens), (10, 3, 4));
    assert_eq!(back.id, "msg_chatcmpl-1");
}

#[test]
fn arguments_that_are_no_json_are_handed_on_as_text() {
    let mut broken = answer();
    broken.choices[0].message.tool_calls[0].function.as_mut().expect("a function").arguments = "{oops".into();
    let body: Value =
        serde_json::from_slice(&CallerProtocol::Messages.format().write_answer(&broken)).expect("JSON");
    assert_eq!(body["content"][1]["input"], json!({"invalid_json": "{oops"}));
}

/// What a reader of the protocol makes of a stream, fed in pieces of this size.
fn read_stream(bytes: &[u8], piece: usize) -> (Vec<ChatChunk>, bool) {
    let mut decoder = Dialect::Anthropic.provider().chat_decoder();
    let mut chunks = Vec::new();
    for part in bytes.chunks(piece) {
        decoder.push(part, &mut chunks).expect("a stream");
    }
    let whole = decoder.is_done() && decoder.finish(&mut chunks).is_ok();
    (chunks, whole)
}

#[test]
fn a_stream_is_read_back_as_it_was() {
    let mut writer = CallerProtocol::Messages.format().stream_writer(&ChatRequest::default());
    let mut out = Vec::new();
    for piece in [
        delta(json!({"role": "assistant", "content": ""})),
        delta(json!({"content": "He"})),
        delta(json!({"content": "llo"})),
        delta(
            json!({"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}]}),
        ),
        delta(json!({"tool_calls": [{"index": 0, "function": {"arguments": "{\"a\""}}]})),
        delta(json!({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]})),
        delta(
            json!({"tool_calls": [{"index": 1, "id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}}]}),
        ),
        finish("tool_calls"),
        chunk(json!({"usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}})),
    ] {
        writer.push(&piece, &mut out);
    }
    assert!(!String::from_utf8_lossy(&out).contains("message_delta"), "its end is held until all is known");
    writer.finish(&mut out);
    for piece in [1, 7, out.len()] {
        let (chunks, whole) = read_stream(&out, piece);
        assert!(whole);
        let mut all = omega_protocol::ChatAccumulator::new();
        chunks.iter().for_each(|chunk| all.push(chunk));
        let back = all.finish();
        assert_eq!((back.text(), back.finish_reason()), ("Hello", Some(FinishReason::ToolCalls)));
        let calls: Vec<_> = back.tool_calls().iter().map(|call| (call.name(), call.arguments())).collect();
        assert_eq!(calls, [("f", r#"{"a":1}"#), ("g", "{}")]);
        assert_eq!(back.usage.expect("usage").completion_tokens, 5);
    }
}

#[test]
fn what_went_by_untouched_is_gone_on_with_in_the_same_block() {
    let native = concat!(
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"c\",\"content\":[],\"stop_reason\":null,\"usage\":{\"input_tokens\":3,\"output_tokens\":1}}}\n\n",
        "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hel\"}}\n\n",
    );
    let mut writer = CallerProtocol::Messages.format().stream_writer(&ChatRequest::default());
    let mut out = Vec::new();
    for event in native.split_inclusive("\n\n") {
        writer.follow(event.as_bytes(), &[]);
        out.extend_from_slice(event.as_bytes());
    }
    writer.push(&delta(json!({"content": "lo"})), &mut out);
    writer.push(&finish("stop"), &mut out);
    writer.finish(&mut out);
    let (chunks, whole) = read_stream(&out, out.len());
    let said: String = chunks.iter().map(ChatChunk::text).collect();
    assert!(whole && said == "Hello", "{}", String::from_utf8_lossy(&out));
    let text = String::from_utf8(out).expect("text");
    assert_eq!(text.matches("event: message_start").count(), 1);
    assert_eq!(text.matches("event: content_block_start").count(), 1);
}

#[test]
fn a_failure_is_an_error_event_and_no_end() {
    let mut writer = CallerProtocol::Messages.format().stream_writer(&ChatRequest::default());
    let mut out = Vec::new();
    writer.push(&delta(json!({"content": "He"})), &mut out);
    let error = CallerError {
        status: 529,
        message: "busy".into(),
        request_id: Some("req_1".into()),
        ..CallerError::default()
    };
    writer.fail(&error, &mut out);
    let text = String::from_utf8(out).expect("text");
    assert!(text.ends_with("\n\n") && !text.contains("message_stop"));
    let last = text.rsplit("data: ").next().expect("data");
    let said: Value = serde_json::from_str(last).expect("JSON");
    assert_eq!((&said["error"]["type"], &said["request_id"]), (&json!("overloaded_error"), &json!("req_1")));
}

#[test]
fn errors_have_anthropics_words() {
    for (status, given, word) in [
        (400, None, "invalid_request_error"),
        (401, None, "authentication_error"),
        (404, None, "not_found_error"),
        (413, None, "request_too_large"),
        (418, None, "invalid_request_error"),
        (429, Some("tokens"), "rate_limit_error"),
        (502, None, "api_error"),
        (504, None, "timeout_error"),
        (500, Some("overloaded_error"), "overloaded_error"),
    ] {
        let error = CallerError {
            status,
            error_type: given.map(Into::into),
            message: "m".into(),
            retry_after: Some(Duration::from_secs(1)),
            ..CallerError::default()
        };
        let body: Value =
            serde_json::from_slice(&CallerProtocol::Messages.format().write_error(&error)).expect("JSON");
        assert_eq!(body["error"]["type"], word, "{status}");
        assert_eq!(body["type"], "error");
    }
}
