//! What requests are expected to make a model read: media, tools, what cannot be seen, and exact counts.

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

#[cfg(not(feature = "tokenizer"))]
#[test]
fn a_build_without_the_tokenizer_says_what_it_lacks() {
    let missing = TokenCounter::exact(65_536).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "this build has no tokenizer: it was made without the cargo feature `tokenizer`"
    );
}

#[cfg(feature = "tokenizer")]
mod exact {
    use std::time::Duration;

    use omega_protocol::{EmbeddingsInput, EmbeddingsRequest};

    use super::*;

    fn exact() -> TokenCounter {
        TokenCounter::exact(64 * 1024).unwrap()
    }

    fn user(text: &str) -> ChatRequest {
        ChatRequest::new("gpt-5.2", [Message::user(text)])
    }

    /// Framing by OpenAI's cookbook: three a message and one for its role, three for the answer's beginning.
    #[test]
    fn text_is_counted_and_framed_as_openai_frames_it() {
        let estimate = exact().chat(&user("tiktoken is great!"), "gpt-5.2");
        assert_eq!((estimate.tokens, estimate.kind), (6 + 3 + 1 + 3, InputKind::Counted));
        let request =
            ChatRequest::new("gpt-5.2", [Message::system("hello world"), Message::user("hello world")]);
        assert_eq!(exact().chat(&request, "gpt-5.2").tokens, 2 * (2 + 3 + 1) + 3);
    }

    #[test]
    fn noise_and_foreign_scripts_are_no_longer_off_by_half() {
        let (hindi, by_bytes) = ("नमस्ते दुनिया, आप कैसे हैं? ".repeat(100), TokenCounter::by_bytes());
        let (exact, bytes) =
            (exact().chat(&user(&hindi), "gpt-5.2"), by_bytes.chat(&user(&hindi), "gpt-5.2"));
        assert!(exact.tokens * 3 / 2 < bytes.tokens, "{} and {}", exact.tokens, bytes.tokens);
    }

    #[test]
    fn media_and_tools_are_estimated_beside_it() {
        let image = ContentPart::image_url("https://e.com/x.png");
        let parts = vec![ContentPart::text("hello world"), image];
        let request = ChatRequest::new("gpt-5.2", [Message::user_parts(parts)]);
        let estimate = exact().chat(&request, "gpt-5.2");
        assert_eq!((estimate.tokens, estimate.kind), (1_000 + 2 + 7, InputKind::Media));
        let tool = Tool::function("look", "hello world", json!({"d": "x".repeat(3_500)}));
        let estimate = exact().chat(&user("hello world").tools([tool]), "gpt-5.2");
        assert!((1_010..1_040).contains(&estimate.tokens), "{}", estimate.tokens);
    }

    #[test]
    fn embeddings_and_responses_are_counted_too() {
        let request = EmbeddingsRequest::new("text-embedding-3-small", ["hello world", "tiktoken is great!"]);
        let estimate = exact().embeddings(&request, &request.model);
        assert_eq!((estimate.tokens, estimate.kind), (8, InputKind::Counted));
        let lists = EmbeddingsRequest { input: EmbeddingsInput::Tokens(vec![1; 7]), ..request };
        assert_eq!(TokenCounter::by_bytes().embeddings(&lists, "x").kind, InputKind::Counted);
        let estimate = exact().responses(&responses(json!("tiktoken is great!"), json!({})), "gpt-5.2");
        assert_eq!((estimate.tokens, estimate.kind), (9, InputKind::Counted));
    }

    #[test]
    fn models_whose_encoding_is_not_public_keep_the_estimate() {
        let request = user(&"hello world ".repeat(100));
        for model in ["claude-opus-5-5", "gemini-3-pro", "grok-5", "qwen3"] {
            let (exact, bytes) =
                (exact().chat(&request, model), TokenCounter::by_bytes().chat(&request, model));
            assert_eq!(exact, bytes, "{model}");
            assert_eq!(exact.kind, InputKind::Text);
        }
    }

    /// The limit is far above what a debug build takes, and far below what a megabyte merged as one piece would.
    #[test]
    fn a_megabyte_of_one_letter_is_estimated_at_once() {
        let counter = exact();
        for unit in ["a", " ", "!Ⓐ", "a\u{301}"] {
            let hostile = user(&unit.repeat(1_000_000 / unit.len()));
            #[allow(clippy::disallowed_methods, reason = "this test is about real time")]
            let start = std::time::Instant::now();
            let estimate = counter.chat(&hostile, "gpt-5.2");
            assert!(start.elapsed() < Duration::from_millis(50), "{:?} for {unit:?}", start.elapsed());
            assert_eq!(estimate, TokenCounter::by_bytes().chat(&hostile, "gpt-5.2"), "{unit:?}");
        }
    }

    #[test]
    fn what_the_guards_let_through_is_counted_quickly() {
        let counter = exact();
        for unit in
            ["a".repeat(4_000) + "!", " ".repeat(4_000) + "a", "中".repeat(1_300) + " ", "x1".repeat(2_000)]
        {
            let hostile = user(&unit.repeat(64_000 / unit.len()));
            #[allow(clippy::disallowed_methods, reason = "this test is about real time")]
            let start = std::time::Instant::now();
            let estimate = counter.chat(&hostile, "gpt-5.2");
            println!("{:?} for {} tokens", start.elapsed(), estimate.tokens);
            assert_eq!(estimate.kind, InputKind::Counted);
            assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
        }
    }
}
