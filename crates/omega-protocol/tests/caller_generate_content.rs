//! Gemini's protocol as its server speaks it: requests read, answers and streams written, held against the reader of the
//! very same protocol.

mod chunks;

use std::time::Duration;

use omega_protocol::{
    CallerError, CallerProtocol, ChatRequest, ChatResponse, Content, ContentPart, Dialect, FinishReason,
    ReasoningEffort, ResponseFormat, Role, ToolChoice,
};
use serde_json::{Value, json};

use chunks::{chunk, delta, finish};

fn read(body: &Value) -> Result<ChatRequest, omega_protocol::RequestError> {
    CallerProtocol::GenerateContent.format().read_request(body.to_string().as_bytes())
}

fn good(extra: Value) -> Value {
    let mut body = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]});
    body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
    body
}

#[test]
fn a_conversation_is_read_under_both_names_of_its_fields() {
    for (call, response, inline, kind) in [
        ("functionCall", "functionResponse", "inlineData", "mimeType"),
        ("function_call", "function_response", "inline_data", "mime_type"),
    ] {
        let request = read(&json!({
            "systemInstruction": {"parts": [{"text": "s"}]},
            "contents": [
                {"parts": [{"text": "see"}, {inline: {kind: "image/png", "data": "AA-_"}}]},
                {"role": "model", "parts": [
                    {"text": "hm", "thought": true, "thoughtSignature": "x"},
                    {call: {"name": "f", "args": {"a": 1}}}, {call: {"name": "f", "args": {"a": 2}}},
                ]},
                {"role": "user", "parts": [
                    {response: {"name": "f", "response": {"result": "one"}}},
                    {response: {"name": "f", "response": {"x": 2}}},
                ]},
            ],
        }))
        .expect("a request");
        let roles: Vec<&Role> = request.messages.iter().map(|message| &message.role).collect();
        assert_eq!(roles, [&Role::System, &Role::User, &Role::Assistant, &Role::Tool, &Role::Tool]);
        let Content::Parts(parts) = &request.messages[1].content else { panic!("parts") };
        assert!(
            matches!(&parts[1], ContentPart::ImageUrl { url, .. } if url == "data:image/png;base64,AA+/")
        );
        let ids: Vec<&str> = request.messages[2].tool_calls.iter().map(|call| call.id.as_str()).collect();
        let answered: Vec<&str> =
            request.messages[3..].iter().filter_map(|message| message.tool_call_id.as_deref()).collect();
        assert_eq!(ids, answered, "each result finds its call");
        assert_eq!(
            (request.messages[3].content.text(), request.messages[4].content.text()),
            ("one", r#"{"x":2}"#)
        );
    }
}

#[test]
fn the_configuration_is_read_under_both_names() {
    for config in [
        json!({"temperature": 0.5, "topP": 0.9, "topK": 4, "maxOutputTokens": 9, "stopSequences": ["X"], "seed": 3,
            "candidateCount": 2, "thinkingConfig": {"thinkingBudget": 5000}, "responseMimeType": "application/json",
            "responseSchema": {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}}}),
        json!({"temperature": 0.5, "top_p": 0.9, "top_k": 4, "max_output_tokens": 9, "stop_sequences": ["X"], "seed": 3,
            "candidate_count": 2, "thinking_config": {"thinking_level": "medium"}, "response_mime_type": "application/json",
            "response_json_schema": {"type": "object", "properties": {"a": {"type": "string"}}}}),
    ] {
        let request = read(&good(json!({"generationConfig": config}))).expect("a request");
        assert_eq!((request.temperature, request.top_p, request.max_tokens), (Some(0.5), Some(0.9), Some(9)));
        assert_eq!((request.n, request.seed, request.stop.clone()), (Some(2), Some(3), vec!["X".into()]));
        assert_eq!(request.reasoning_effort, Some(ReasoningEffort::Medium));
        let Some(ResponseFormat::JsonSchema(format)) = request.response_format else { panic!("a schema") };
        assert_eq!(format.schema, Some(json!({"type": "object", "properties": {"a": {"type": "string"}}})));
    }
}

#[test]
fn functions_and_choices_are_read() {
    let tools = json!([{"functionDeclarations": [{"name": "f", "parameters": {"type": "OBJECT"}}]}]);
    for (mode, expected) in [
        (json!({"mode": "AUTO"}), Some(ToolChoice::Auto)),
        (json!({"mode": "ANY"}), Some(ToolChoice::Required)),
        (json!({"mode": "ANY", "allowedFunctionNames": ["f"]}), Some(ToolChoice::Function("f".into()))),
        (json!({"mode": "NONE"}), Some(ToolChoice::None)),
        (json!({}), None),
    ] {
        let body = good(json!({"tools": tools, "toolConfig": {"functionCallingConfig": mode}}));
        let request = read(&body).expect("a request");
        assert_eq!(request.tool_choice, expected, "{mode}");
        let function = request.tools[0].function.as_ref().expect("a function");
        assert_eq!(function.parameters, Some(json!({"type": "object"})));
    }
}

#[test]
fn what_cannot_be_said_elsewhere_is_refused_at_its_place() {
    let part = |part: Value| json!({"contents": [{"role": "user", "parts": [part]}]});
    for (extra, field) in [
        (json!({"tools": [{"googleSearch": {}}]}), "tools[0].googleSearch"),
        (json!({"cachedContent": "c"}), "cachedContent"),
        (
            json!({"generationConfig": {"responseModalities": ["AUDIO"]}}),
            "generationConfig.responseModalities",
        ),
        (json!({"generation_config": {"speechConfig": {}}}), "generation_config.speechConfig"),
        (json!({"contents": 5}), "contents"),
        (json!({"contents": [{"role": "robot", "parts": []}]}), "contents[0].role"),
        (part(json!({"executableCode": {"code": "x"}})), "contents[0].parts[0].executableCode"),
        (part(json!({"fileData": {"fileUri": "gs://x"}})), "contents[0].parts[0].fileData.fileUri"),
        (
            part(json!({"inlineData": {"mimeType": "video/mp4", "data": "A"}})),
            "contents[0].parts[0].inlineData.mimeType",
        ),
        (part(json!({"functionResponse": {"name": "f"}})), "contents[0].parts[0].functionResponse.name"),
    ] {
        let error = read(&good(extra.clone())).expect_err("refused");
        assert_eq!(error.field.as_deref(), Some(field), "{extra}: {}", error.message);
    }
    let deep = format!("{{\"contents\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    for body in ["", "[]", "null", "{\"contents\":[[]]}", deep.as_str()] {
        let _ = CallerProtocol::GenerateContent.format().read_request(body.as_bytes());
    }
}

#[test]
fn an_answer_is_read_back_as_it_was() {
    let answer: ChatResponse = serde_json::from_value(json!({
        "id": "1", "object": "chat.completion", "created": 5, "model": "gpt",
        "choices": [{"index": 0, "finish_reason": "length", "message": {
            "role": "assistant", "content": "text", "reasoning_content": "hm",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}],
        }}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 6, "total_tokens": 16, "completion_tokens_details": {"reasoning_tokens": 2}},
    }))
    .expect("an answer");
    let body = CallerProtocol::GenerateContent.format().write_answer(&answer);
    let back = Dialect::Google.provider().decode_chat(&body).expect("an answer");
    assert_eq!(back.text(), "text");
    assert_eq!(back.choices[0].message.reasoning_content.as_deref(), Some("hm"));
    assert_eq!(back.tool_calls()[0].arguments(), r#"{"a":1}"#);
    let usage = back.usage.expect("usage");
    assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.reasoning_tokens()), (10, 6, 2));
}

fn back(bytes: &[u8], piece: usize) -> (ChatResponse, bool) {
    let mut decoder = Dialect::Google.provider().chat_decoder();
    let mut chunks = Vec::new();
    for part in bytes.chunks(piece) {
        decoder.push(part, &mut chunks).expect("a stream");
    }
    let whole = decoder.finish(&mut chunks).is_ok();
    let mut all = omega_protocol::ChatAccumulator::new();
    chunks.iter().for_each(|chunk| all.push(chunk));
    (all.finish(), whole)
}

#[test]
fn a_stream_is_read_back_as_it_was_with_its_calls_whole() {
    let mut writer = CallerProtocol::GenerateContent.format().stream_writer(&ChatRequest::default());
    let mut out = Vec::new();
    for piece in [
        delta(json!({"content": "He"})),
        delta(json!({"content": "llo"})),
        delta(
            json!({"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\""}}]}),
        ),
        delta(json!({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]})),
        finish("tool_calls"),
        chunk(json!({"usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}})),
    ] {
        writer.push(&piece, &mut out);
    }
    assert!(!String::from_utf8_lossy(&out).contains("finishReason"), "its end is held until all is known");
    writer.finish(&mut out);
    for piece in [1, 9, out.len()] {
        let (back, whole) = back(&out, piece);
        assert!(whole);
        assert_eq!((back.text(), back.tool_calls()[0].arguments()), ("Hello", r#"{"a":1}"#));
        assert_eq!(back.finish_reason(), Some(FinishReason::ToolCalls));
        assert_eq!(back.usage.expect("usage").completion_tokens, 5);
    }
}

#[test]
fn what_went_by_untouched_is_not_said_again() {
    let native = "data: {\"candidates\":[{\"content\":{\"role\":\"model\",\"parts\":[{\"text\":\"Hel\"}]},\"index\":0}],\"modelVersion\":\"g\",\"responseId\":\"r\"}\r\n\r\n";
    let mut writer = CallerProtocol::GenerateContent.format().stream_writer(&ChatRequest::default());
    let mut out = native.as_bytes().to_vec();
    writer.follow(native.as_bytes(), &[]);
    writer.push(&delta(json!({"content": "lo"})), &mut out);
    writer.push(&finish("stop"), &mut out);
    writer.finish(&mut out);
    let (whole_answer, whole) = back(&out, out.len());
    assert!(whole && whole_answer.text() == "Hello");
    // A stream whose end went by already gets no second one.
    let ended =
        "data: {\"candidates\":[{\"content\":{\"parts\":[]},\"finishReason\":\"STOP\",\"index\":0}]}\n\n";
    let mut writer = CallerProtocol::GenerateContent.format().stream_writer(&ChatRequest::default());
    writer.follow(ended.as_bytes(), &[]);
    let mut out = Vec::new();
    writer.finish(&mut out);
    assert!(out.is_empty(), "{}", String::from_utf8_lossy(&out));
}

#[test]
fn errors_have_googles_words_and_details() {
    let error = CallerError {
        status: 429,
        message: "slow down".into(),
        code: Some("rate_limit_exceeded".into()),
        param: Some("contents[0]".into()),
        request_id: Some("req_1".into()),
        retry_after: Some(Duration::from_millis(1_500)),
        ..CallerError::default()
    };
    let format = CallerProtocol::GenerateContent.format();
    let body: Value = serde_json::from_slice(&format.write_error(&error)).expect("JSON");
    assert_eq!(
        (&body["error"]["code"], &body["error"]["status"]),
        (&json!(429), &json!("RESOURCE_EXHAUSTED"))
    );
    let details = body["error"]["details"].to_string();
    for part in ["\"retryDelay\":\"1.5s\"", "\"reason\":\"rate_limit_exceeded\"", "contents[0]", "req_1"] {
        assert!(details.contains(part), "{part}: {details}");
    }
    let mut out = Vec::new();
    format.stream_writer(&ChatRequest::default()).fail(&error, &mut out);
    assert!(out.starts_with(b"data: {\"error\":") && !String::from_utf8_lossy(&out).contains("finishReason"));
    for (status, word) in [
        (400, "INVALID_ARGUMENT"),
        (401, "UNAUTHENTICATED"),
        (404, "NOT_FOUND"),
        (503, "UNAVAILABLE"),
        (500, "INTERNAL"),
    ] {
        let error = CallerError { status, ..CallerError::default() };
        let body: Value = serde_json::from_slice(&format.write_error(&error)).expect("JSON");
        assert_eq!(body["error"]["status"], word);
    }
}
