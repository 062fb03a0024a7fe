//! Anthropic's Messages: golden requests and answers, and streams cut anywhere.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests may")]

use omega_policy::FailureKind;
use omega_protocol::{
    AnthropicVersion, ChatAccumulator, ChatChunk, ChatRequest, ChatResponse, Content, ContentPart, Dialect,
    EncodeError, Endpoint, EndpointOptions, FinishReason, Message, Provider, ProviderError, ReasoningEffort,
    ResponseFormat, Role, Streaming, Tool, ToolCall, ToolChoice,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/anthropic/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn anthropic() -> &'static dyn Provider {
    Dialect::Anthropic.provider()
}

fn endpoint(version: AnthropicVersion) -> Endpoint {
    let options = EndpointOptions { anthropic_version: version, ..EndpointOptions::default() };
    Endpoint::new(Dialect::Anthropic, "https://api.anthropic.com", Some("sk-ant-k"), options).unwrap()
}

fn encode(request: &ChatRequest) -> Result<Value, EncodeError> {
    let sent =
        anthropic().encode_chat(&endpoint(AnthropicVersion::V2023_06_01), request, Streaming::Whole)?;
    Ok(serde_json::from_slice(sent.body()).unwrap())
}

fn refused(request: &ChatRequest) -> String {
    match encode(request) {
        Err(EncodeError::Field { field, dialect: Dialect::Anthropic, .. }) => field.into_owned(),
        other => panic!("not refused by name: {other:?}"),
    }
}

fn ask(text: &str) -> ChatRequest {
    ChatRequest::new("claude-sonnet-4-6", [Message::user(text)])
}

/// Feeds the pieces and ends the body.
fn decode_pieces<'b>(
    pieces: impl IntoIterator<Item = &'b [u8]>,
) -> (Vec<ChatChunk>, Result<(), ProviderError>) {
    let mut decoder = anthropic().chat_decoder();
    let mut chunks = Vec::new();
    for piece in pieces {
        if let Err(error) = decoder.push(piece, &mut chunks) {
            return (chunks, Err(error));
        }
    }
    let result = decoder.finish(&mut chunks);
    (chunks, result)
}

fn whole(chunks: &[ChatChunk]) -> ChatResponse {
    let mut accumulator = ChatAccumulator::new();
    chunks.iter().for_each(|chunk| accumulator.push(chunk));
    accumulator.finish()
}

#[test]
fn a_request_is_translated_field_by_field() {
    let request: ChatRequest = serde_json::from_slice(&fixture("request.json")).unwrap();
    let sent = anthropic()
        .encode_chat(&endpoint(AnthropicVersion::V2023_06_01), &request, Streaming::Whole)
        .unwrap();
    assert_eq!(sent.uri(), "https://api.anthropic.com/v1/messages");
    assert_eq!(sent.headers()["x-api-key"], "sk-ant-k");
    assert_eq!(sent.headers()["anthropic-version"], "2023-06-01");
    assert!(!sent.headers().contains_key("authorization"), "both credentials at once are refused there");
    let body: Value = serde_json::from_slice(sent.body()).unwrap();
    assert_eq!(body, serde_json::from_slice::<Value>(&fixture("request.anthropic.json")).unwrap());
}

#[test]
fn the_newer_version_carries_a_bearer_key_and_no_sampling_parameters() {
    let request: ChatRequest = serde_json::from_slice(&fixture("request.json")).unwrap();
    let sent = anthropic()
        .encode_chat(&endpoint(AnthropicVersion::V2026_10_21), &request, Streaming::Stream)
        .unwrap();
    assert_eq!(sent.headers()["authorization"], "Bearer sk-ant-k");
    assert_eq!(sent.headers()["anthropic-version"], "2026-10-21");
    assert!(!sent.headers().contains_key("x-api-key"));
    let mut expected: Value = serde_json::from_slice(&fixture("request.anthropic.json")).unwrap();
    for sampling in ["temperature", "top_p", "top_k"] {
        expected.as_object_mut().unwrap().remove(sampling).unwrap();
    }
    expected["stream"] = true.into();
    assert_eq!(serde_json::from_slice::<Value>(sent.body()).unwrap(), expected);
}

#[test]
fn models_that_refuse_sampling_parameters_are_not_sent_any_under_either_version() {
    let mut request = ask("Hi").temperature(0.2).top_p(0.5).extra("top_k", 5);
    assert_eq!(encode(&request).unwrap()["temperature"], 0.2);
    request.model = "claude-opus-4-8".into();
    let body = encode(&request).unwrap();
    assert!(["temperature", "top_p", "top_k"].iter().all(|name| body.get(name).is_none()), "{body}");
}

#[test]
fn the_smallest_request_has_a_longest_answer() {
    let body = encode(&ask("Hi")).unwrap();
    let expected = json!({
        "model": "claude-sonnet-4-6", "max_tokens": 8192, "messages": [{"role": "user", "content": "Hi"}]
    });
    assert_eq!(body, expected);
    let thinking = ask("Hi").extra("thinking", json!({"type": "enabled", "budget_tokens": 10_000}));
    assert_eq!(encode(&thinking).unwrap()["max_tokens"], 18_192, "the budget counts against it");
}

#[test]
fn what_messages_cannot_express_is_refused_by_name() {
    let audio =
        ContentPart::InputAudio { data: String::new(), format: "wav".into(), extra: Default::default() };
    let mut custom = ToolCall::function("c", "f", "{}");
    (custom.kind, custom.function) = ("custom".into(), None);
    let mut calls_custom = Message::assistant("");
    calls_custom.tool_calls.push(custom);
    let mut calls_badly = Message::assistant("");
    calls_badly.tool_calls.push(ToolCall::function("c", "f", "not JSON"));
    let nameless = Message::new(Role::Tool, "1".into());
    let openai_tool: Tool =
        serde_json::from_value(json!({"type": "custom", "custom": {"name": "x"}})).unwrap();
    let with = |message: Message| ChatRequest::new("claude-sonnet-4-6", [Message::user("Hi"), message]);
    for (field, request) in [
        ("n", ask("Hi").n(2)),
        ("presence_penalty", ChatRequest { presence_penalty: Some(0.1), ..ask("Hi") }),
        ("frequency_penalty", ChatRequest { frequency_penalty: Some(-0.1), ..ask("Hi") }),
        ("logprobs", ask("Hi").extra("logprobs", true)),
        ("logit_bias", ask("Hi").extra("logit_bias", json!({"1": 2}))),
        ("audio", ask("Hi").extra("audio", json!({"voice": "alloy"}))),
        ("modalities", ask("Hi").extra("modalities", json!(["audio"]))),
        ("web_search_options", ask("Hi").extra("web_search_options", json!({}))),
        ("functions", ask("Hi").extra("functions", json!([{"name": "f"}]))),
        ("reasoning_effort", ask("Hi").reasoning_effort(ReasoningEffort::Other("extreme".into()))),
        ("response_format", ask("Hi").response_format(ResponseFormat::Other(json!({"type": "grammar"})))),
        ("tool_choice", ask("Hi").tool_choice(ToolChoice::Other(json!({"type": "custom"})))),
        ("tools[0]", ask("Hi").tools([openai_tool])),
        ("messages", ChatRequest::new("claude-sonnet-4-6", [Message::system("Only this.")])),
        ("messages[1].content[0]", with(Message::user_parts(vec![audio]))),
        (
            "messages[1].content[0]",
            with(Message::user_parts(vec![ContentPart::image_url("file:///etc/passwd")])),
        ),
        (
            "messages[1].content[0]",
            with(Message::user_parts(vec![ContentPart::image_url("data:text/plain;base64,QQ==")])),
        ),
        ("messages[1].tool_calls[0]", with(calls_custom)),
        ("messages[1].tool_calls[0].function.arguments", with(calls_badly)),
        ("messages[1].tool_call_id", with(nameless)),
        ("messages[1].role", with(Message::new(Role::Function, "1".into()))),
    ] {
        assert_eq!(refused(&request), field);
    }
}

#[test]
fn what_changes_no_answer_is_left_out() {
    let request = ask("Hi")
        .seed(7)
        .n(1)
        .extra("store", true)
        .extra("verbosity", "low")
        .extra("prediction", json!({"type": "content", "content": "x"}))
        .extra("prompt_cache_key", "k")
        .extra("prompt_cache_retention", "24h")
        .extra("metadata", json!({"team": "a"}))
        .extra("service_tier", "flex")
        .extra("logprobs", false)
        .extra("cachedContent", "cachedContents/1")
        .extra("search_parameters", json!({}));
    assert_eq!(encode(&request).unwrap(), encode(&ask("Hi")).unwrap());
}

#[test]
fn fields_of_the_vendors_own_survive() {
    let request = ask("Hi")
        .extra("metadata", json!({"user_id": "u"}))
        .extra("inference_geo", "eu")
        .extra("speed", "fast")
        .extra("cache_control", json!({"type": "ephemeral"}))
        .extra("a_field_of_next_year", json!([1, {"x": null}]));
    let request = request.stop(["A"]).extra("stop_sequences", json!(["B"]));
    let body = encode(&request).unwrap();
    assert_eq!(body["stop_sequences"], json!(["B"]), "the vendor's own field wins");
    assert_eq!(body["metadata"], json!({"user_id": "u"}));
    assert_eq!((&body["inference_geo"], &body["speed"]), (&json!("eu"), &json!("fast")));
    assert_eq!(body["cache_control"], json!({"type": "ephemeral"}));
    assert_eq!(body["a_field_of_next_year"], json!([1, {"x": null}]));
}

#[test]
fn effort_is_said_in_anthropics_words() {
    for (effort, config, thinking) in [
        (ReasoningEffort::None, Value::Null, json!({"type": "disabled"})),
        (ReasoningEffort::Minimal, json!({"effort": "low"}), Value::Null),
        (ReasoningEffort::Low, json!({"effort": "low"}), Value::Null),
        (ReasoningEffort::XHigh, json!({"effort": "xhigh"}), Value::Null),
        (ReasoningEffort::Max, json!({"effort": "max"}), Value::Null),
    ] {
        let body = encode(&ask("Hi").reasoning_effort(effort)).unwrap();
        assert_eq!((&body["output_config"], &body["thinking"]), (&config, &thinking));
    }
    let own =
        ask("Hi").reasoning_effort(ReasoningEffort::Low).extra("output_config", json!({"effort": "max"}));
    assert_eq!(
        encode(&own).unwrap()["output_config"],
        json!({"effort": "max"}),
        "the vendor's own field wins"
    );
}

#[test]
fn tool_choice_has_an_equivalent_for_every_word() {
    let tools = || {
        [
            Tool::function("f", "", json!({"type": "object"})),
            Tool::function("g", "", json!({"type": "object"})),
        ]
    };
    let choice = |choice, parallel: Option<bool>| {
        let mut request = ask("Hi").tools(tools()).tool_choice(choice);
        request.parallel_tool_calls = parallel;
        encode(&request).unwrap()["tool_choice"].take()
    };
    assert_eq!(choice(ToolChoice::None, Some(false)), json!({"type": "none"}));
    assert_eq!(choice(ToolChoice::Auto, None), json!({"type": "auto"}));
    assert_eq!(
        choice(ToolChoice::Auto, Some(false)),
        json!({"type": "auto", "disable_parallel_tool_use": true})
    );
    assert_eq!(choice(ToolChoice::Required, Some(true)), json!({"type": "any"}));
    assert_eq!(choice(ToolChoice::Function("g".into()), None), json!({"type": "tool", "name": "g"}));
    assert_eq!(choice(ToolChoice::Other(json!({"type": "any"})), None), json!({"type": "any"}));
    let unsaid = encode(&ask("Hi").tools(tools()).parallel_tool_calls(false)).unwrap();
    assert_eq!(unsaid["tool_choice"], json!({"type": "auto", "disable_parallel_tool_use": true}));
    assert!(
        encode(&ask("Hi").tool_choice(ToolChoice::Auto)).unwrap().get("tool_choice").is_none(),
        "no tools"
    );
    let allowed = json!({"type": "allowed_tools", "allowed_tools": {"mode": "required",
        "tools": [{"type": "function", "function": {"name": "g"}}]}});
    let body = encode(&ask("Hi").tools(tools()).tool_choice(ToolChoice::Other(allowed))).unwrap();
    assert_eq!((body["tools"].as_array().unwrap().len(), &body["tools"][0]["name"]), (1, &json!("g")));
    assert_eq!(body["tool_choice"], json!({"type": "any"}));
}

#[test]
fn any_json_object_is_asked_for_in_words() {
    let body = encode(&ask("Hi").response_format(ResponseFormat::JsonObject)).unwrap();
    assert!(body["system"].as_str().unwrap().contains("one valid JSON object"), "{body}");
    assert!(body.get("output_config").is_none());
}

#[test]
fn empty_texts_are_not_sent() {
    let mut calling = Message::assistant("");
    calling.tool_calls.push(ToolCall::function("toolu_1", "f", "{}"));
    let conversation =
        [Message::system(""), Message::user("Hi"), Message::user(""), calling, Message::tool("toolu_1", "")];
    let body = encode(&ChatRequest::new("claude-sonnet-4-6", conversation)).unwrap();
    assert!(body.get("system").is_none());
    assert_eq!(
        body["messages"],
        json!([
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": []}]}
        ])
    );
}

#[test]
fn an_answer_is_read_with_normalised_usage_and_nothing_lost() {
    let response = anthropic().decode_chat(&fixture("response.json")).unwrap();
    assert_eq!((response.id.as_str(), response.model.as_str()), ("msg_01", "claude-sonnet-5-5"));
    assert_eq!(response.text(), "Hello.");
    assert_eq!(response.finish_reason(), Some(FinishReason::Stop));
    let usage = response.usage.as_ref().unwrap();
    assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens), (1125, 15, 1140));
    assert_eq!((usage.cached_tokens(), usage.reasoning_tokens()), (1000, 3));
    assert_eq!(usage.prompt_tokens_details.as_ref().unwrap().cache_write_tokens, Some(100));
    assert_eq!(usage.extra["cache_creation"]["ephemeral_5m_input_tokens"], 100);
    assert_eq!(usage.extra["inference_geo"], "eu");
    assert!(!usage.extra.contains_key("server_tool_use"), "null says nothing");
    assert_eq!(response.service_tier.as_deref(), Some("standard"));
    assert_eq!(response.extra["container"]["id"], "c_1");
    assert_eq!(response.choices[0].extra["stop_sequence"], "END");
    assert!(response.choices[0].message.extra.is_empty(), "nothing to echo");
}

#[test]
fn every_stop_reason_has_a_meaning() {
    for (word, meaning) in [
        ("end_turn", FinishReason::Stop),
        ("stop_sequence", FinishReason::Stop),
        ("pause_turn", FinishReason::Stop),
        ("max_tokens", FinishReason::Length),
        ("model_context_window_exceeded", FinishReason::Length),
        ("tool_use", FinishReason::ToolCalls),
        ("refusal", FinishReason::ContentFilter),
        ("of_next_year", FinishReason::Other("of_next_year".into())),
    ] {
        let body = json!({"id": "m", "type": "message", "model": "c", "content": [], "stop_reason": word})
            .to_string();
        let response = anthropic().decode_chat(body.as_bytes()).unwrap();
        assert_eq!(response.finish_reason(), Some(meaning), "{word}");
        assert_eq!(response.choices[0].extra["stop_reason"], word);
    }
}

#[test]
fn a_refusal_is_a_content_filter_with_its_explanation() {
    let response = anthropic().decode_chat(&fixture("response_refusal.json")).unwrap();
    assert_eq!(response.finish_reason(), Some(FinishReason::ContentFilter));
    assert_eq!(response.choices[0].message.refusal.as_deref(), Some("This cannot be answered."));
    assert_eq!(response.choices[0].extra["stop_details"]["category"], "cyber");
}

#[test]
fn a_200_that_is_no_answer_is_a_failure() {
    for (body, kind) in [
        (
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
            FailureKind::Overloaded,
        ),
        (r#"{"id":"m","type":"message","content":[],"stop_reason":null}"#, FailureKind::Server),
        (r#"{"id":"m","type":"message","stop_reason":"end_turn"}"#, FailureKind::Server),
        ("{}", FailureKind::Server),
        ("", FailureKind::Server),
        ("<html>", FailureKind::Server),
        (r#"{"id":"m","type":"message","content":[{"type":"te"#, FailureKind::Server),
    ] {
        assert_eq!(anthropic().decode_chat(body.as_bytes()).unwrap_err().failure.kind, kind, "{body}");
    }
}

/// The next request after this answer: what is sent of the assistant's turn.
fn echoed(message: Message) -> Value {
    let request = ChatRequest::new("claude-opus-5-5", [Message::user("Hi"), message, Message::user("Go on")]);
    encode(&request).unwrap()["messages"][1]["content"].take()
}

#[test]
fn signed_thinking_survives_the_round_trip() {
    let original: Value = serde_json::from_slice(&fixture("response_tools.json")).unwrap();
    let response = anthropic().decode_chat(&fixture("response_tools.json")).unwrap();
    let message = &response.choices[0].message;
    assert_eq!(message.reasoning_content.as_deref(), Some("I should look "));
    assert_eq!(message.content, Content::Text("Looking.".into()));
    assert_eq!(response.tool_calls()[0].arguments(), r#"{"q":"x"}"#);
    assert_eq!(
        (response.tool_calls()[1].id.as_str(), response.tool_calls()[1].arguments()),
        ("toolu_2", "{}")
    );
    // Through JSON, as a caller in another language would carry it.
    let carried: Message = serde_json::from_str(&serde_json::to_string(message).unwrap()).unwrap();
    assert_eq!(echoed(carried), original["content"]);
}

#[test]
fn a_turn_that_openais_shape_cannot_carry_is_echoed_whole_unless_it_was_changed() {
    let original: Value = serde_json::from_slice(&fixture("response_interleaved.json")).unwrap();
    let response = anthropic().decode_chat(&fixture("response_interleaved.json")).unwrap();
    assert_eq!(response.text(), "It is so.");
    let message = response.choices[0].message.clone();
    assert_eq!(echoed(message.clone()), original["content"]);
    let changed = Message { content: "It is not so.".into(), ..message };
    assert_eq!(echoed(changed), "It is not so.");
}

#[test]
fn a_stream_says_what_a_whole_answer_says() {
    let bytes = fixture("stream.sse");
    let (chunks, result) = decode_pieces([bytes.as_slice()]);
    result.unwrap();
    assert_eq!(chunks[0].choices[0].delta.role, Some(Role::Assistant));
    assert!(!chunks[0].has_content());
    let answer = whole(&chunks);
    assert_eq!((answer.id.as_str(), answer.model.as_str()), ("msg_05", "claude-opus-5-5"));
    assert_eq!(answer.text(), "Grüße, é and \"more\".");
    let message = &answer.choices[0].message;
    assert_eq!(message.reasoning_content.as_deref(), Some("Let me think."));
    let thinking = json!([{"type": "thinking", "thinking": "Let me think.", "signature": "c2ln"}]);
    assert_eq!(message.extra["thinking_blocks"], thinking);
    let calls: Vec<_> =
        answer.tool_calls().iter().map(|call| (call.id.as_str(), call.name(), call.arguments())).collect();
    assert_eq!(calls, [("toolu_1", "lookup", r#"{"q": "x"}"#), ("toolu_2", "now", "{}")]);
    assert_eq!(answer.finish_reason(), Some(FinishReason::ToolCalls));
    let usage = answer.usage.as_ref().unwrap();
    assert_eq!(
        (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens),
        (112, 42, 154),
        "totals, not sums"
    );
    assert_eq!((usage.cached_tokens(), usage.reasoning_tokens()), (100, 9));
    assert_eq!(answer.service_tier.as_deref(), Some("standard"));
}

#[test]
fn finish_reason_and_usage_wait_for_the_terminator() {
    let bytes = fixture("stream.sse");
    let end = bytes.windows(12).rposition(|window| window == b"message_stop").unwrap();
    let (chunks, result) = decode_pieces([&bytes[..end]]);
    let error = result.unwrap_err();
    assert_eq!(error.failure.kind, FailureKind::StreamBroken);
    assert!(chunks.iter().all(|chunk| chunk.usage.is_none() && chunk.choices[0].finish_reason.is_none()));
    let seen = error.failure.seen.unwrap();
    assert_eq!((seen.input_tokens, seen.cached_input_tokens, seen.output_tokens), (112, 100, 42));
}

#[test]
fn usage_that_was_not_said_is_not_zero() {
    let stream = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\"}}\n\n\
        event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}}\n\n";
    assert_eq!(decode_pieces([stream.as_bytes()]).1.unwrap_err().failure.seen, None);
    let stop = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    let (chunks, result) = decode_pieces([stream.as_bytes(), stop.as_bytes()]);
    result.unwrap();
    assert_eq!(whole(&chunks).usage, None);
    assert_eq!(whole(&chunks).finish_reason(), Some(FinishReason::Stop));
}

#[test]
fn nothing_is_expected_after_the_terminator() {
    let bytes = fixture("stream.sse");
    let mut decoder = anthropic().chat_decoder();
    let mut chunks = Vec::new();
    decoder.push(&bytes, &mut chunks).unwrap();
    assert!(decoder.is_done());
    let count = chunks.len();
    decoder.push(b"event: error\ndata: {\"type\":\"error\"}\n\n", &mut chunks).unwrap();
    decoder.finish(&mut chunks).unwrap();
    assert_eq!(chunks.len(), count);
}

#[test]
fn no_prefix_of_a_stream_is_a_whole_answer() {
    let bytes = fixture("stream.sse");
    let text = String::from_utf8(bytes.clone()).unwrap();
    // Whole from the closing brace of the last event on: its JSON proves itself.
    let whole_from = text.rfind('}').unwrap() + 1;
    for end in 0..=bytes.len() {
        let (chunks, result) = decode_pieces([&bytes[..end]]);
        assert_eq!(result.is_ok(), end >= whole_from, "cut at {end} of {}", bytes.len());
        if let Err(error) = result {
            assert_eq!(error.failure.kind, FailureKind::StreamBroken, "cut at {end}");
            assert!(
                chunks.iter().flat_map(|chunk| &chunk.choices).all(|choice| choice.finish_reason.is_none())
            );
        }
    }
}

#[test]
fn an_error_inside_a_stream_means_what_it_means_outside() {
    let (chunks, result) = decode_pieces([fixture("stream_error.sse").as_slice()]);
    assert_eq!(whole(&chunks).text(), "Hel", "what came before it is delivered");
    let error = result.unwrap_err();
    assert_eq!(error.to_string(), "529 overloaded_error: Overloaded");
    assert_eq!(error.request_id.as_deref(), Some("req_1"));
    assert_eq!(error.failure.seen.unwrap().input_tokens, 12);
    for (error_type, status, kind) in [
        ("overloaded_error", 529, FailureKind::Overloaded),
        ("api_error", 500, FailureKind::Server),
        ("rate_limit_error", 429, FailureKind::Throttled),
        ("timeout_error", 504, FailureKind::Server),
        ("invalid_request_error", 400, FailureKind::Invalid),
        ("authentication_error", 401, FailureKind::Auth),
        ("billing_error", 402, FailureKind::OutOfQuota),
        ("of_next_year_error", 500, FailureKind::Server),
    ] {
        let data = json!({"type": "error", "error": {"type": error_type, "message": "m"}});
        for event in [format!("event: error\ndata: {data}\n\n"), format!("data: {data}\n\n")] {
            let error = decode_pieces([event.as_bytes()]).1.unwrap_err();
            assert_eq!((error.status, error.failure.kind), (Some(status), kind), "{event}");
        }
    }
}

#[test]
fn a_malformed_stream_is_broken_and_stays_so() {
    let start = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"usage\":{}}}\n\n";
    let delta = "event: content_block_delta\ndata: ";
    for bad in [
        format!("{start}{delta}{{\"type\":\"content_blo\n\n"),
        format!("{start}{delta}not JSON\n\n"),
        format!("{start}event: of_next_year\ndata: not JSON\n\n"),
        format!("{start}event: ping\ndata: {{\n\n"),
        format!("{start}{delta}{{\"index\":3,\"delta\":{{\"text\":\"x\"}}}}\n\n"),
        format!("{start}event: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n"),
        "event: content_block_start\ndata: {\"index\":0,\"content_block\":{\"type\":\"text\"}}\n\n"
            .to_owned(),
    ] {
        let mut decoder = anthropic().chat_decoder();
        let mut chunks = Vec::new();
        let error = decoder.push(bad.as_bytes(), &mut chunks).expect_err(&bad);
        assert_eq!(error.failure.kind, FailureKind::StreamBroken, "{bad}");
        let rest = fixture("stream.sse");
        assert_eq!(decoder.push(&rest, &mut chunks).unwrap_err(), error, "{bad}");
        assert_eq!(decoder.finish(&mut chunks).unwrap_err(), error, "{bad}");
        assert!(!decoder.is_done());
    }
}

#[test]
fn an_error_that_is_no_event_is_seen_and_a_page_is_a_break() {
    let stream = String::from_utf8(fixture("stream.sse")).unwrap();
    let begun = stream.split_inclusive("\n\n").take(3).collect::<String>();
    for (line, kind) in [
        (
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
            FailureKind::Overloaded,
        ),
        (r#"{"error":{"type":"rate_limit_error","message":"m"}}"#, FailureKind::Throttled),
        (r#"{"candidates":[]}"#, FailureKind::StreamBroken),
        ("<html><title>502</title></html>", FailureKind::StreamBroken),
    ] {
        let (_, result) = decode_pieces([format!("{begun}{line}\n\n").as_bytes()]);
        assert_eq!(result.unwrap_err().failure.kind, kind, "{line}");
    }
    // What is left of a comment or a field of the future is skipped, and so is everything after the end.
    let (_, result) =
        decode_pieces([format!("{begun}future: 1\n{}<html>", &stream[begun.len()..]).as_bytes()]);
    result.unwrap();
}

#[test]
fn an_end_without_a_beginning_is_no_answer() {
    let end = concat!(
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}}\n\n",
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    );
    let (chunks, result) = decode_pieces([end.as_bytes()]);
    assert_eq!(result.unwrap_err().failure.kind, FailureKind::StreamBroken);
    assert!(chunks.is_empty());
}

#[test]
fn a_null_error_beside_an_answer_is_no_error() {
    let body =
        br#"{"type":"message","content":[{"type":"text","text":"x"}],"stop_reason":"end_turn","error":null}"#;
    assert_eq!(anthropic().decode_chat(body).unwrap().text(), "x");
}

#[test]
fn an_answer_text_never_shows_in_an_error() {
    let secret = "event: content_block_delta\ndata: {\"index\":\"my secret\",\"delta\":{}}\n\n";
    let error = decode_pieces([secret.as_bytes()]).1.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
}

#[test]
fn interleaved_turns_of_a_stream_are_kept_whole_too() {
    let original: Value = serde_json::from_slice(&fixture("response_interleaved.json")).unwrap();
    let mut stream = String::from(
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"model\":\"c\",\"usage\":{}}}\n\n",
    );
    let mut event = |data: Value| stream.push_str(&format!("data: {data}\n\n"));
    for (index, block) in original["content"].as_array().unwrap().iter().enumerate() {
        let mut begun = block.clone();
        let (field, delta) = match block["type"].as_str().unwrap() {
            "text" => ("text", json!({"type": "text_delta", "text": block["text"]})),
            "thinking" => ("thinking", json!({"type": "thinking_delta", "thinking": block["thinking"]})),
            "server_tool_use" => {
                ("input", json!({"type": "input_json_delta", "partial_json": block["input"].to_string()}))
            }
            _ => ("", Value::Null),
        };
        if !delta.is_null() {
            begun[field] = if field == "input" { json!({}) } else { json!("") };
        }
        let citations = begun.as_object_mut().unwrap().remove("citations").unwrap_or_default();
        event(json!({"type": "content_block_start", "index": index, "content_block": begun}));
        if !delta.is_null() {
            event(json!({"type": "content_block_delta", "index": index, "delta": delta}));
        }
        for citation in citations.as_array().into_iter().flatten() {
            let delta = json!({"type": "citations_delta", "citation": citation});
            event(json!({"type": "content_block_delta", "index": index, "delta": delta}));
        }
        event(json!({"type": "content_block_stop", "index": index}));
    }
    event(
        json!({"type": "message_delta", "delta": {"stop_reason": "pause_turn"}, "usage": {"output_tokens": 1}}),
    );
    event(json!({"type": "message_stop"}));
    let (chunks, result) = decode_pieces([stream.as_bytes()]);
    result.unwrap();
    let message = whole(&chunks).choices.remove(0).message;
    assert!(message.tool_calls.is_empty(), "a server's own tool is not the caller's to call");
    let mut expected = original["content"].clone();
    expected[4].as_object_mut().unwrap().remove("citations"); // null in the original
    assert_eq!(echoed(message), expected);
}

fn pieces_of(cuts: &[prop::sample::Index], bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec()).collect()
}

proptest! {
    #[test]
    fn chunks_do_not_depend_on_how_the_bytes_were_cut(cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40)) {
        let bytes = fixture("stream.sse");
        let at_once = decode_pieces([bytes.as_slice()]);
        let pieces = pieces_of(&cuts, &bytes);
        prop_assert_eq!(decode_pieces(pieces.iter().map(Vec::as_slice)), at_once);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), cut in any::<prop::sample::Index>()) {
        let at = cut.index(bytes.len() + 1);
        let _ = decode_pieces([&bytes[..at], &bytes[at..]]);
        let _ = anthropic().decode_chat(&bytes);
    }

    #[test]
    fn a_stream_with_damaged_bytes_never_panics(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = fixture("stream.sse");
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = decode_pieces([bytes.as_slice()]);
    }
}
