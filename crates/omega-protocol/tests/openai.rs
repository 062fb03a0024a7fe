//! OpenAI's protocol against golden files: requests out, answers and streams in.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

use bytes::Bytes;
use http::Request;
use omega_policy::FailureKind;
use omega_protocol::{
    ChatAccumulator, ChatChunk, ChatRequest, ChatResponse, Dialect, EmbeddingVector, EmbeddingsRequest,
    Endpoint, EndpointOptions, FinishReason, Message, Provider, ProviderError, ReasoningEffort,
    ResponseEvent, ResponseFormat, ResponsesRequest, Streaming, Tool, ToolChoice,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/openai/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn fixture_value(name: &str) -> Value {
    serde_json::from_slice(&fixture(name)).unwrap()
}

fn openai() -> &'static dyn Provider {
    Dialect::OpenAi.provider()
}

fn endpoint(options: EndpointOptions) -> Endpoint {
    Endpoint::new(Dialect::OpenAi, "https://api.openai.com/v1/", Some("sk-secret-key\n"), options).unwrap()
}

fn body(request: &Request<Bytes>) -> Value {
    serde_json::from_slice(request.body()).unwrap()
}

fn decode_stream(bytes: &[u8]) -> (Vec<ChatChunk>, Result<(), ProviderError>) {
    let mut decoder = openai().chat_decoder();
    let mut chunks = Vec::new();
    let result = decoder.push(bytes, &mut chunks).and_then(|()| decoder.finish(&mut chunks));
    (chunks, result)
}

fn accumulate(chunks: &[ChatChunk]) -> ChatResponse {
    let mut accumulator = ChatAccumulator::new();
    chunks.iter().for_each(|chunk| accumulator.push(chunk));
    accumulator.finish()
}

/// A field that is null says nothing: reading and writing may drop it.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            fields.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), without_nulls(v))).collect()
        }
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

#[test]
fn a_full_request_is_sent_to_openai_as_it_takes_it() {
    let request: ChatRequest = serde_json::from_slice(&fixture("request.json")).unwrap();
    let sent =
        openai().encode_chat(&endpoint(EndpointOptions::default()), &request, Streaming::Whole).unwrap();
    assert_eq!(body(&sent), fixture_value("request.openai.json"));
    assert_eq!(sent.method(), http::Method::POST);
    assert_eq!(sent.uri(), "https://api.openai.com/v1/chat/completions");
    assert_eq!(sent.headers()["authorization"], "Bearer sk-secret-key");
    assert!(sent.headers()["authorization"].is_sensitive());
    assert_eq!(sent.headers()["content-type"], "application/json");
}

#[test]
fn a_compatible_server_gets_the_older_names() {
    let mut request: ChatRequest = serde_json::from_slice(&fixture("request.json")).unwrap();
    request.model = "qwen3-32b".to_owned();
    let compatible = EndpointOptions { is_compatible: true, ..EndpointOptions::default() };
    let sent = openai().encode_chat(&endpoint(compatible), &request, Streaming::Whole).unwrap();
    assert_eq!(body(&sent), fixture_value("request.compatible.json"));
}

#[test]
fn reasoning_models_get_the_new_name_of_the_limit_even_behind_a_compatible_server() {
    for (model, compatible, name) in [
        ("gpt-5.2", false, "max_completion_tokens"),
        ("gpt-6-sol", true, "max_completion_tokens"),
        ("o3", true, "max_completion_tokens"),
        ("openai/o4-mini", true, "max_completion_tokens"),
        ("gpt-4o", false, "max_completion_tokens"),
        ("gpt-4o", true, "max_tokens"),
        ("gpt-oss-120b", true, "max_tokens"),
        ("o1lympus", true, "max_tokens"),
    ] {
        let options = EndpointOptions { is_compatible: compatible, ..EndpointOptions::default() };
        let request = ChatRequest::new(model, [Message::user("Hi")]).max_tokens(5);
        let sent = body(&openai().encode_chat(&endpoint(options), &request, Streaming::Whole).unwrap());
        assert_eq!(sent[name], 5, "{model}");
        assert_eq!(sent.as_object().unwrap().len(), 3, "{model}");
    }
}

#[test]
fn a_stream_always_asks_for_usage_and_keeps_the_callers_other_options() {
    let request: ChatRequest = serde_json::from_slice(&fixture("request.json")).unwrap();
    let sent =
        openai().encode_chat(&endpoint(EndpointOptions::default()), &request, Streaming::Stream).unwrap();
    let sent = body(&sent);
    assert_eq!(sent["stream"], true);
    assert_eq!(
        sent["stream_options"],
        json!({"include_usage": true, "include_obfuscation": false, "x_option": true})
    );
}

#[test]
fn a_request_survives_being_read_and_written() {
    let request: ChatRequest = serde_json::from_slice(&fixture("request.json")).unwrap();
    let mut expected = fixture_value("request.json");
    let fields = expected.as_object_mut().unwrap();
    let limit = fields.remove("max_tokens").unwrap();
    fields.insert("max_completion_tokens".to_owned(), limit);
    fields.insert("stop".to_owned(), json!(["\n\n"]));
    assert_eq!(serde_json::to_value(&request).unwrap(), expected);
    let again: ChatRequest = serde_json::from_value(expected).unwrap();
    assert!(again == request, "the second reading differs from the first");
}

#[test]
fn either_name_of_the_limit_is_read_and_null_does_not_hide_the_other() {
    for text in [
        r#"{"model":"m","messages":[],"max_tokens":7}"#,
        r#"{"model":"m","messages":[],"max_completion_tokens":7}"#,
        r#"{"model":"m","messages":[],"max_completion_tokens":7,"max_tokens":null}"#,
    ] {
        assert_eq!(serde_json::from_str::<ChatRequest>(text).unwrap().max_tokens, Some(7), "{text}");
    }
}

#[test]
fn a_request_without_a_model_or_messages_says_which_is_missing() {
    let error = serde_json::from_str::<ChatRequest>(r#"{"messages":[]}"#).unwrap_err();
    assert!(error.to_string().contains("missing field `model`"), "{error}");
    let error = serde_json::from_str::<ChatRequest>(r#"{"model":"m"}"#).unwrap_err();
    assert!(error.to_string().contains("missing field `messages`"), "{error}");
    let error =
        serde_json::from_str::<ChatRequest>(r#"{"model":"m","messages":[{"role":"user","content":7}]}"#);
    assert!(error.unwrap_err().to_string().contains("a string, a list of content parts or null"));
}

#[test]
fn no_field_is_ever_written_twice() {
    let mut request =
        ChatRequest::new("gpt-5.2", [Message::user("Hi")]).max_tokens(3).extra("model", "other");
    request = request.extra("max_tokens", 9).extra("stream", false);
    request.messages[0].extra.insert("role".to_owned(), json!("system"));
    let sent =
        openai().encode_chat(&endpoint(EndpointOptions::default()), &request, Streaming::Stream).unwrap();
    let text = std::str::from_utf8(sent.body()).unwrap();
    assert_eq!(text.matches("\"model\"").count(), 1, "{text}");
    assert_eq!(text.matches("\"role\"").count(), 1, "{text}");
    assert!(!text.contains("\"max_tokens\"") && !text.contains("\"stream\":false"), "{text}");
}

#[test]
fn the_builders_write_what_openai_documents() {
    let request = ChatRequest::new("gpt-4o", [Message::system("s"), Message::user("u")])
        .temperature(0.5)
        .top_p(0.9)
        .tools([Tool::function("lookup", "Looks up", json!({"type": "object"}))])
        .tool_choice(ToolChoice::Required)
        .parallel_tool_calls(false)
        .response_format(ResponseFormat::json_schema("answer", json!({"type": "object"})))
        .stop(["END"])
        .n(2)
        .seed(1)
        .reasoning_effort(ReasoningEffort::Low)
        .extra("verbosity", "low");
    let sent =
        openai().encode_chat(&endpoint(EndpointOptions::default()), &request, Streaming::Whole).unwrap();
    assert_eq!(
        body(&sent),
        json!({
            "model": "gpt-4o",
            "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
            "temperature": 0.5, "top_p": 0.9,
            "tools": [{"type": "function", "function": {
                "name": "lookup", "description": "Looks up", "parameters": {"type": "object"}}}],
            "tool_choice": "required", "parallel_tool_calls": false,
            "response_format": {"type": "json_schema",
                "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": true}},
            "stop": ["END"], "n": 2, "seed": 1, "reasoning_effort": "low", "verbosity": "low",
        })
    );
}

#[test]
fn answers_survive_being_read_and_written() {
    for name in ["response.json", "response_tools.json", "response_refusal.json"] {
        let response = openai().decode_chat(&fixture(name)).unwrap();
        let written = serde_json::to_value(&response).unwrap();
        assert_eq!(without_nulls(&written), without_nulls(&fixture_value(name)), "{name}");
    }
}

#[test]
fn an_answer_is_read() {
    let response = openai().decode_chat(&fixture("response.json")).unwrap();
    assert_eq!(response.text(), "Hello there.");
    assert_eq!(response.finish_reason(), Some(FinishReason::Stop));
    assert_eq!(response.created, 1_795_462_572);
    let usage = response.usage.as_ref().unwrap();
    let policy = omega_policy::Usage::from(usage);
    assert_eq!((policy.input_tokens, policy.cached_input_tokens, policy.output_tokens), (19, 8, 10));
    assert_eq!(usage.reasoning_tokens(), 4);

    let tools = openai().decode_chat(&fixture("response_tools.json")).unwrap();
    assert_eq!(tools.tool_calls()[0].name(), "lookup");
    assert_eq!(tools.tool_calls()[0].arguments(), r#"{"q":"x"}"#);
    assert_eq!(tools.tool_calls()[1].kind, "custom");
    assert_eq!(tools.text(), "");

    let refused = openai().decode_chat(&fixture("response_refusal.json")).unwrap();
    assert_eq!(refused.finish_reason(), Some(FinishReason::ContentFilter));
    assert_eq!(refused.choices[0].message.refusal.as_deref(), Some("I cannot help with that."));
}

#[test]
fn odd_usage_numbers_do_not_cost_the_answer() {
    let body = br#"{"choices":[{"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}],
        "usage":{"prompt_tokens":3.0,"completion_tokens":-1,"total_tokens":null}}"#;
    let usage = openai().decode_chat(body).unwrap().usage.unwrap();
    assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens), (3, 0, 3));
}

#[test]
fn a_200_that_is_no_answer_is_the_providers_failure() {
    for body in [
        &b""[..],
        b"{}",
        b"[]",
        b"null",
        br#"{"choices":[]}"#,
        br#"{"choices":[{"message":{"role":"assistant","content":"cut"#,
        b"<html><head><title>Welcome to nginx!</title></head></html>",
    ] {
        let error = openai().decode_chat(body).unwrap_err();
        assert_eq!(error.failure.kind, FailureKind::Server, "{error}");
        assert!(!error.message.contains("cut"), "the message quotes the answer: {error}");
    }
    let error =
        openai().decode_chat(b"<html><head><title>Welcome to nginx!</title></head></html>").unwrap_err();
    assert_eq!(error.to_string(), "an HTML page, not the API: Welcome to nginx!");
}

#[test]
fn a_whole_body_is_no_proof_of_a_whole_answer() {
    for reason in ["null", "\"\""] {
        let body = format!(
            r#"{{"choices":[{{"message":{{"role":"assistant","content":"cut"}},"finish_reason":{reason}}}],"usage":{{"prompt_tokens":3,"completion_tokens":2}}}}"#
        );
        let error = openai().decode_chat(body.as_bytes()).unwrap_err();
        assert_eq!(error.failure.kind, FailureKind::Server, "{reason}");
        assert_eq!(
            error.failure.seen.map(|usage| usage.output_tokens),
            Some(2),
            "what was used is still paid for"
        );
    }
}

#[test]
fn a_200_with_an_error_inside_means_what_the_error_means() {
    let body =
        br#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":null}}"#;
    let error = openai().decode_chat(body).unwrap_err();
    assert_eq!(error.failure.kind, FailureKind::OutOfQuota);
    assert_eq!(error.to_string(), "429 insufficient_quota: You exceeded your current quota");
    let body =
        br#"{"object":"error","message":"maximum context length is 10","type":"BadRequestError","code":400}"#;
    assert_eq!(openai().decode_chat(body).unwrap_err().failure.kind, FailureKind::ContextLength);
    let body = br#"{"error":null,"choices":[{"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}]}"#;
    assert!(openai().decode_chat(body).is_ok(), "a null error is no error");
}

#[test]
fn a_stream_is_read_and_put_together() {
    let (chunks, result) = decode_stream(&fixture("stream.sse"));
    result.unwrap();
    assert_eq!(chunks.len(), 6);
    let content: Vec<bool> = chunks.iter().map(ChatChunk::has_content).collect();
    assert_eq!(content, [false, true, true, true, false, false]);
    let whole = accumulate(&chunks);
    assert_eq!(whole.text(), "Grüße, wörld!");
    assert_eq!(whole.finish_reason(), Some(FinishReason::Stop));
    assert_eq!(whole.usage.as_ref().unwrap().total_tokens, 29);
    assert_eq!((whole.id.as_str(), whole.model.as_str()), ("chatcmpl-9", "gpt-5.2-2025-12-11"));
    assert!(whole.extra.is_empty(), "padding is not part of the answer: {:?}", whole.extra);
}

#[test]
fn tool_calls_of_a_stream_are_put_together_by_number() {
    let (chunks, result) = decode_stream(&fixture("stream_tools.sse"));
    result.unwrap();
    let whole = accumulate(&chunks);
    let calls: Vec<_> = whole.tool_calls().iter().map(|c| (c.id.as_str(), c.name(), c.arguments())).collect();
    assert_eq!(calls, [("call_a", "lookup", r#"{"q":"x"}"#), ("call_b", "now", "{}")]);
    assert_eq!(whole.finish_reason(), Some(FinishReason::ToolCalls));
}

#[test]
fn tool_calls_that_are_all_numbered_zero_stay_apart_by_id() {
    let stream = concat!(
        r#"data: {"choices":[{"delta":{"tool_calls":[{"id":"a","function":{"name":"f","arguments":"{}"}}]}}]}"#,
        "\n\n",
        r#"data: {"choices":[{"delta":{"tool_calls":[{"id":"b","function":{"name":"g","arguments":"{}"}}]}}]}"#,
        "\n\n",
        r#"data: {"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#,
        "\n\n",
    );
    let (chunks, result) = decode_stream(stream.as_bytes());
    result.unwrap();
    let whole = accumulate(&chunks);
    assert_eq!(whole.tool_calls().iter().map(|call| call.name()).collect::<Vec<_>>(), ["f", "g"]);
}

#[test]
fn several_choices_are_kept_apart_and_each_must_finish() {
    let stream = fixture("stream_two_choices.sse");
    let (chunks, result) = decode_stream(&stream);
    result.unwrap();
    let whole = accumulate(&chunks);
    let texts: Vec<_> =
        whole.choices.iter().map(|c| (c.message.content.text(), c.finish_reason.clone())).collect();
    assert_eq!(texts, [("Aa", Some(FinishReason::Length)), ("B", Some(FinishReason::Stop))]);

    let text = String::from_utf8(stream).unwrap();
    let unfinished = text.replace(r#""finish_reason":"length""#, r#""finish_reason":null"#);
    let (_, result) = decode_stream(unfinished.as_bytes());
    assert_eq!(result.unwrap_err().failure.kind, FailureKind::StreamBroken);
}

#[test]
fn a_missing_done_after_every_finish_reason_is_complete() {
    let stream = String::from_utf8(fixture("stream.sse")).unwrap().replace("data: [DONE]\n\n", "");
    let mut decoder = openai().chat_decoder();
    let mut chunks = Vec::new();
    decoder.push(stream.as_bytes(), &mut chunks).unwrap();
    assert!(!decoder.is_done(), "more could come");
    decoder.finish(&mut chunks).unwrap();
}

#[test]
fn done_ends_a_stream_at_once_and_what_follows_is_ignored() {
    let mut decoder = openai().chat_decoder();
    let mut chunks = Vec::new();
    decoder.push(&fixture("stream.sse"), &mut chunks).unwrap();
    assert!(decoder.is_done());
    decoder.push(b"data: {\"error\":{\"message\":\"late\"}}\n\nnonsense", &mut chunks).unwrap();
    decoder.finish(&mut chunks).unwrap();
    assert_eq!(chunks.len(), 6);
}

#[test]
fn done_without_a_finish_reason_is_a_break() {
    for stream in [
        "data: [DONE]\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\ndata: [DONE]\n\n",
        // An empty reason is no reason.
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"},\"finish_reason\":\"\"}]}\n\ndata: [DONE]\n\n",
    ] {
        let (_, result) = decode_stream(stream.as_bytes());
        assert_eq!(result.unwrap_err().failure.kind, FailureKind::StreamBroken, "{stream}");
    }
}

#[test]
fn no_cut_stream_is_ever_a_whole_answer() {
    for name in ["stream.sse", "stream_tools.sse", "stream_two_choices.sse"] {
        let stream = fixture(name);
        let (chunks, _) = decode_stream(&stream);
        let whole = accumulate(&chunks);
        let mut complete = 0;
        for end in 0..stream.len() {
            let (chunks, result) = decode_stream(&stream[..end]);
            if let Err(error) = result {
                assert_eq!(error.failure.kind, FailureKind::StreamBroken, "{name} cut at {end}: {error}");
                continue;
            }
            complete += 1;
            let cut = accumulate(&chunks);
            assert!(cut.choices == whole.choices, "{name} cut at {end} passes for a whole answer");
        }
        assert!(complete > 0, "{name}: the answer is complete before its last byte");
    }
}

#[test]
fn an_event_that_is_not_json_is_a_break_and_what_came_before_is_kept() {
    for bad in ["{\"choices\":[", "nonsense", "{\"choices\":7}", "<html>", "\u{fffd}"] {
        let stream =
            format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"x\"}}}}]}}\n\ndata: {bad}\n\n");
        let mut decoder = openai().chat_decoder();
        let mut chunks = Vec::new();
        let error = decoder.push(stream.as_bytes(), &mut chunks).unwrap_err();
        assert_eq!(error.failure.kind, FailureKind::StreamBroken, "{bad}");
        assert_eq!(chunks.len(), 1, "{bad}");
        assert!(decoder.push(b"", &mut chunks).is_err() && decoder.finish(&mut chunks).is_err());
        assert!(!decoder.is_done());
    }
}

#[test]
fn comments_empty_events_and_unknown_fields_are_keep_alives() {
    let stream = format!(
        ": OPENROUTER PROCESSING\n\nretry: 5\nfoo: bar\ndata:\n\n{}",
        String::from_utf8(fixture("stream.sse")).unwrap()
    );
    let (chunks, result) = decode_stream(stream.as_bytes());
    result.unwrap();
    assert_eq!(chunks.len(), 6);
}

#[test]
fn errors_inside_a_stream_mean_what_they_mean_outside() {
    let (chunks, result) = decode_stream(&fixture("stream_error.sse"));
    assert_eq!(accumulate(&chunks).text(), "Once");
    let error = result.unwrap_err();
    assert_eq!((error.failure.kind, error.status), (FailureKind::Server, Some(500)));
    assert_eq!(error.error_type.as_deref(), Some("server_error"));

    let rows = [
        (
            r#"data: {"error":{"type":"service_unavailable_error","code":"server_is_overloaded","message":"m"}}"#,
            FailureKind::Overloaded,
        ),
        (
            r#"data: {"error":{"type":"insufficient_quota","code":"credit_balance_exhausted","message":"m"}}"#,
            FailureKind::OutOfQuota,
        ),
        (
            r#"data: {"error":{"type":"tokens","code":"rate_limit_exceeded","message":"m"}}"#,
            FailureKind::Throttled,
        ),
        (
            r#"data: {"error":{"message":"Internal","type":"InternalServerError","code":500}}"#,
            FailureKind::Server,
        ),
        (r#"data: {"error":{"message":"slow down","code":429}}"#, FailureKind::Throttled),
        (
            r#"data: {"object":"error","message":"This model's maximum context length is 8 tokens","code":400}"#,
            FailureKind::ContextLength,
        ),
        (r#"data: {"error":"the model is overloaded"}"#, FailureKind::Overloaded),
        (
            r#"data: {"error":{"message":"policy","code":"content_policy_violation"}}"#,
            FailureKind::ContentFilter,
        ),
        // Gemini's habit, which its compatible servers may share: JSON without `data:`.
        (r#"{"error":{"code":503,"message":"m","status":"UNAVAILABLE"}}"#, FailureKind::Server),
        (
            "event: error\ndata: {\"error\":{\"type\":\"server_error\",\"message\":\"m\"}}",
            FailureKind::Server,
        ),
        ("<html>502</html>", FailureKind::StreamBroken),
        // Named an error, in no form of an error.
        ("event: error\ndata: {\"detail\":\"rate limit reached\"}", FailureKind::Throttled),
        ("event: error\ndata: \"the model is overloaded\"", FailureKind::Overloaded),
        ("event: error\ndata: {}", FailureKind::Server),
        ("event: error\ndata: oops", FailureKind::StreamBroken),
        (r#"data: {"error":true,"choices":[]}"#, FailureKind::Server),
        (r#"data: {"error":["no"],"choices":[{"index":0,"delta":{}}]}"#, FailureKind::Server),
    ];
    for (event, kind) in rows {
        let (_, result) = decode_stream(format!("{event}\n\n").as_bytes());
        let error = result.unwrap_err();
        assert_eq!(error.failure.kind, kind, "{event}");
        assert!(!error.to_string().is_empty() && !error.message.is_empty(), "{event}");
    }
}

#[test]
fn a_rate_limit_inside_a_stream_names_its_wait() {
    let error =
        r#"{"error":{"type":"tokens","code":"rate_limit_exceeded","message":"Please try again in 720ms."}}"#;
    for event in
        [format!("data: {error}\n\n"), format!("event: error\ndata: {error}\n\n"), format!("{error}\n\n")]
    {
        let (_, result) = decode_stream(event.as_bytes());
        let failure = result.unwrap_err().failure;
        assert_eq!(failure.retry_after, Some(std::time::Duration::from_millis(720)), "{event}");
        assert_eq!(failure.exhausted, Some(omega_policy::Dimension::Tokens), "{event}");
    }
}

#[test]
fn an_endless_event_is_cut_off() {
    let mut decoder = openai().chat_decoder();
    let mut chunks = Vec::new();
    let piece = vec![b'x'; 1 << 20];
    decoder.push(b"data: \"", &mut chunks).unwrap();
    let error = (0..64).find_map(|_| decoder.push(&piece, &mut chunks).err()).expect("64 MiB are refused");
    assert_eq!(error.failure.kind, FailureKind::StreamBroken);
    assert!(error.message.contains("16777216 bytes"), "{error}");
}

#[test]
fn embeddings_go_out_and_come_back() {
    let request: EmbeddingsRequest = serde_json::from_slice(&fixture("embeddings_request.json")).unwrap();
    let sent = openai().encode_embeddings(&endpoint(EndpointOptions::default()), &request).unwrap();
    assert_eq!(body(&sent), fixture_value("embeddings_request.json"));
    assert_eq!(sent.uri().path(), "/v1/embeddings");
    let response = openai().decode_embeddings(&fixture("embeddings_response.json")).unwrap();
    assert_eq!(response.data[0].embedding, EmbeddingVector::Floats(vec![0.5, -0.25, 1.0]));
    assert_eq!(response.data[1].embedding, EmbeddingVector::Base64("AACAPwAAgL4=".to_owned()));
    assert_eq!(serde_json::to_value(&response).unwrap(), fixture_value("embeddings_response.json"));
    let error =
        openai().decode_embeddings(br#"{"error":{"message":"no","code":"model_not_found"}}"#).unwrap_err();
    assert_eq!(error.failure.kind, FailureKind::UnknownModel);
    for body in ["{}", r#"{"data":[]}"#, r#"{"data":[],"error":{"type":"server_error","message":"m"}}"#] {
        assert_eq!(
            openai().decode_embeddings(body.as_bytes()).unwrap_err().failure.kind,
            FailureKind::Server
        );
    }
}

#[test]
fn embedding_inputs_of_every_form_are_read() {
    for input in [json!("a"), json!(["a", "b"]), json!([1, 2]), json!([[1], [2, 3]])] {
        let request = json!({"model": "text-embedding-3-small", "input": input});
        let read: EmbeddingsRequest = serde_json::from_value(request.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), request);
    }
}

fn decode_responses_stream(bytes: &[u8]) -> (Vec<ResponseEvent>, Result<(), ProviderError>, bool) {
    let mut decoder = openai().responses_decoder();
    let mut events = Vec::new();
    let result = decoder.push(bytes, &mut events).and_then(|()| decoder.finish(&mut events));
    (events, result, decoder.is_done())
}

#[test]
fn a_responses_request_goes_out_and_its_answer_comes_back() {
    let request: ResponsesRequest = serde_json::from_slice(&fixture("responses_request.json")).unwrap();
    let whole =
        openai().encode_responses(&endpoint(EndpointOptions::default()), &request, Streaming::Whole).unwrap();
    let mut expected = fixture_value("responses_request.json");
    expected.as_object_mut().unwrap().remove("stream");
    assert_eq!(body(&whole), expected);
    assert_eq!(whole.uri().path(), "/v1/responses");
    let stream = openai()
        .encode_responses(&endpoint(EndpointOptions::default()), &request, Streaming::Stream)
        .unwrap();
    assert_eq!(body(&stream)["stream"], true);

    let response = openai().decode_responses(&fixture("responses_response.json")).unwrap();
    assert_eq!(response.text(), "Hello there");
    let usage = omega_policy::Usage::from(response.usage.as_ref().unwrap());
    assert_eq!((usage.input_tokens, usage.cached_input_tokens, usage.output_tokens), (9, 4, 7));
    let written = serde_json::to_value(&response).unwrap();
    assert_eq!(written, fixture_value("responses_response.json"));
}

#[test]
fn a_response_that_failed_is_a_failure_in_spite_of_its_200() {
    let failed = fixture_value("responses_failed.json");
    for (code, kind) in [
        ("server_error", FailureKind::Server),
        ("rate_limit_exceeded", FailureKind::Throttled),
        ("invalid_prompt", FailureKind::ContentFilter),
        ("bio_policy", FailureKind::ContentFilter),
        ("misalignment_policy_violation", FailureKind::ContentFilter),
        ("data_residency_mismatch", FailureKind::Invalid),
        ("vector_store_timeout", FailureKind::Invalid),
        ("invalid_image", FailureKind::Invalid),
    ] {
        let mut body = failed.clone();
        body["error"]["code"] = json!(code);
        let error = openai().decode_responses(&serde_json::to_vec(&body).unwrap()).unwrap_err();
        assert_eq!(error.failure.kind, kind, "{code}");
        assert_eq!(error.code.as_deref(), Some(code));
    }
    let error = openai().decode_responses(br#"{"status":"failed"}"#).unwrap_err();
    assert_eq!(error.failure.kind, FailureKind::Server);
    let used = br#"{"status":"failed","error":{"code":"server_error","message":"m"},"usage":{"input_tokens":9,"output_tokens":4}}"#;
    let seen =
        |error: ProviderError| error.failure.seen.map(|usage| (usage.input_tokens, usage.output_tokens));
    assert_eq!(seen(openai().decode_responses(used).unwrap_err()), Some((9, 4)));
    let event =
        format!("data: {{\"type\":\"response.failed\",\"response\":{}}}\n\n", str::from_utf8(used).unwrap());
    assert_eq!(seen(decode_responses_stream(event.as_bytes()).1.unwrap_err()), Some((9, 4)));
    let error = openai().decode_responses(br#"{"status":"cancelled"}"#).unwrap_err();
    assert_eq!(error.failure.kind, FailureKind::Transient);
    let error = openai().decode_responses(br#"{"id":"x"}"#).unwrap_err();
    assert_eq!(error.failure.kind, FailureKind::Server);
    let error =
        openai().decode_responses(br#"{"error":{"message":"m","code":"insufficient_quota"}}"#).unwrap_err();
    assert_eq!(error.failure.kind, FailureKind::OutOfQuota);
}

#[test]
fn a_responses_stream_is_read_and_only_its_terminator_completes_it() {
    let stream = fixture("responses_stream.sse");
    let (events, result, done) = decode_responses_stream(&stream);
    result.unwrap();
    assert!(done && events.last().unwrap().is_terminal());
    assert_eq!(events.iter().map(ResponseEvent::text).collect::<String>(), "Hello there");
    assert_eq!(events.iter().filter(|event| event.has_content()).count(), 2);
    let whole = events.last().unwrap().response().unwrap();
    assert_eq!((whole.text().as_str(), whole.usage.unwrap().output_tokens), ("Hello there", 7));

    let terminator = stream.windows(25).position(|window| window == b"event: response.completed").unwrap();
    for end in 0..stream.len() {
        let (_, result, done) = decode_responses_stream(&stream[..end]);
        assert_eq!(result.is_ok(), done, "cut at {end}");
        assert!(result.is_err() || end > terminator, "cut at {end}");
    }
    let text = String::from_utf8(stream).unwrap();
    let (_, result, _) =
        decode_responses_stream(text.replace("response.completed", "response.incomplete").as_bytes());
    result.unwrap();
    let (_, result, _) = decode_responses_stream(format!("{text}data: [DONE]\n\n").as_bytes());
    result.unwrap();
    let begun = text.split("event: response.completed").next().unwrap();
    let (_, result, _) = decode_responses_stream(format!("{begun}data: [DONE]\n\n").as_bytes());
    assert_eq!(result.unwrap_err().failure.kind, FailureKind::StreamBroken);
}

#[test]
fn errors_of_a_responses_stream_are_read_flat_nested_and_as_failed() {
    let (events, result, _) = decode_responses_stream(&fixture("responses_error_flat.sse"));
    assert_eq!(events.len(), 5);
    let error = result.unwrap_err();
    assert_eq!((error.failure.kind, error.code.as_deref()), (FailureKind::Server, Some("server_error")));
    assert_eq!(error.to_string(), "500 (server_error): Something went wrong.");

    let (_, result, _) = decode_responses_stream(&fixture("responses_error_nested.sse"));
    let error = result.unwrap_err();
    assert_eq!((error.failure.kind, error.status), (FailureKind::Overloaded, Some(503)));

    let failed = fixture_value("responses_failed.json");
    let event = json!({"type": "response.failed", "response": failed});
    let (_, result, _) =
        decode_responses_stream(format!("event: response.failed\ndata: {event}\n\n").as_bytes());
    assert_eq!(result.unwrap_err().failure.kind, FailureKind::Server);
}

#[test]
fn a_name_that_is_repeated_with_every_fragment_is_taken_once() {
    let event = |arguments: &str| {
        let call = json!({"index": 0, "id": "a", "function": {"name": "look", "arguments": arguments}});
        format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}))
    };
    let end = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n";
    let (chunks, result) = decode_stream(format!("{}{}{end}", event("{\"a\""), event(":1}")).as_bytes());
    result.unwrap();
    let whole = accumulate(&chunks);
    assert_eq!((whole.tool_calls()[0].name(), whole.tool_calls()[0].arguments()), ("look", "{\"a\":1}"));
}

#[test]
fn unknown_fields_of_a_stream_are_put_together_like_the_known_ones() {
    let stream = concat!(
        r#"data: {"x":1,"choices":[{"delta":{"reasoning":"Let ","blocks":[1]},"logprobs":{"content":[1]}}]}"#,
        "\n\n",
        r#"data: {"x":2,"choices":[{"delta":{"reasoning":"me","blocks":[2]},"logprobs":{"content":[2]},"finish_reason":"stop"}]}"#,
        "\n\n",
    );
    let (chunks, result) = decode_stream(stream.as_bytes());
    result.unwrap();
    assert!(chunks[0].has_content(), "reasoning by another name is content");
    let whole = accumulate(&chunks);
    assert_eq!(whole.extra["x"], 2);
    assert_eq!(whole.choices[0].message.extra["reasoning"], "Let me");
    assert_eq!(whole.choices[0].message.extra["blocks"], json!([1, 2]));
    assert_eq!(whole.choices[0].logprobs, Some(json!({"content": [1, 2]})));
}

proptest! {
    #[test]
    fn where_a_stream_is_cut_makes_no_difference(cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..20)) {
        for name in ["stream.sse", "stream_tools.sse", "stream_two_choices.sse"] {
            let stream = fixture(name);
            let (expected, _) = decode_stream(&stream);
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            places.extend([0, stream.len()]);
            places.sort_unstable();
            let mut decoder = openai().chat_decoder();
            let mut chunks = Vec::new();
            for window in places.windows(2) {
                decoder.push(&stream[window[0]..window[1]], &mut chunks).unwrap();
            }
            decoder.finish(&mut chunks).unwrap();
            prop_assert!(chunks == expected, "{} is read differently", name);
        }
    }
}
