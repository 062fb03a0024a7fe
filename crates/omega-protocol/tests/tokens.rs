//! What requests are expected to make a model read: media, tools, and what cannot be seen.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

use omega_protocol::{
    ChatRequest, ContentPart, InputKind, Message, ResponsesRequest, TokenCounter, Tool, estimate_input_tokens,
};
use serde_json::{Value, json};

fn chat(request: Value) -> ChatRequest {
    serde_json::from_value(request).unwrap()
}

fn saying(part: Value) -> ChatRequest {
    chat(json!({"model": "gpt-5.2", "messages": [{"role": "user", "content": [part]}]}))
}

fn responses(input: Value, rest: Value) -> ResponsesRequest {
    let mut request = json!({"model": "gpt-5.2", "input": input});
    request.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    serde_json::from_value(request).unwrap()
}

#[test]
fn an_image_of_low_detail_costs_a_twelfth_of_another_in_both_apis() {
    let counter = TokenCounter::by_bytes();
    for (detail, tokens) in [("low", 85), ("high", 1_000), ("auto", 1_000)] {
        let image =
            json!({"type": "image_url", "image_url": {"url": "https://e.com/x.png", "detail": detail}});
        let estimate = counter.chat(&saying(image), "gpt-5.2");
        assert_eq!((estimate.tokens, estimate.kind), (tokens + 6, InputKind::Media), "{detail}");
        let image =
            json!({"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": detail});
        let input = json!([{"role": "user", "content": [image]}]);
        let estimate = counter.responses(&responses(input, json!({})), "gpt-5.2");
        assert!((tokens + 6..tokens + 9).contains(&estimate.tokens), "{detail}: {}", estimate.tokens);
        assert_eq!(estimate.kind, InputKind::Media);
    }
}

#[test]
fn many_images_add_up() {
    let image = || ContentPart::image_url("https://e.com/x.png");
    let request = ChatRequest::new("gpt-5.2", [Message::user_parts((0..7).map(|_| image()).collect())]);
    assert_eq!(estimate_input_tokens(&request), 7_006);
}

#[test]
fn everything_that_describes_a_tool_counts() {
    let bare = estimate_input_tokens(&ChatRequest::new("gpt-5.2", [Message::user("Hi")]));
    let text = "x".repeat(3_500);
    let function = json!({"name": "f", "description": text, "parameters": {"type": "object"}});
    for field in [
        json!({"tools": [{"type": "function", "function": function}]}),
        json!({"functions": [function]}),
        json!({"tools": [{"type": "custom", "custom": {"name": "f", "description": text}}]}),
        json!({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"d": text}}}]}),
        json!({"response_format": {"type": "json_schema", "json_schema": {"name": "f", "schema": {"d": text}}}}),
        json!({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": text}}]}]}),
    ] {
        let mut request = json!({"model": "gpt-5.2", "messages": [{"role": "user", "content": "Hi"}]});
        request.as_object_mut().unwrap().extend(field.as_object().unwrap().clone());
        let estimate = TokenCounter::by_bytes().chat(&chat(request), "gpt-5.2");
        assert!((bare + 1_000..bare + 1_050).contains(&estimate.tokens), "{}: {field}", estimate.tokens);
        assert_eq!(estimate.kind, InputKind::Text);
    }
    let tools = json!({"tools": [{"type": "function", "name": "f", "description": text}]});
    let estimate = TokenCounter::by_bytes().responses(&responses(json!("Hi"), tools), "gpt-5.2");
    assert!((1_010..1_050).contains(&estimate.tokens), "{}", estimate.tokens);
}

#[test]
fn what_the_provider_adds_by_itself_is_told_apart() {
    let counter = TokenCounter::by_bytes();
    for rest in [
        json!({"previous_response_id": "resp_1"}),
        json!({"conversation": "conv_1"}),
        json!({"prompt": {"id": "pmpt_1"}}),
        json!({"tools": [{"type": "web_search"}]}),
    ] {
        assert_eq!(
            counter.responses(&responses(json!("Hi"), rest.clone()), "gpt-5.2").kind,
            InputKind::Unseen,
            "{rest}"
        );
    }
    for rest in [json!({"previous_response_id": null}), json!({"tools": [{"type": "function", "name": "f"}]})]
    {
        let kind = counter.responses(&responses(json!("Hi"), rest.clone()), "gpt-5.2").kind;
        assert_eq!(kind, InputKind::Text, "{rest}");
    }
    for field in ["search_parameters", "web_search_options"] {
        let request = ChatRequest::new("grok-5", [Message::user("Hi")]).extra(field, json!({}));
        assert_eq!(counter.chat(&request, "grok-5").kind, InputKind::Unseen, "{field}");
    }
    let hosted: Tool = serde_json::from_value(json!({"type": "web_search_20250305", "name": "s"})).unwrap();
    let request = ChatRequest::new("claude-opus-5-5", [Message::user("Hi")]).tools([hosted]);
    assert_eq!(counter.chat(&request, "claude-opus-5-5").kind, InputKind::Unseen);
}

#[test]
fn the_model_it_is_sent_to_decides_and_not_the_one_that_was_asked_for() {
    let request = ChatRequest::new("gpt-5.2", [Message::user("x".repeat(35_000))]);
    let counter = TokenCounter::by_bytes();
    assert_eq!(counter.chat(&request, "gpt-5.2").tokens, 10_006);
    assert_eq!(counter.chat(&request, "claude-opus-5-5").tokens, 16_006);
}
