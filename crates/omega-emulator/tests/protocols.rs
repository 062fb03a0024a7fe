//! Healthy answers and refusals of each protocol, as bytes on a socket.

mod support;

use serde_json::{Value, json};
use support::{Call, End, Reply, healthy};

fn chat(extra: Value) -> Value {
    merged(json!({"model": "gpt-5.2", "messages": [{"role": "user", "content": "hi"}]}), extra)
}

fn message(extra: Value) -> Value {
    merged(
        json!({"model": "claude-haiku-4-5", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}),
        extra,
    )
}

fn content(extra: Value) -> Value {
    merged(json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}), extra)
}

fn merged(mut base: Value, extra: Value) -> Value {
    let base_map = base.as_object_mut().expect("an object");
    base_map.extend(extra.as_object().expect("an object").clone());
    base
}

async fn post(emulator: &omega_emulator::Emulator, path: &str, body: Value) -> Reply {
    Call::post(path, body).send(emulator.addr()).await
}

const OPENAI: &str = "/openai/v1/chat/completions";
const GROK: &str = "/grok/v1/chat/completions";
const RESPONSES: &str = "/openai/v1/responses";
const ANTHROPIC: &str = "/anthropic/v1/messages";
const GOOGLE: &str = "/google/v1/models/gemini-2.5-flash:generateContent";
const GOOGLE_STREAM: &str = "/google/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse";

#[tokio::test]
async fn a_chat_completion_has_the_documented_shape() {
    let emulator = healthy().await;
    let reply = post(&emulator, OPENAI, chat(json!({}))).await;
    assert_eq!((reply.status, reply.end), (200, End::Complete));
    let body = reply.json();
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(
        body["choices"][0],
        json!({"index": 0, "logprobs": null, "finish_reason": "stop", "message":
            {"role": "assistant", "content": "You said: hi", "refusal": null, "annotations": []}})
    );
    assert_eq!(body["usage"]["completion_tokens"], 3);
    assert_eq!(reply.header("openai-version"), Some("2020-10-01"));
    assert!(reply.header("x-request-id").is_some());
}

#[tokio::test]
async fn a_chat_stream_is_role_deltas_finish_usage_done() {
    let emulator = healthy().await;
    let body = chat(
        json!({"stream": true, "stream_options": {"include_usage": true, "include_obfuscation": false}}),
    );
    let reply = post(&emulator, OPENAI, body).await;
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    let events = reply.events();
    let deltas: Vec<&Value> =
        events.iter().filter_map(|event| event["choices"].get(0)).map(|c| &c["delta"]).collect();
    assert_eq!(
        deltas,
        [
            &json!({"role": "assistant", "content": "", "refusal": null}),
            &json!({"content": "You "}),
            &json!({"content": "said"}),
            &json!({"content": ": hi"}),
            &json!({}),
        ]
    );
    assert!(events[1]["usage"].is_null() && events[1].get("obfuscation").is_none());
    let usage = &events[events.len() - 2];
    assert_eq!((&usage["choices"], &usage["usage"]["completion_tokens"]), (&json!([]), &json!(3)));
    assert_eq!(events[events.len() - 1], "[DONE]");
    assert!(reply.event_names().is_empty());
}

#[tokio::test]
async fn usage_and_obfuscation_are_sent_only_as_asked() {
    let emulator = healthy().await;
    let events = post(&emulator, OPENAI, chat(json!({"stream": true}))).await.events();
    assert!(events.iter().all(|event| event.get("usage").is_none()));
    assert!(events.iter().any(|event| event["obfuscation"].is_string()));
}

#[tokio::test]
async fn several_choices_take_turns_and_each_ends() {
    let emulator = healthy().await;
    let events = post(&emulator, OPENAI, chat(json!({"stream": true, "n": 2}))).await.events();
    let ends: Vec<&Value> = events
        .iter()
        .filter(|event| event["choices"][0]["finish_reason"].is_string())
        .map(|event| &event["choices"][0]["index"])
        .collect();
    assert_eq!(ends, [0, 1]);
}

#[tokio::test]
async fn openai_refuses_what_the_real_service_refuses_and_names_the_parameter() {
    let emulator = healthy().await;
    let tool_message = json!({"messages": [{"role": "tool", "tool_call_id": "x", "content": "1"}]});
    let unanswered = json!({"messages": [{"role": "assistant", "content": null, "tool_calls":
        [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}, {"role": "user", "content": "hi"}]});
    for (extra, status, code, param) in [
        (json!({"messages": null}), 400, "missing_required_parameter", "messages"),
        (json!({"messages": "hi"}), 400, "invalid_type", "messages"),
        (json!({"messages": []}), 400, "invalid_value", "messages"),
        (json!({"messages": [{"role": "robot", "content": "x"}]}), 400, "invalid_value", "messages[0].role"),
        (json!({"messages": [{"role": "user"}]}), 400, "invalid_value", "messages[0].content"),
        (tool_message, 400, "invalid_value", "messages[0].role"),
        (unanswered, 400, "invalid_value", "messages[1].role"),
        (json!({"max_tokens": 5}), 400, "unsupported_parameter", "max_tokens"),
        (json!({"temperature": 0.5}), 400, "unsupported_value", "temperature"),
        (json!({"temperature": 3}), 400, "invalid_value", "temperature"),
        (json!({"temperature": "hot"}), 400, "invalid_type", "temperature"),
        (json!({"tool_choice": "auto"}), 400, "invalid_value", "tool_choice"),
        (json!({"stream_options": {}}), 400, "invalid_value", "stream_options"),
        (json!({"stop": ["a", "b", "c", "d", "e"]}), 400, "invalid_value", "stop"),
        (json!({"model": null}), 400, "missing_required_parameter", "model"),
        (
            json!({"response_format": {"type": "json_schema"}}),
            400,
            "missing_required_parameter",
            "response_format.json_schema",
        ),
    ] {
        let reply = post(&emulator, OPENAI, chat(extra.clone())).await;
        let error = &reply.json()["error"];
        assert_eq!(
            (reply.status, &error["code"], &error["param"]),
            (status, &json!(code), &json!(param)),
            "{extra}"
        );
        assert_eq!(error["type"], "invalid_request_error");
    }
    // The same parameters are welcome where the model does not reason.
    let older = chat(json!({"model": "gpt-4.1", "max_tokens": 50, "temperature": 0.5}));
    assert_eq!(post(&emulator, OPENAI, older).await.status, 200);
}

#[tokio::test]
async fn broken_bodies_and_unknown_paths_get_the_vendors_own_error() {
    let emulator = healthy().await;
    let broken = |path: &str| Call::new("POST", path, "{\"model\": ".into());
    for (path, pointer) in [
        (OPENAI, "/error/message"),
        (ANTHROPIC, "/error/message"),
        (GOOGLE, "/error/message"),
        (GROK, "/error"),
    ] {
        let reply = broken(path).send(emulator.addr()).await;
        assert_eq!(reply.status, 400, "{path}");
        let body = reply.json();
        let text = body.pointer(pointer).and_then(Value::as_str).expect(path);
        assert!(text.contains("line 1 column"), "{text}");
    }
    for (path, kind) in [("/openai/v1/nothing", "/error/type"), ("/anthropic/v1/nothing", "/error/type")] {
        let reply = post(&emulator, path, json!({})).await;
        assert_eq!(reply.status, 404);
        assert!(reply.json().pointer(kind).is_some_and(Value::is_string));
    }
    assert_eq!(Call::get("/elsewhere").send(emulator.addr()).await.status, 404);
    assert_eq!(Call::get(OPENAI).send(emulator.addr()).await.status, 405);
}

#[tokio::test]
async fn responses_come_whole_and_as_numbered_events() {
    let emulator = healthy().await;
    let whole = post(&emulator, RESPONSES, json!({"model": "gpt-5.2", "input": "hi"})).await.json();
    assert_eq!(
        (&whole["status"], &whole["output"][0]["content"][0]["text"]),
        (&json!("completed"), &json!("You said: hi"))
    );
    let reply = post(&emulator, RESPONSES, json!({"model": "gpt-5.2", "input": "hi", "stream": true})).await;
    let names = reply.event_names();
    assert_eq!(
        names,
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    for (index, (event, name)) in reply.events().iter().zip(&names).enumerate() {
        assert_eq!((&event["type"], &event["sequence_number"]), (&json!(name), &json!(index)));
    }
    assert_eq!(reply.events()[10]["response"]["usage"]["output_tokens"], 3);
}

#[tokio::test]
async fn a_response_that_hits_its_limit_is_incomplete() {
    let emulator = healthy().await;
    let body = json!({"model": "gpt-5.2", "input": "hi [[output-tokens:50]]", "max_output_tokens": 16, "stream": true});
    let reply = post(&emulator, RESPONSES, body).await;
    let last = reply.events().pop().expect("events");
    assert_eq!(last["type"], "response.incomplete");
    assert_eq!(last["response"]["incomplete_details"]["reason"], "max_output_tokens");
}

#[tokio::test]
async fn a_message_stream_is_the_documented_sequence() {
    let emulator = healthy().await;
    let reply = post(&emulator, ANTHROPIC, message(json!({"stream": true}))).await;
    assert_eq!(
        reply.event_names(),
        [
            "message_start",
            "content_block_start",
            "ping",
            "content_block_delta",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
    );
    let events = reply.events();
    assert!(events.iter().zip(reply.event_names()).all(|(event, name)| event["type"] == *name));
    assert_eq!(events[0]["message"]["usage"]["output_tokens"], 1);
    assert_eq!(events[7]["delta"], json!({"stop_reason": "end_turn", "stop_sequence": null}));
    assert_eq!(events[7]["usage"]["output_tokens"], 3);
}

#[tokio::test]
async fn anthropic_counts_cached_input_apart() {
    let emulator = healthy().await;
    let body = message(json!({"messages": [{"role": "user", "content": "hi [[cached-tokens:5]]"}]}));
    let usage = post(&emulator, ANTHROPIC, body.clone()).await.json()["usage"].clone();
    let counted = post(&emulator, "/anthropic/v1/messages/count_tokens", body).await.json();
    assert_eq!(usage["cache_read_input_tokens"], 5);
    let total = usage["input_tokens"].as_u64().expect("a count") + 5;
    assert_eq!(counted["input_tokens"], total);
}

#[tokio::test]
async fn anthropic_enforces_its_versions_and_credentials() {
    let emulator = healthy().await;
    let call = |extra| Call::post(ANTHROPIC, message(extra));
    let send = async |call: Call| {
        let reply = call.send(emulator.addr()).await;
        (reply.status, reply.json()["error"]["message"].as_str().unwrap_or_default().to_owned())
    };
    let unversioned = send(call(json!({})).without("anthropic-version")).await;
    assert_eq!(unversioned, (400, "anthropic-version: header is required".into()));
    let newest = |call: Call| call.without("anthropic-version").header("anthropic-version", "2026-10-21");
    assert_eq!(
        send(newest(call(json!({"temperature": 1.0})))).await,
        (400, "temperature: Extra inputs are not permitted".into())
    );
    assert_eq!(send(call(json!({"temperature": 0.5}))).await.0, 200);
    assert_eq!(send(newest(call(json!({"model": "claude-opus-5-5"})))).await.0, 200);
    assert_eq!(send(call(json!({"model": "claude-opus-5-5", "temperature": 0.5}))).await.0, 400);
    assert_eq!(send(call(json!({})).header("authorization", "Bearer another")).await.0, 401);
    assert_eq!(send(call(json!({})).header("authorization", "Bearer test-key")).await.0, 200);
    assert_eq!(send(call(json!({})).without("x-api-key")).await.0, 401);
    let bearer = call(json!({})).without("x-api-key").header("authorization", "Bearer test-key");
    assert_eq!(send(bearer).await.0, 200);
}

#[tokio::test]
async fn anthropic_refuses_orphans_prefill_and_missing_fields() {
    let emulator = healthy().await;
    let user = json!({"role": "user", "content": "hi"});
    let orphan =
        json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "1"}]});
    let call =
        json!({"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {}}]});
    for (extra, part) in [
        (json!({"max_tokens": null}), "max_tokens: Field required"),
        (json!({"messages": [orphan]}), "unexpected `tool_use_id`"),
        (json!({"messages": [user, call, user]}), "without `tool_result` blocks"),
        (
            json!({"model": "claude-opus-5-5", "messages": [user, {"role": "assistant", "content": "So"}]}),
            "prefill",
        ),
        (json!({"messages": [{"role": "user", "content": [{"type": "hologram"}]}]}), "hologram"),
        (json!({"thinking": {"type": "enabled", "budget_tokens": 10}}), "1024"),
    ] {
        let reply = post(&emulator, ANTHROPIC, message(extra)).await;
        let body = reply.json();
        let text = body["error"]["message"].as_str().expect("a message");
        assert!(reply.status == 400 && text.contains(part), "{text}");
        assert_eq!(body["request_id"], reply.header("request-id").expect("a request id"));
    }
    let prefilled = message(json!({"messages": [user, {"role": "assistant", "content": "So"}]}));
    assert_eq!(post(&emulator, ANTHROPIC, prefilled).await.status, 200, "older models take prefill");
    let begun = json!({"messages": [user, {"role": "assistant", "content": "You said:"}]});
    let rest = post(&emulator, ANTHROPIC, message(begun)).await;
    let body = rest.json();
    let text = body["content"][0]["text"].as_str().expect("text");
    assert!(text.starts_with(' ') && !text.contains("You said"), "only the rest: {text:?}");
}

#[tokio::test]
async fn gemini_streams_crlf_events_with_running_usage() {
    let emulator = healthy().await;
    let reply = post(&emulator, GOOGLE_STREAM, content(json!({}))).await;
    let text = reply.text();
    assert!(text.ends_with("\r\n\r\n") && !text.contains("event:") && !text.contains("[DONE]"));
    assert_eq!(text.matches("\r\n\r\n").count(), 4);
    let events = reply.events();
    let running: Vec<u64> =
        events.iter().filter_map(|event| event["usageMetadata"]["candidatesTokenCount"].as_u64()).collect();
    assert_eq!(running, [1, 2, 3, 3]);
    assert!(events[..3].iter().all(|event| event["candidates"][0].get("finishReason").is_none()));
    assert_eq!(events[3]["candidates"][0]["finishReason"], "STOP");
}

#[tokio::test]
async fn gemini_without_alt_sse_streams_one_json_array() {
    let emulator = healthy().await;
    let path = GOOGLE_STREAM.trim_end_matches("?alt=sse");
    let reply = post(&emulator, path, content(json!({}))).await;
    let body = reply.json();
    let said: String = body
        .as_array()
        .expect("an array")
        .iter()
        .filter_map(|item| item["candidates"][0]["content"]["parts"][0]["text"].as_str())
        .collect();
    assert_eq!(said, "You said: hi");
}

#[tokio::test]
async fn gemini_takes_snake_case_keys_in_three_places_and_rejects_bad_contents() {
    let emulator = healthy().await;
    let snake = content(json!({"generation_config": {"max_output_tokens": 2},
        "system_instruction": {"parts": [{"text": "Be brief."}]}}));
    let body = post(&emulator, GOOGLE, snake).await.json();
    assert_eq!(body["candidates"][0]["finishReason"], "MAX_TOKENS");
    assert_eq!(body["usageMetadata"]["candidatesTokenCount"], 2);
    let by_query = Call::post(&format!("{GOOGLE}?key=k"), content(json!({}))).without("x-goog-api-key");
    assert_eq!(by_query.send(emulator.addr()).await.status, 200);
    let without = Call::post(GOOGLE, content(json!({}))).without("x-goog-api-key");
    assert_eq!(without.send(emulator.addr()).await.status, 403);
    for extra in
        [json!({"contents": null}), json!({"contents": [{"role": "robot", "parts": [{"text": "x"}]}]})]
    {
        let reply = post(&emulator, GOOGLE, content(extra)).await;
        assert_eq!((reply.status, &reply.json()["error"]["status"]), (400, &json!("INVALID_ARGUMENT")));
    }
}

#[tokio::test]
async fn grok_leaves_reasoning_out_of_completion_and_sends_empty_deltas() {
    let emulator = healthy().await;
    let body = chat(json!({"model": "grok-4-fast-reasoning", "max_tokens": 3}));
    let usage = post(&emulator, GROK, body.clone()).await.json()["usage"].clone();
    let count = |name: &str| usage[name].as_u64().expect(name);
    let reasoning = usage["completion_tokens_details"]["reasoning_tokens"].as_u64().expect("a count");
    assert!(reasoning > 0);
    assert_eq!(count("completion_tokens"), 3, "the limit covers the visible answer only");
    assert_eq!(count("total_tokens"), count("prompt_tokens") + 3 + reasoning);
    let events = post(&emulator, GROK, merged(body, json!({"stream": true}))).await.events();
    let empty = |event: &&Value| event["choices"][0]["delta"] == json!({});
    assert!(events.iter().filter(empty).count() >= 2, "one while it reasons, one at the end");
    assert!(!events[0]["id"].as_str().expect("an id").starts_with("chatcmpl"));
}

#[tokio::test]
async fn grok_refuses_with_its_own_body() {
    let emulator = healthy().await;
    let reply = post(&emulator, GROK, chat(json!({"model": "grok-4", "stop": ["x"]}))).await;
    assert_eq!(reply.status, 400);
    assert!(reply.json()["error"].is_string() && reply.json()["code"].is_string());
    assert_eq!(post(&emulator, GROK, chat(json!({"messages": null}))).await.status, 422);
}

#[tokio::test]
async fn tools_images_and_structured_output_work_everywhere() {
    let emulator = healthy().await;
    let schema = json!({"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]});
    let function = json!([{"type": "function", "function": {"name": "look", "parameters": schema}}]);
    let openai =
        post(&emulator, OPENAI, chat(json!({"tools": function, "tool_choice": "required"}))).await.json();
    let call = &openai["choices"][0]["message"]["tool_calls"][0]["function"];
    assert_eq!(call, &json!({"name": "look", "arguments": "{\"q\":\"text\"}"}));

    let declared = json!([{"functionDeclarations": [{"name": "look", "parametersJsonSchema": schema}]}]);
    let google =
        content(json!({"tools": declared, "toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}));
    let google = post(&emulator, GOOGLE, google).await.json();
    let part = &google["candidates"][0]["content"]["parts"][0];
    assert_eq!(
        (&part["functionCall"]["args"], &google["candidates"][0]["finishReason"]),
        (&json!({"q": "text"}), &json!("STOP"))
    );

    let tools = json!({"tools": [{"name": "look", "input_schema": schema}], "tool_choice": {"type": "any"}, "stream": true});
    let events = post(&emulator, ANTHROPIC, message(tools)).await.events();
    let json_text: String =
        events.iter().filter_map(|event| event["delta"]["partial_json"].as_str()).collect();
    assert_eq!(json_text, "{\"q\":\"text\"}");

    let image = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "what?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]});
    let seen = post(&emulator, OPENAI, chat(image)).await.json();
    assert_eq!(seen["choices"][0]["message"]["content"], "Images: 1. You said: what?");
    assert_eq!(seen["usage"]["prompt_tokens_details"]["image_tokens"], 85);

    let format =
        json!({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}});
    let structured = post(&emulator, OPENAI, chat(format)).await.json();
    assert_eq!(structured["choices"][0]["message"]["content"], "{\"q\":\"text\"}");
}

#[tokio::test]
async fn stop_sequences_end_the_text_and_anthropic_names_them() {
    let emulator = healthy().await;
    let reply = post(&emulator, ANTHROPIC, message(json!({"stop_sequences": [" said"]}))).await.json();
    assert_eq!(reply["content"][0]["text"], "You");
    assert_eq!((&reply["stop_reason"], &reply["stop_sequence"]), (&json!("stop_sequence"), &json!(" said")));
}

#[tokio::test]
async fn models_are_listed_and_unknown_ones_refused_where_a_list_is_configured() {
    let emulator =
        support::configured("providers: {openai: {models: [gpt-mine]}, anthropic: {models: [claude-mine]}}")
            .await;
    let listed = Call::get("/openai/v1/models").send(emulator.addr()).await.json();
    assert_eq!(listed["data"][0]["id"], "gpt-mine");
    let reply = post(&emulator, OPENAI, chat(json!({}))).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (404, &json!("model_not_found")));
    let reply = post(&emulator, ANTHROPIC, message(json!({}))).await;
    assert_eq!((reply.status, &reply.json()["error"]["type"]), (404, &json!("not_found_error")));
    assert_eq!(post(&emulator, OPENAI, chat(json!({"model": "gpt-mine"}))).await.status, 200);
}

#[tokio::test]
async fn only_listed_keys_are_accepted() {
    let yaml = "providers: {openai: {keys: [right]}, google: {keys: [right]}, grok: {keys: [right]}}";
    let emulator = support::configured(yaml).await;
    assert_eq!(post(&emulator, OPENAI, chat(json!({}))).await.status, 401);
    let google = post(&emulator, GOOGLE, content(json!({}))).await;
    assert_eq!(
        (google.status, &google.json()["error"]["details"][0]["reason"]),
        (400, &json!("API_KEY_INVALID"))
    );
    assert_eq!(post(&emulator, GROK, chat(json!({}))).await.status, 400);
    let right =
        Call::post(OPENAI, chat(json!({}))).without("authorization").header("authorization", "Bearer right");
    assert_eq!(right.send(emulator.addr()).await.status, 200);
}

#[tokio::test]
async fn the_same_seed_gives_the_same_answers() {
    let mut texts = Vec::new();
    for _ in 0..2 {
        let emulator = support::configured("seed: 9").await;
        let body = chat(json!({"messages": [{"role": "user", "content": "[[output-tokens:40]]"}]}));
        let reply = post(&emulator, OPENAI, body).await.json();
        texts.push((reply["id"].clone(), reply["choices"][0]["message"]["content"].clone()));
    }
    assert_eq!(texts[0], texts[1]);
}
