//! What a caller or a model wrote arrives as it was written: order of fields, numbers, and fields nobody here knows.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

use omega_protocol::{
    ChatAccumulator, ChatRequest, Dialect, Endpoint, EndpointOptions, Message, ResponseFormat, Streaming,
    Tool,
};
use serde_json::{Value, json};

/// Fields in no alphabetical order, as a schema that wants the reasons before the verdict has them.
const SCHEMA: &str = r#"{"type":"object","properties":{"reasons":{"type":"string"},"answer":{"type":"string"}},"required":["reasons","answer"],"additionalProperties":false}"#;

fn sent(dialect: Dialect, request: &ChatRequest) -> String {
    let endpoint =
        Endpoint::new(dialect, dialect.default_base_url(), Some("k"), EndpointOptions::default()).unwrap();
    let sent = dialect.provider().encode_chat(&endpoint, request, Streaming::Whole).unwrap();
    String::from_utf8(sent.into_body().to_vec()).unwrap()
}

#[test]
fn schemas_of_answers_and_tools_keep_the_order_of_their_fields() {
    let text = format!(
        r#"{{"model":"m","messages":[{{"role":"user","content":"x"}}],
            "tools":[{{"type":"function","function":{{"name":"f","parameters":{SCHEMA}}}}}],
            "response_format":{{"type":"json_schema","json_schema":{{"name":"a","schema":{SCHEMA}}}}}}}"#
    );
    let request: ChatRequest = serde_json::from_str(&text).unwrap();
    for dialect in Dialect::ALL {
        let sent = sent(dialect, &request);
        assert_eq!(sent.matches(SCHEMA).count(), 2, "{dialect}: {sent}");
    }
}

/// A number that neither 64 bits nor a float hold, and fields in the model's order.
const ARGUMENTS: &str = r#"{"z":123456789012345678901234567890,"a":{"y":1.10,"b":[]}}"#;

#[test]
fn arguments_of_calls_are_what_the_model_wrote_digit_for_digit() {
    let anthropic = format!(
        r#"{{"type":"message","content":[{{"type":"tool_use","id":"t","name":"f","input":{ARGUMENTS}}}],"stop_reason":"tool_use"}}"#
    );
    let google = format!(
        r#"{{"candidates":[{{"content":{{"parts":[{{"functionCall":{{"name":"f","args":{ARGUMENTS}}}}}]}},"finishReason":"STOP"}}]}}"#
    );
    let stream = format!("data: {google}\r\n\r\n");
    for (dialect, body) in [(Dialect::Anthropic, &anthropic), (Dialect::Google, &google)] {
        let answer = dialect.provider().decode_chat(body.as_bytes()).unwrap();
        assert_eq!(answer.tool_calls()[0].arguments(), ARGUMENTS, "{dialect}");
        // And back again, as the next turn.
        let result = Message::tool(answer.tool_calls()[0].id.clone(), "1");
        let request = ChatRequest::new("m", [answer.choices[0].message.clone(), result]);
        assert!(sent(dialect, &request).contains(ARGUMENTS), "{dialect}");
    }
    let mut decoder = Dialect::Google.provider().chat_decoder();
    let mut chunks = Vec::new();
    decoder.push(stream.as_bytes(), &mut chunks).unwrap();
    decoder.finish(&mut chunks).unwrap();
    let mut accumulator = ChatAccumulator::new();
    chunks.iter().for_each(|chunk| accumulator.push(chunk));
    assert_eq!(accumulator.finish().tool_calls()[0].arguments(), ARGUMENTS);
}

#[test]
fn unknown_fields_inside_a_part_stay_where_they_stood() {
    for part in [
        json!({"type": "image_url", "image_url": {"url": "https://e.com/x", "detail": "low", "format": "image/png"}}),
        json!({"type": "image_url", "image_url": {"url": "https://e.com/x"}, "note": 1}),
        json!({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav", "rate": 8000}, "note": 1}),
    ] {
        let request = json!({"model": "m", "messages": [{"role": "user", "content": [part]}]});
        let read: ChatRequest = serde_json::from_value(request.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), request);
        // Another vendor has no use for them.
        let body: Value = serde_json::from_str(&sent(Dialect::Google, &read)).unwrap();
        assert_eq!(body["contents"][0]["parts"][0].as_object().unwrap().len(), 1, "{body}");
    }
    let image = json!({"type": "image_url", "image_url": {"url": "https://e.com/x", "format": "image/png"}});
    let request = json!({"model": "m", "messages": [{"role": "user", "content": [image]}]});
    let body: Value =
        serde_json::from_str(&sent(Dialect::Anthropic, &serde_json::from_value(request).unwrap())).unwrap();
    assert_eq!(
        body["messages"][0]["content"],
        json!([{"type": "image", "source": {"type": "url", "url": "https://e.com/x"}}])
    );
}

#[test]
fn anthropics_own_form_of_a_schema_is_read_and_sent() {
    let own = json!({"type": "json_schema", "schema": {"type": "object"}});
    let request =
        json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "response_format": own});
    let request: ChatRequest = serde_json::from_value(request).unwrap();
    assert_eq!(request.response_format, Some(ResponseFormat::Other(own.clone())));
    let body: Value = serde_json::from_str(&sent(Dialect::Anthropic, &request)).unwrap();
    assert_eq!(body["output_config"]["format"], own);
}

#[test]
fn states_beside_a_delta_are_replaced_and_lists_are_put_together() {
    let chunk = |reason: Value, tokens: Value| json!({"choices": [{"index": 0, "delta": {}, "native_finish_reason": reason, "token_ids": tokens}]});
    let mut accumulator = ChatAccumulator::new();
    for chunk in
        [chunk(json!(null), json!([1])), chunk(json!("stop"), json!([2])), chunk(json!("stop"), json!(null))]
    {
        accumulator.push(&serde_json::from_value(chunk).unwrap());
    }
    let whole = accumulator.finish();
    assert_eq!(whole.choices[0].extra["native_finish_reason"], "stop");
    assert_eq!(whole.choices[0].extra["token_ids"], json!([1, 2]));
}

#[test]
fn counts_are_read_in_every_form_they_come_in() {
    let body = br#"{"candidates":[{"content":{"parts":[{"text":"x"}]},"finishReason":"STOP"}],
        "usageMetadata":{"promptTokenCount":"12","candidatesTokenCount":3.0,"thoughtsTokenCount":"many"}}"#;
    let usage = Dialect::Google.provider().decode_chat(body).unwrap().usage.unwrap();
    assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens), (12, 3, 15));
}

#[test]
fn nothing_that_holds_prompts_or_answers_shows_them() {
    const SECRET: &str = "my private question";
    let mut parser = omega_protocol::sse::SseParser::new();
    let mut shown = String::new();
    let text = format!("stray {SECRET}\ndata: {SECRET}\n\ndata: {SECRET}");
    let pushed: Result<(), omega_protocol::sse::EventTooLarge> = parser.push(text.as_bytes(), |item| {
        shown += &format!("{item:?} ");
        Ok(())
    });
    pushed.unwrap();
    let other = json!({"type": SECRET});
    let choice: omega_protocol::ToolChoice = serde_json::from_value(other.clone()).unwrap();
    let format: ResponseFormat = serde_json::from_value(other).unwrap();
    shown +=
        &format!("{parser:?} {choice:?} {format:?} {:?}", Tool::function("f", SECRET, json!({"d": SECRET})));
    let bytes = format!("{:?}", SECRET.as_bytes());
    assert!(!shown.contains(SECRET) && !shown.contains(bytes.trim_matches(['[', ']'])), "{shown}");
}

#[test]
fn an_answer_of_a_wrong_form_is_never_quoted() {
    for (dialect, body) in [
        (Dialect::Anthropic, r#"{"content":"my private answer","stop_reason":"end_turn"}"#),
        (
            Dialect::Anthropic,
            r#"{"content":[],"stop_reason":{"x":"my private answer"},"usage":"my private answer"}"#,
        ),
        (
            Dialect::Anthropic,
            r#"{"content":[{"text":1e999}],"stop_reason":"end_turn","id":"my private answer"}"#,
        ),
        (Dialect::Google, r#"{"candidates":"my private answer"}"#),
        (Dialect::Google, r#"{"candidates":[{"content":{"parts":["my private answer"]}}]}"#),
        (Dialect::OpenAi, r#"{"choices":"my private answer"}"#),
        (Dialect::Grok, r#"{"choices":[{"message":"my private answer"}]}"#),
    ] {
        let error = dialect.provider().decode_chat(body.as_bytes()).unwrap_err();
        assert_eq!(error.failure.kind, omega_policy::FailureKind::Server, "{dialect}: {error}");
        assert!(!format!("{error} {error:?}").contains("private"), "{dialect}: {error}");
    }
    for (dialect, body) in [
        (Dialect::OpenAi, r#"{"data":"my private answer"}"#),
        (Dialect::Google, r#"{"embeddings":"my private answer"}"#),
    ] {
        let error = dialect.provider().decode_embeddings(body.as_bytes()).unwrap_err();
        assert!(!error.to_string().contains("private"), "{dialect}: {error}");
    }
}
