//! Google's Gemini API: golden requests and answers, and streams cut anywhere.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests may")]

use omega_policy::FailureKind;
use omega_protocol::{
    ChatAccumulator, ChatChunk, ChatRequest, ChatResponse, Content, ContentPart, Dialect, EmbeddingVector,
    EmbeddingsRequest, EncodeError, Endpoint, EndpointOptions, FinishReason, GoogleVersion, Message,
    Provider, ProviderError, ReasoningEffort, ResponseFormat, ResponsesRequest, Role, Streaming, Tool,
    ToolCall, ToolChoice,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/google/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn google() -> &'static dyn Provider {
    Dialect::Google.provider()
}

fn endpoint(version: GoogleVersion) -> Endpoint {
    let options = EndpointOptions { google_version: version, ..EndpointOptions::default() };
    Endpoint::new(Dialect::Google, Dialect::Google.default_base_url(), Some("AIza-k"), options).unwrap()
}

fn encode(request: &ChatRequest) -> Result<Value, EncodeError> {
    let sent = google().encode_chat(&endpoint(GoogleVersion::V1), request, Streaming::Whole)?;
    Ok(serde_json::from_slice(sent.body()).unwrap())
}

fn refused(request: &ChatRequest) -> String {
    match encode(request) {
        Err(EncodeError::Field { field, dialect: Dialect::Google, .. }) => field.into_owned(),
        other => panic!("not refused by name: {other:?}"),
    }
}

fn ask(text: &str) -> ChatRequest {
    ChatRequest::new("gemini-3.5-flash", [Message::user(text)])
}

/// Feeds the pieces and ends the body.
fn decode_pieces<'b>(
    pieces: impl IntoIterator<Item = &'b [u8]>,
) -> (Vec<ChatChunk>, Result<(), ProviderError>) {
    let mut decoder = google().chat_decoder();
    let mut chunks = Vec::new();
    for piece in pieces {
        assert!(!decoder.is_done(), "only the end of the body ends the stream");
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
    let sent = google().encode_chat(&endpoint(GoogleVersion::V1), &request, Streaming::Whole).unwrap();
    let base = "https://generativelanguage.googleapis.com";
    assert_eq!(sent.uri().to_string(), format!("{base}/v1/models/gemini-3.5-flash:generateContent"));
    assert_eq!(sent.headers()["x-goog-api-key"], "AIza-k");
    let body: Value = serde_json::from_slice(sent.body()).unwrap();
    assert_eq!(body, serde_json::from_slice::<Value>(&fixture("request.google.json")).unwrap());
    let streamed =
        google().encode_chat(&endpoint(GoogleVersion::V1Beta), &request, Streaming::Stream).unwrap();
    assert_eq!(
        streamed.uri().to_string(),
        format!("{base}/v1beta/models/gemini-3.5-flash:streamGenerateContent?alt=sse")
    );
    assert_eq!(streamed.body(), sent.body(), "whether to stream is said in the path");
}

#[test]
fn the_smallest_request_is_its_contents() {
    let expected = json!({"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]});
    assert_eq!(encode(&ask("Hi")).unwrap(), expected);
}

#[test]
fn what_gemini_cannot_express_is_refused_by_name() {
    let mut calls_badly = Message::assistant("");
    calls_badly.tool_calls.push(ToolCall::function("c", "f", "[1]"));
    let mut calls_custom = Message::assistant("");
    calls_custom.tool_calls.push(ToolCall { function: None, ..ToolCall::function("c", "f", "{}") });
    let unknown_part = ContentPart::Other(json!({"type": "tool_result"}));
    let foreign_tool: Tool =
        serde_json::from_value(json!({"type": "custom", "custom": {"name": "x"}})).unwrap();
    let with = |message: Message| ChatRequest::new("gemini-3.5-flash", [Message::user("Hi"), message]);
    let function = || Tool::function("f", "", json!({"type": "object"}));
    for (field, request) in [
        ("model", ChatRequest::new("gemini/../../x", [Message::user("Hi")])),
        ("seed", ask("Hi").seed(i64::MAX)),
        ("logprobs", ask("Hi").extra("logprobs", true)),
        ("logit_bias", ask("Hi").extra("logit_bias", json!({"1": 2}))),
        ("parallel_tool_calls", ask("Hi").tools([function()]).parallel_tool_calls(false)),
        ("reasoning_effort", ask("Hi").reasoning_effort(ReasoningEffort::Other("extreme".into()))),
        ("response_format", ask("Hi").response_format(ResponseFormat::Other(json!({"type": "grammar"})))),
        ("tool_choice", ask("Hi").tools([function()]).tool_choice(ToolChoice::Other(json!({"type": "any"})))),
        ("tools[0]", ask("Hi").tools([foreign_tool])),
        ("messages", ChatRequest::new("gemini-3.5-flash", [Message::system("Only this.")])),
        ("messages[1].content[0]", with(Message::user_parts(vec![unknown_part]))),
        ("messages[1].content[0]", with(Message::user_parts(vec![ContentPart::image_url("file:///x")]))),
        ("messages[1].tool_calls[0]", with(calls_custom)),
        ("messages[1].tool_calls[0].function.arguments", with(calls_badly)),
        ("messages[1].tool_call_id", with(Message::new(Role::Tool, "1".into()))),
        ("messages[1].tool_call_id", with(Message::tool("never_called", "1"))),
        ("messages[1].role", with(Message::new(Role::Function, "1".into()))),
    ] {
        assert_eq!(refused(&request), field);
    }
}

#[test]
fn what_changes_no_answer_is_left_out() {
    let request = ask("Hi")
        .n(1)
        .parallel_tool_calls(false)
        .extra("store", true)
        .extra("user", "u")
        .extra("metadata", json!({"user_id": "u"}))
        .extra("prompt_cache_key", "k")
        .extra("service_tier", "auto")
        .extra("thinking", json!({"type": "adaptive"}))
        .extra("output_config", json!({"effort": "low"}));
    assert_eq!(encode(&request).unwrap(), encode(&ask("Hi")).unwrap());
}

#[test]
fn fields_of_the_vendors_own_survive() {
    let request =
        ask("Hi").max_tokens(5).extra("labels", json!({"team": "a"})).extra("a_field_of_next_year", 1);
    let request = request.extra("generation_config", json!({"max_output_tokens": 9, "audioTimestamp": true}));
    let body = encode(&request).unwrap();
    assert_eq!((&body["labels"], &body["a_field_of_next_year"]), (&json!({"team": "a"}), &json!(1)));
    let config = json!({"max_output_tokens": 9, "audioTimestamp": true});
    assert_eq!(body["generationConfig"], config, "the vendor's own field wins, under either name");
}

#[test]
fn effort_is_a_level_or_a_budget_by_generation() {
    let config = |model: &str, effort| {
        let mut request = ask("Hi").reasoning_effort(effort);
        request.model = model.into();
        encode(&request).unwrap()["generationConfig"]["thinkingConfig"].take()
    };
    for (effort, level, flash, pro) in [
        (ReasoningEffort::None, "MINIMAL", 0, 128),
        (ReasoningEffort::Minimal, "MINIMAL", 512, 512),
        (ReasoningEffort::Low, "LOW", 1_024, 1_024),
        (ReasoningEffort::Medium, "MEDIUM", 8_192, 8_192),
        (ReasoningEffort::High, "HIGH", 24_576, 24_576),
        (ReasoningEffort::XHigh, "XHIGH", 24_576, 32_768),
        (ReasoningEffort::Max, "XHIGH", 24_576, 32_768),
    ] {
        assert_eq!(config("gemini-3.1-pro-preview", effort.clone()), json!({"thinkingLevel": level}));
        assert_eq!(config("gemini-2.5-flash", effort.clone()), json!({"thinkingBudget": flash}));
        assert_eq!(config("gemini-2.5-pro", effort.clone()), json!({"thinkingBudget": pro}));
        assert_eq!(config("gemma-4-27b", effort), Value::Null);
    }
}

#[test]
fn tool_choice_has_an_equivalent_for_every_word() {
    let tools = || [Tool::function("f", "", json!({})), Tool::function("g", "", json!({}))];
    let body = |choice| encode(&ask("Hi").tools(tools()).tool_choice(choice)).unwrap();
    let mode = |choice| body(choice)["toolConfig"]["functionCallingConfig"].take();
    assert_eq!(mode(ToolChoice::None), json!({"mode": "NONE"}));
    assert_eq!(mode(ToolChoice::Auto), json!({"mode": "AUTO"}));
    assert_eq!(mode(ToolChoice::Required), json!({"mode": "ANY"}));
    assert_eq!(mode(ToolChoice::Function("g".into())), json!({"mode": "ANY", "allowedFunctionNames": ["g"]}));
    let allowed = json!({"type": "allowed_tools", "allowed_tools": {"mode": "auto",
        "tools": [{"type": "function", "function": {"name": "g"}}]}});
    let body = body(ToolChoice::Other(allowed));
    assert_eq!(
        body["tools"],
        json!([{"functionDeclarations": [{"name": "g", "description": "", "parametersJsonSchema": {}}]}])
    );
    assert_eq!(body["toolConfig"]["functionCallingConfig"], json!({"mode": "AUTO"}));
    let own = ask("Hi").tools(tools()).tool_choice(ToolChoice::Auto).extra("toolConfig", json!({"x": 1}));
    assert_eq!(encode(&own).unwrap()["toolConfig"], json!({"x": 1}), "the vendor's own field wins");
}

/// What is sent for the result of a call named `f`.
fn result_of(result: Message) -> Value {
    let mut calling = Message::assistant("");
    calling.tool_calls.push(ToolCall::function("f1", "f", "{}"));
    let request = ChatRequest::new("gemini-2.5-pro", [Message::user("Hi"), calling, result]);
    encode(&request).unwrap()["contents"][2]["parts"][0]["functionResponse"].take()
}

#[test]
fn results_of_calls_are_objects_with_the_functions_name() {
    for (text, response) in [
        ("{\"r\": 1}", json!({"r": 1})),
        ("[1, 2]", json!({"result": [1, 2]})),
        ("7", json!({"result": 7})),
        ("plain words", json!({"result": "plain words"})),
        ("{broken", json!({"result": "{broken"})),
        ("", json!({"result": ""})),
    ] {
        assert_eq!(
            result_of(Message::tool("f1", text)),
            json!({"id": "f1", "name": "f", "response": response})
        );
    }
    let mut failed = Message::tool("f1", "no such file");
    failed.extra.insert("is_error".into(), true.into());
    assert_eq!(result_of(failed)["response"], json!({"error": "no such file"}));
    let two = Message::new(Role::Tool, Content::Parts(vec![ContentPart::text("a"), ContentPart::text("b")]));
    let two = Message { tool_call_id: Some("f1".into()), ..two };
    assert_eq!(result_of(two)["response"], json!({"result": "ab"}));
    let named = Message { name: Some("g".into()), ..Message::tool("of_another_conversation", "7") };
    assert_eq!(result_of(named)["name"], "g");
}

#[test]
fn calls_of_another_vendors_model_stand_in_for_a_signature_where_one_is_demanded() {
    let mut calling = Message::assistant("");
    calling.tool_calls = vec![ToolCall::function("c1", "f", "{}"), ToolCall::function("c2", "f", "{}")];
    let mut request = ChatRequest::new("gemini-3.5-flash", [Message::user("Hi"), calling]);
    let parts = encode(&request).unwrap()["contents"][1]["parts"].take();
    assert_eq!(parts[0]["thoughtSignature"], "skip_thought_signature_validator");
    assert!(parts[1].get("thoughtSignature").is_none(), "only the first of parallel calls is signed");
    request.model = "gemini-2.5-pro".into();
    let parts = encode(&request).unwrap()["contents"][1]["parts"].take();
    assert!(parts[0].get("thoughtSignature").is_none(), "not demanded there");
}

#[test]
fn responses_are_refused_in_words() {
    let request = ResponsesRequest::new("gemini-3.8-flash", "x");
    let error =
        google().encode_responses(&endpoint(GoogleVersion::V1), &request, Streaming::Whole).unwrap_err();
    assert_eq!(error, EncodeError::Unsupported { dialect: Dialect::Google, operation: "responses" });
    assert!(error.to_string().contains("choose another provider"), "{error}");
}

fn embed(request: Value) -> Result<(String, Value), EncodeError> {
    let request: EmbeddingsRequest = serde_json::from_value(request).unwrap();
    let sent = google().encode_embeddings(&endpoint(GoogleVersion::V1Beta), &request)?;
    Ok((sent.uri().path().to_owned(), serde_json::from_slice(sent.body()).unwrap()))
}

#[test]
fn embeddings_go_out_as_a_batch_of_one_request_a_text() {
    let of = |text: &str| json!({"model": "models/gemini-embedding-001", "content": {"role": "user", "parts": [{"text": text}]}});
    let (path, body) = embed(json!({"model": "gemini-embedding-001", "input": "a"})).unwrap();
    assert_eq!(path, "/v1beta/models/gemini-embedding-001:batchEmbedContents");
    assert_eq!(body, json!({"requests": [of("a")]}));
    let (path, body) =
        embed(json!({"model": "models/gemini-embedding-001", "input": ["a", "b"], "dimensions": 64,
        "encoding_format": "float", "user": "u", "task_type": "RETRIEVAL_DOCUMENT", "title": "t"}))
        .unwrap();
    assert_eq!(path, "/v1beta/models/gemini-embedding-001:batchEmbedContents");
    for (at, text) in ["a", "b"].into_iter().enumerate() {
        let mut expected = of(text);
        expected["taskType"] = "RETRIEVAL_DOCUMENT".into();
        expected["title"] = "t".into();
        expected["outputDimensionality"] = 64.into();
        assert_eq!(body["requests"][at], expected);
    }
    assert_eq!(body["requests"].as_array().unwrap().len(), 2);
    for (field, request) in [
        ("encoding_format", json!({"model": "m", "input": "a", "encoding_format": "base64"})),
        ("input", json!({"model": "m", "input": [1, 2]})),
        ("input", json!({"model": "m", "input": [[1], [2]]})),
        ("input", json!({"model": "m", "input": []})),
        ("model", json!({"model": "m/../../x", "input": "a"})),
    ] {
        let error = embed(request).unwrap_err().to_string();
        assert!(error.contains(&format!("`{field}`")), "{error}");
    }
}

#[test]
fn embeddings_come_back_in_the_order_asked() {
    let body = br#"{"embeddings":[{"values":[0.5,-0.25]},{"values":[1],"shape":[1]}],"usageMetadata":{"promptTokenCount":7},"x":1}"#;
    let answer = google().decode_embeddings(body).unwrap();
    let vectors: Vec<_> = answer.data.iter().map(|one| (one.index, &one.embedding)).collect();
    assert_eq!(
        vectors,
        [(0, &EmbeddingVector::Floats(vec![0.5, -0.25])), (1, &EmbeddingVector::Floats(vec![1.0]))]
    );
    assert_eq!((&answer.data[1].extra["shape"], &answer.extra["x"]), (&json!([1]), &json!(1)));
    let usage = answer.usage.unwrap();
    assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens), (7, 0, 7));
    for (body, kind) in [
        (r#"{"embeddings":[]}"#, FailureKind::Server),
        (r#"{"embeddings":[{}]}"#, FailureKind::Server),
        ("{}", FailureKind::Server),
        (r#"{"embeddings":[{"values":[0.5"#, FailureKind::Server),
        (r#"[{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED"}}]"#, FailureKind::Throttled),
        (r#"{"error":{"code":503,"message":"m","status":"UNAVAILABLE"}}"#, FailureKind::Overloaded),
    ] {
        assert_eq!(google().decode_embeddings(body.as_bytes()).unwrap_err().failure.kind, kind, "{body}");
    }
}

#[test]
fn an_image_in_an_answer_is_content_and_a_page_between_events_is_a_break() {
    let image = json!({"candidates": [{"content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]}}]});
    let end = "data: {\"candidates\":[{\"finishReason\":\"STOP\"}]}\r\n\r\n";
    let (chunks, result) = decode_pieces([format!("data: {image}\r\n\r\n{end}").as_bytes()]);
    result.unwrap();
    let content: Vec<bool> = chunks.iter().map(ChatChunk::has_content).collect();
    assert_eq!(content, [true, false]);
    let (_, result) = decode_pieces([format!("data: {image}\r\n\r\n<html>502</html>\r\n{end}").as_bytes()]);
    assert_eq!(result.unwrap_err().failure.kind, FailureKind::StreamBroken);
}

#[test]
fn an_answer_is_read_with_normalised_usage_and_nothing_lost() {
    let response = google().decode_chat(&fixture("response.json")).unwrap();
    assert_eq!((response.id.as_str(), response.model.as_str()), ("resp-1", "gemini-3.5-flash"));
    assert_eq!(response.text(), "Hello.");
    assert_eq!(response.finish_reason(), Some(FinishReason::Stop));
    let message = &response.choices[0].message;
    assert_eq!(message.reasoning_content.as_deref(), Some("A greeting."));
    assert_eq!(message.extra["extra_content"], json!({"google": {"thought_signature": "c2ln"}}));
    assert_eq!(message.extra["google"]["parts"][0]["executableCode"]["code"], "1+1");
    let usage = response.usage.as_ref().unwrap();
    assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens), (105, 50, 155));
    assert_eq!((usage.cached_tokens(), usage.reasoning_tokens()), (40, 30));
    assert_eq!(usage.extra["promptTokensDetails"][0]["tokenCount"], 100);
    assert_eq!(response.service_tier.as_deref(), Some("standard"));
    assert_eq!(response.choices[0].extra["avgLogprobs"], -0.1);
    assert_eq!(response.choices[0].extra["finishReason"], "STOP");
    assert_eq!(response.extra["createTime"], "2026-11-23T10:00:00Z");
}

#[test]
fn calls_end_with_tool_calls_and_survive_the_round_trip_with_their_signatures() {
    let response = google().decode_chat(&fixture("response_tools.json")).unwrap();
    assert_eq!(response.finish_reason(), Some(FinishReason::ToolCalls));
    let calls: Vec<_> =
        response.tool_calls().iter().map(|call| (call.id.as_str(), call.name(), call.arguments())).collect();
    assert_eq!(calls, [("call_resp-2_0", "lookup", r#"{"q":"x"}"#), ("given", "now", "{}")]);
    // Through JSON, as a caller in another language would carry it.
    let message = &response.choices[0].message;
    let carried: Message = serde_json::from_str(&serde_json::to_string(message).unwrap()).unwrap();
    let request = ChatRequest::new("gemini-3.5-flash", [Message::user("Hi"), carried]);
    assert_eq!(
        encode(&request).unwrap()["contents"][1]["parts"],
        json!([
            {"functionCall": {"id": "call_resp-2_0", "name": "lookup", "args": {"q": "x"}}, "thoughtSignature": "c2lnMQ=="},
            {"functionCall": {"id": "given", "name": "now", "args": {}}}
        ])
    );
}

#[test]
fn parts_that_openais_shape_cannot_carry_are_returned() {
    let message = google().decode_chat(&fixture("response.json")).unwrap().choices.remove(0).message;
    let request = ChatRequest::new("gemini-3.5-flash", [Message::user("Hi"), message]);
    assert_eq!(
        encode(&request).unwrap()["contents"][1]["parts"],
        json!([
            {"text": "Hello.", "thoughtSignature": "c2ln"},
            {"executableCode": {"language": "PYTHON", "code": "1+1"}}
        ])
    );
}

#[test]
fn calls_without_any_id_get_one_that_differs_from_call_to_call() {
    let body = |args: Value| {
        let call = json!({"functionCall": {"name": "f", "args": args}});
        json!({"candidates": [{"content": {"parts": [call, call]}, "finishReason": "STOP"}]}).to_string()
    };
    let ids = |args| {
        let response = google().decode_chat(body(args).as_bytes()).unwrap();
        response.tool_calls().iter().map(|call| call.id.clone()).collect::<Vec<_>>()
    };
    let (one, other) = (ids(json!({"q": 1})), ids(json!({"q": 2})));
    assert_ne!(one[0], one[1]);
    assert_ne!(one[0], other[0]);
    assert_eq!(one, ids(json!({"q": 1})), "the same answer read twice says the same");
}

fn finished(reason: &str) -> Result<ChatResponse, ProviderError> {
    let body =
        json!({"candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": reason}]}).to_string();
    google().decode_chat(body.as_bytes())
}

#[test]
fn every_finish_reason_has_a_meaning() {
    assert_eq!(finished("STOP").unwrap().finish_reason(), Some(FinishReason::Stop));
    assert_eq!(finished("MAX_TOKENS").unwrap().finish_reason(), Some(FinishReason::Length));
    for reason in [
        "SAFETY",
        "RECITATION",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "LANGUAGE",
        "MODEL_ARMOR",
        "IMAGE_SAFETY",
        "IMAGE_RECITATION",
        "IMAGE_OTHER",
        "NO_IMAGE",
    ] {
        let response = finished(reason).unwrap();
        assert_eq!(response.finish_reason(), Some(FinishReason::ContentFilter), "{reason}");
        assert_eq!(response.choices[0].extra["finishReason"], reason);
    }
    let later = finished("OF_NEXT_YEAR").unwrap();
    assert_eq!(later.finish_reason(), Some(FinishReason::Other("of_next_year".into())));
    for (reason, kind) in [
        ("MALFORMED_FUNCTION_CALL", FailureKind::Server),
        ("UNEXPECTED_TOOL_CALL", FailureKind::Server),
        ("TOO_MANY_TOOL_CALLS", FailureKind::Server),
        ("MALFORMED_RESPONSE", FailureKind::Server),
        ("OTHER", FailureKind::Server),
        ("CONTINUATION", FailureKind::Server),
        ("MISSING_THOUGHT_SIGNATURE", FailureKind::Invalid),
    ] {
        let error = finished(reason).unwrap_err();
        assert_eq!(error.failure.kind, kind, "{reason}");
        assert!(error.to_string().contains(reason), "{error}");
        let event = json!({"candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": reason}]});
        let (_, streamed) = decode_pieces([format!("data: {event}\r\n\r\n").as_bytes()]);
        assert_eq!(streamed.unwrap_err().failure.kind, kind, "{reason} in a stream");
    }
}

#[test]
fn one_good_candidate_of_several_is_an_answer() {
    let body = json!({"candidates": [
        {"finishReason": "OTHER", "index": 0},
        {"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP", "index": 1}
    ]});
    let response = google().decode_chat(body.to_string().as_bytes()).unwrap();
    let reasons: Vec<_> =
        response.choices.iter().map(|choice| choice.finish_reason.clone().unwrap()).collect();
    assert_eq!(reasons, [FinishReason::Other("other".into()), FinishReason::Stop]);
}

#[test]
fn a_blocked_prompt_is_a_content_filter_failure() {
    let error = google().decode_chat(&fixture("response_blocked.json")).unwrap_err();
    assert_eq!(error.failure.kind, FailureKind::ContentFilter);
    assert_eq!(
        error.to_string(),
        "200 promptFeedback (PROHIBITED_CONTENT): the prompt was blocked: PROHIBITED_CONTENT"
    );
    assert_eq!(error.failure.seen.unwrap().input_tokens, 10);
    let body: Value = serde_json::from_slice(&fixture("response_blocked.json")).unwrap();
    let (chunks, result) = decode_pieces([format!("data: {body}\r\n\r\n").as_bytes()]);
    assert!(chunks.is_empty());
    assert_eq!(result.unwrap_err(), error, "the same in a stream");
}

#[test]
fn a_200_that_is_no_answer_is_a_failure() {
    for (body, kind) in [
        (r#"{"error":{"code":503,"message":"overloaded","status":"UNAVAILABLE"}}"#, FailureKind::Overloaded),
        (r#"[{"error":{"code":500,"message":"m","status":"INTERNAL"}}]"#, FailureKind::Server),
        (r#"{"candidates":[{"content":{"parts":[{"text":"cut"}]}}]}"#, FailureKind::Server),
        (r#"{"candidates":[]}"#, FailureKind::Server),
        ("{}", FailureKind::Server),
        ("[]", FailureKind::Server),
        ("", FailureKind::Server),
        ("<html>", FailureKind::Server),
    ] {
        assert_eq!(google().decode_chat(body.as_bytes()).unwrap_err().failure.kind, kind, "{body}");
    }
}

#[test]
fn a_stream_says_what_a_whole_answer_says() {
    let bytes = fixture("stream.sse");
    assert!(bytes.windows(4).any(|window| window == b"\r\n\r\n"));
    let (chunks, result) = decode_pieces([bytes.as_slice()]);
    result.unwrap();
    let roles: Vec<_> = chunks
        .iter()
        .flat_map(|chunk| &chunk.choices)
        .filter_map(|choice| choice.delta.role.clone())
        .collect();
    assert_eq!(roles, [Role::Assistant], "said once");
    let answer = whole(&chunks);
    assert_eq!((answer.id.as_str(), answer.model.as_str()), ("resp-4", "gemini-3.5-flash"));
    assert_eq!(answer.text(), "Grüße, \"more\".");
    let message = &answer.choices[0].message;
    assert_eq!(message.reasoning_content.as_deref(), Some("Thinking"));
    assert_eq!(message.extra["extra_content"]["google"]["thought_signature"], "c2lnMg==");
    let call = &answer.tool_calls()[0];
    assert_eq!(
        (call.id.as_str(), call.name(), call.arguments()),
        ("call_resp-4_0", "lookup", r#"{"q":"x"}"#)
    );
    assert_eq!(call.extra["extra_content"]["google"]["thought_signature"], "c2lnMQ==");
    assert_eq!(answer.finish_reason(), Some(FinishReason::ToolCalls));
    let usage = answer.usage.as_ref().unwrap();
    assert_eq!(
        (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens),
        (10, 16, 26),
        "totals, not sums"
    );
    assert_eq!((usage.cached_tokens(), usage.reasoning_tokens()), (3, 6));
}

#[test]
fn finish_reason_and_usage_wait_for_the_end_of_the_body() {
    let bytes = fixture("stream.sse");
    let mut decoder = google().chat_decoder();
    let mut chunks = Vec::new();
    decoder.push(&bytes, &mut chunks).unwrap();
    assert!(!decoder.is_done());
    assert!(chunks.iter().all(|chunk| chunk.usage.is_none() && chunk.choices[0].finish_reason.is_none()));
    decoder.finish(&mut chunks).unwrap();
    assert!(chunks.last().unwrap().usage.is_some());
    let count = chunks.len();
    decoder.finish(&mut chunks).unwrap();
    assert_eq!(chunks.len(), count, "said once");
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
fn every_candidate_must_have_finished() {
    let event = |index: u32, reason: Value| {
        let candidate =
            json!({"content": {"parts": [{"text": "x"}]}, "index": index, "finishReason": reason});
        format!("data: {}\r\n\r\n", json!({ "candidates": [candidate] }))
    };
    let (one, other) = (event(0, Value::Null), event(1, json!("STOP")));
    let (_, result) = decode_pieces([one.as_bytes(), other.as_bytes()]);
    assert_eq!(result.unwrap_err().failure.kind, FailureKind::StreamBroken);
    let last = event(0, json!("MAX_TOKENS"));
    let (chunks, result) = decode_pieces([one.as_bytes(), other.as_bytes(), last.as_bytes()]);
    result.unwrap();
    let answer = whole(&chunks);
    assert_eq!(answer.choices.len(), 2);
    assert_eq!(answer.choices[0].finish_reason, Some(FinishReason::Length));
    assert_eq!(answer.choices[1].finish_reason, Some(FinishReason::Stop));
    assert_eq!(answer.text(), "xx");
}

#[test]
fn a_bare_error_of_several_lines_is_seen_wherever_it_is_cut() {
    let bytes = fixture("stream_bare_error.sse");
    for cut in 0..=bytes.len() {
        let (chunks, result) = decode_pieces([&bytes[..cut], &bytes[cut..]]);
        let error = result.unwrap_err();
        assert_eq!(error.failure.kind, FailureKind::Overloaded, "cut at {cut}");
        assert_eq!(
            error.to_string(),
            "503 UNAVAILABLE: The model is overloaded. {Please} \"try\" again later."
        );
        assert_eq!(error.failure.seen.unwrap().output_tokens, 1);
        assert_eq!(whole(&chunks).text(), "Hel", "what came before it is delivered");
    }
    let start = bytes.windows(2).position(|window| window == b"\n{").unwrap() + 1;
    for end in start..bytes.len() - 2 {
        let error = decode_pieces([&bytes[..end]]).1.unwrap_err();
        assert_eq!(error.failure.kind, FailureKind::StreamBroken, "the error itself cut at {end}");
    }
}

#[test]
fn errors_in_events_and_lists_are_seen_too() {
    let error = json!({"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}});
    for stream in [
        format!("data: {error}\r\n\r\n"),
        format!("data: [{error}]\n\n"),
        format!("{error}"),
        format!("[{error}]\n"),
        format!("[{}\n]\n", serde_json::to_string_pretty(&error).unwrap().replace('\n', "\r\n")),
    ] {
        let found = decode_pieces([stream.as_bytes()]).1.unwrap_err();
        assert_eq!((found.status, found.failure.kind), (Some(503), FailureKind::Overloaded), "{stream}");
    }
    // After a finish reason as well: an answer the provider took back is none.
    let mut stream = fixture("stream.sse");
    stream.extend_from_slice(error.to_string().as_bytes());
    assert_eq!(decode_pieces([stream.as_slice()]).1.unwrap_err().failure.kind, FailureKind::Overloaded);
}

#[test]
fn a_malformed_stream_is_broken_and_stays_so() {
    let text = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"Hel\"}]}}]}\r\n\r\n";
    let endless = format!("{{{}", "\"x\":1,\n".repeat(200_000));
    for bad in [
        format!("{text}data: {{\"candidates\":[{{\"con\r\n\r\n"),
        format!("{text}data: not JSON\r\n\r\n"),
        format!("{text}data: {{\"candidates\": 7}}\r\n\r\n"),
        format!("{text}{{\"answer\": 42}}\n"),
        format!("{text}{{\n  \"error\": {{\n{text}"),
        endless,
    ] {
        let mut decoder = google().chat_decoder();
        let mut chunks = Vec::new();
        let start = &bad[..bad.len().min(90)];
        let error = decoder.push(bad.as_bytes(), &mut chunks).expect_err(start);
        assert_eq!(error.failure.kind, FailureKind::StreamBroken, "{start}");
        assert_eq!(decoder.push(&fixture("stream.sse"), &mut chunks).unwrap_err(), error, "{start}");
        assert_eq!(decoder.finish(&mut chunks).unwrap_err(), error, "{start}");
    }
}

#[test]
fn an_answer_text_never_shows_in_an_error() {
    let event = "data: {\"candidates\": \"my secret\"}\n\n";
    let error = decode_pieces([event.as_bytes()]).1.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
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
        for name in ["stream.sse", "stream_bare_error.sse"] {
            let bytes = fixture(name);
            let at_once = decode_pieces([bytes.as_slice()]);
            let pieces = pieces_of(&cuts, &bytes);
            prop_assert_eq!(decode_pieces(pieces.iter().map(Vec::as_slice)), at_once);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), cut in any::<prop::sample::Index>()) {
        let at = cut.index(bytes.len() + 1);
        let _ = decode_pieces([&bytes[..at], &bytes[at..]]);
        let _ = google().decode_chat(&bytes);
    }

    #[test]
    fn a_stream_with_damaged_bytes_never_panics(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        for name in ["stream.sse", "stream_bare_error.sse"] {
            let mut bytes = fixture(name);
            for (at, byte) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            let _ = decode_pieces([bytes.as_slice()]);
        }
    }
}
