//! OpenAI's Responses as their server speaks them: requests read, answers and streams written, held against the reader of
//! the very same protocol.

mod chunks;

use omega_protocol::{
    CallerError, CallerProtocol, ChatRequest, ChatResponse, Content, ContentPart, Dialect, ReasoningEffort,
    ResponseEvent, ResponseFormat, ResponsesResponse, Role, ToolChoice,
};
use serde_json::{Value, json};

use chunks::{chunk, delta, finish};

fn read(body: &Value) -> Result<ChatRequest, omega_protocol::RequestError> {
    CallerProtocol::Responses.format().read_request(body.to_string().as_bytes())
}

fn good(extra: Value) -> Value {
    let mut body = json!({"model": "m", "input": "hi"});
    body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
    body
}

#[test]
fn a_conversation_is_read_whole() {
    let request = read(&json!({
        "model": "m", "instructions": "s", "max_output_tokens": 9, "temperature": 0.5, "top_p": 0.9, "stream": true,
        "store": true, "include": ["reasoning.encrypted_content"], "reasoning": {"effort": "low"},
        "parallel_tool_calls": false, "text": {"verbosity": "low", "format": {"type": "json_object"}},
        "input": [
            {"role": "user", "content": [
                {"type": "input_text", "text": "see"},
                {"type": "input_image", "image_url": "https://a.example/b.png", "detail": "low"},
                {"type": "input_file", "filename": "f.pdf", "file_data": "data:application/pdf;base64,AA"},
            ]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
            {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed", "content": [{"type": "output_text", "text": "calling", "annotations": []}]},
            {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{\"a\":1}"},
            {"type": "function_call_output", "call_id": "c1", "output": "one"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "two"}]},
        ],
    }))
    .expect("a request");
    assert_eq!(
        (request.max_tokens, request.stream, request.parallel_tool_calls),
        (Some(9), Some(true), Some(false))
    );
    assert_eq!(request.reasoning_effort, Some(ReasoningEffort::Low));
    assert_eq!(request.response_format, Some(ResponseFormat::JsonObject));
    let roles: Vec<&Role> = request.messages.iter().map(|message| &message.role).collect();
    assert_eq!(roles, [&Role::System, &Role::User, &Role::Assistant, &Role::Tool, &Role::Tool]);
    let Content::Parts(parts) = &request.messages[1].content else { panic!("parts") };
    assert!(
        matches!(&parts[1], ContentPart::ImageUrl { url, detail, .. } if url.ends_with("b.png") && detail.as_deref() == Some("low"))
    );
    let calls: Vec<&str> = request.messages[2].tool_calls.iter().map(|call| call.name()).collect();
    assert_eq!((request.messages[2].content.text(), calls), ("calling", vec!["f", "g"]));
    assert_eq!(request.messages[4].content.text(), "two");
}

#[test]
fn tools_and_choices_are_read() {
    let tools = json!([{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": true}]);
    for (choice, expected) in [
        (json!("required"), ToolChoice::Required),
        (json!("none"), ToolChoice::None),
        (json!({"type": "function", "name": "f"}), ToolChoice::Function("f".into())),
    ] {
        let request = read(&good(json!({"tools": tools, "tool_choice": choice}))).expect("a request");
        assert_eq!(request.tool_choice, Some(expected));
        assert_eq!(request.tools[0].function.as_ref().expect("a function").strict, Some(true));
    }
    let format =
        json!({"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": true}});
    let request = read(&good(json!({"text": format}))).expect("a request");
    let Some(ResponseFormat::JsonSchema(format)) = request.response_format else { panic!("a schema") };
    assert_eq!((format.name.as_str(), format.strict), ("n", Some(true)));
}

#[test]
fn what_cannot_be_said_elsewhere_is_refused_at_its_place() {
    for (extra, field) in [
        (json!({"previous_response_id": "resp_1"}), "previous_response_id"),
        (json!({"conversation": "c"}), "conversation"),
        (json!({"background": true}), "background"),
        (json!({"truncation": "auto"}), "truncation"),
        (json!({"prompt": {"id": "p"}}), "prompt"),
        (json!({"tools": [{"type": "web_search"}]}), "tools[0].type"),
        (json!({"tools": [{"type": "custom", "name": "c"}]}), "tools[0].type"),
        (json!({"include": ["file_search_call.results"]}), "include[0]"),
        (json!({"input": [{"type": "item_reference", "id": "x"}]}), "input[0].type"),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}),
            "input[0].content[0].image_url",
        ),
        (json!({"input": 5}), "input"),
        (json!({"max_output_tokens": -1}), "max_output_tokens"),
    ] {
        let error = read(&good(extra.clone())).expect_err("refused");
        assert_eq!(error.field.as_deref(), Some(field), "{extra}: {}", error.message);
    }
    let deep = format!("{{\"input\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    for body in ["", "[]", "null", "{}", deep.as_str()] {
        assert!(CallerProtocol::Responses.format().read_request(body.as_bytes()).is_err(), "{}", body.len());
    }
}

#[test]
fn an_answer_is_read_back_as_it_was() {
    let answer: ChatResponse = serde_json::from_value(json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 5, "model": "claude",
        "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
            "role": "assistant", "content": "text", "reasoning_content": "hm",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}],
        }}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 6, "total_tokens": 16},
    }))
    .expect("an answer");
    let body = CallerProtocol::Responses.format().write_answer(&answer);
    let said: Value = serde_json::from_slice(&body).expect("JSON");
    let kinds: Vec<&str> =
        said["output"].as_array().expect("items").iter().filter_map(|item| item["type"].as_str()).collect();
    assert_eq!(kinds, ["reasoning", "message", "function_call"]);
    assert_eq!((&said["status"], &said["id"]), (&json!("completed"), &json!("resp_1")));
    let back: ResponsesResponse = Dialect::OpenAi.provider().decode_responses(&body).expect("a response");
    assert_eq!((back.text(), back.usage.expect("usage").output_tokens), ("text".into(), 6));
    let mut cut = answer;
    cut.choices[0].finish_reason = Some(omega_protocol::FinishReason::Length);
    let said: Value =
        serde_json::from_slice(&CallerProtocol::Responses.format().write_answer(&cut)).expect("JSON");
    assert_eq!(
        (&said["status"], &said["incomplete_details"]["reason"]),
        (&json!("incomplete"), &json!("max_output_tokens"))
    );
}

fn events(bytes: &[u8], piece: usize) -> (Vec<ResponseEvent>, bool) {
    let mut decoder = Dialect::OpenAi.provider().responses_decoder();
    let mut events = Vec::new();
    for part in bytes.chunks(piece) {
        decoder.push(part, &mut events).expect("a stream");
    }
    let whole = decoder.finish(&mut events).is_ok();
    (events, whole)
}

#[test]
fn a_stream_begins_writes_and_closes_every_item_in_order() {
    let mut writer = CallerProtocol::Responses.format().stream_writer(&ChatRequest::default());
    let mut out = Vec::new();
    for piece in [
        delta(json!({"role": "assistant", "reasoning_content": "hm"})),
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
    writer.finish(&mut out);
    for piece in [1, 11, out.len()] {
        let (events, whole) = events(&out, piece);
        assert!(whole);
        let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
        assert_eq!(
            kinds,
            [
                "response.created",
                "response.in_progress",
                "response.output_item.added",
                "response.reasoning_summary_part.added",
                "response.reasoning_summary_text.delta",
                "response.reasoning_summary_text.done",
                "response.reasoning_summary_part.done",
                "response.output_item.done",
                "response.output_item.added",
                "response.content_part.added",
                "response.output_text.delta",
                "response.output_text.delta",
                "response.output_text.done",
                "response.content_part.done",
                "response.output_item.done",
                "response.output_item.added",
                "response.function_call_arguments.delta",
                "response.function_call_arguments.delta",
                "response.function_call_arguments.done",
                "response.output_item.done",
                "response.completed",
            ]
        );
        let numbers: Vec<u64> =
            events.iter().filter_map(|event| event.data["sequence_number"].as_u64()).collect();
        assert_eq!(numbers, (0..events.len() as u64).collect::<Vec<_>>());
        let whole = &events.last().expect("the end").data["response"];
        assert_eq!(
            (&whole["output"][1]["content"][0]["text"], &whole["output"][2]["arguments"]),
            (&json!("Hello"), &json!("{\"a\":1}"))
        );
        assert_eq!(whole["usage"]["output_tokens"], 5);
    }
}

#[test]
fn what_went_by_untouched_is_gone_on_with_in_the_same_item() {
    let native = [
        json!({"type": "response.created", "sequence_number": 0, "response": {"id": "resp_7", "created_at": 3, "model": "gpt", "status": "in_progress"}}),
        json!({"type": "response.output_item.added", "sequence_number": 1, "output_index": 0, "item": {"id": "msg_7", "type": "message", "role": "assistant", "status": "in_progress", "content": []}}),
        json!({"type": "response.content_part.added", "sequence_number": 2, "item_id": "msg_7", "output_index": 0, "content_index": 0, "part": {"type": "output_text", "text": "", "annotations": []}}),
        json!({"type": "response.output_text.delta", "sequence_number": 3, "item_id": "msg_7", "output_index": 0, "content_index": 0, "delta": "Hel"}),
    ];
    let mut writer = CallerProtocol::Responses.format().stream_writer(&ChatRequest::default());
    let mut out = Vec::new();
    for event in native {
        let text = format!("event: {}\ndata: {event}\n\n", event["type"].as_str().expect("a type"));
        writer.follow(text.as_bytes(), &[]);
        out.extend_from_slice(text.as_bytes());
    }
    writer.push(&delta(json!({"content": "lo"})), &mut out);
    writer.push(&finish("stop"), &mut out);
    writer.finish(&mut out);
    let (events, whole) = events(&out, out.len());
    assert!(whole);
    let numbers: Vec<u64> =
        events.iter().filter_map(|event| event.data["sequence_number"].as_u64()).collect();
    assert_eq!(numbers, (0..events.len() as u64).collect::<Vec<_>>());
    let response = &events.last().expect("the end").data["response"];
    assert_eq!(
        (&response["id"], &response["output"][0]["content"][0]["text"]),
        (&json!("resp_7"), &json!("Hello"))
    );
    assert_eq!(response["output"][0]["id"], "msg_7");
}

#[test]
fn a_failure_has_both_forms_of_the_error_and_is_no_end() {
    let mut writer = CallerProtocol::Responses.format().stream_writer(&ChatRequest::default());
    let mut out = Vec::new();
    writer.push(&delta(json!({"content": "He"})), &mut out);
    let error = CallerError {
        status: 502,
        message: "broke".into(),
        code: Some("stream_broken".into()),
        ..CallerError::default()
    };
    writer.fail(&error, &mut out);
    let text = String::from_utf8(out).expect("text");
    let last: Value = serde_json::from_str(text.rsplit("data: ").next().expect("data")).expect("JSON");
    assert_eq!(
        (&last["type"], &last["code"], &last["error"]["code"]),
        (&json!("error"), &json!("stream_broken"), &json!("stream_broken"))
    );
    assert!(!text.contains("response.completed"));
}
