//! Which provider serves a model, whether it reasons first, and what a request will cost.

#![allow(clippy::unwrap_used, reason = "a helper of tests may panic like a test")]

use omega_protocol::{
    ChatRequest, ContentPart, Dialect, EmbeddingsInput, EmbeddingsRequest, Message, ReasoningEffort,
    ResponsesRequest, Tool, estimate_embeddings_tokens, estimate_input_tokens, estimate_responses_tokens,
    reasons_first, route,
};
use serde_json::json;

#[test]
fn models_are_routed_by_prefix() {
    for (model, dialect) in [
        ("gpt-5.2", Dialect::OpenAi),
        ("GPT-6-Astra", Dialect::OpenAi),
        ("chatgpt-4o-latest", Dialect::OpenAi),
        ("o1", Dialect::OpenAi),
        ("o3-mini", Dialect::OpenAi),
        ("o4-mini-2025-04-16", Dialect::OpenAi),
        ("codex-mini-latest", Dialect::OpenAi),
        ("computer-use-preview", Dialect::OpenAi),
        ("text-embedding-3-small", Dialect::OpenAi),
        ("ft:gpt-4o:org::id", Dialect::OpenAi),
        ("ft:o4-mini:org::id", Dialect::OpenAi),
        ("claude-opus-5-5", Dialect::Anthropic),
        ("gemini-3.8-flash", Dialect::Google),
        ("models/gemini-2.5-pro", Dialect::Google),
        ("gemma-4-27b", Dialect::Google),
        ("learnlm-2.0", Dialect::Google),
        ("nano-banana", Dialect::Google),
        ("grok-4.5", Dialect::Grok),
    ] {
        let found = route(model).unwrap_or_else(|| panic!("{model} is unknown"));
        assert_eq!(found.dialect, dialect, "{model}");
        assert_eq!(found.model, model.trim_start_matches("models/"));
    }
}

#[test]
fn a_provider_in_front_decides_and_is_taken_off() {
    for (name, dialect, model) in [
        ("openai/gpt-oss-120b", Dialect::OpenAi, "gpt-oss-120b"),
        ("anthropic/claude-sonnet-5-5", Dialect::Anthropic, "claude-sonnet-5-5"),
        ("google/models/gemini-2.5-pro", Dialect::Google, "gemini-2.5-pro"),
        ("gemini/x", Dialect::Google, "x"),
        ("xai/grok-4.5", Dialect::Grok, "grok-4.5"),
        ("x-ai/grok-4.5", Dialect::Grok, "grok-4.5"),
        ("Grok/anything", Dialect::Grok, "anything"),
    ] {
        let found = route(name).unwrap();
        assert_eq!((found.dialect, found.model), (dialect, model), "{name}");
    }
}

#[test]
fn unknown_models_are_not_guessed() {
    for model in [
        "gpt-oss-120b",
        "llama-4",
        "o11",
        "o3x",
        "openai/",
        "mistral/large",
        "",
        "  ",
        "claude",
        "é",
        "qwen3",
    ] {
        assert_eq!(route(model), None, "{model}");
    }
}

#[test]
fn models_that_reason_first_are_known() {
    let plain = |model: &str| reasons_first(model, &ChatRequest::new(model, []));
    for model in [
        "gpt-5.2",
        "openai/gpt-6-sol",
        "o3",
        "gemini-2.5-pro",
        "gemini-3.8-flash",
        "grok-4.5",
        "grok-code-fast-1",
        "grok-4.20-reasoning",
        "grok-3-mini",
        "deepseek-r1",
        "qwen3-thinking",
        "gemini-pro-latest",
    ] {
        assert!(plain(model), "{model}");
    }
    for model in [
        "gpt-4o",
        "gpt-5.2-chat-latest",
        "claude-opus-5-5",
        "gemini-2.0-flash",
        "gemini-2.5-flash-lite",
        "grok-4.20-non-reasoning",
        "grok-3",
        "llama-4",
        "gemma-4-27b",
    ] {
        assert!(!plain(model), "{model}");
    }
}

#[test]
fn a_request_may_ask_for_more_or_less_reasoning() {
    let with =
        |model: &str, effort| reasons_first(model, &ChatRequest::new(model, []).reasoning_effort(effort));
    assert!(with("claude-opus-5-5", ReasoningEffort::High));
    assert!(!with("gpt-5.2", ReasoningEffort::None));
    assert!(!with("gpt-5.2", ReasoningEffort::Minimal));
    let thinking =
        |kind: &str| ChatRequest::new("claude-opus-5-5", []).extra("thinking", json!({"type": kind}));
    assert!(reasons_first("claude-opus-5-5", &thinking("adaptive")));
    assert!(!reasons_first("claude-opus-5-5", &thinking("disabled")));
    let unsaid = ChatRequest::new("claude-opus-5-5", []).extra("thinking", json!(null));
    assert!(!reasons_first("claude-opus-5-5", &unsaid), "null says nothing");
}

/// 4.1 to 4.5 bytes per token of `o200k_base`, measured: a little under 90 tokens.
const PROSE: &str = "The limiter settles with the usage the provider reports, so an estimate need not be exact. It must \
    be quick, it must not fall far below the truth, because then the provider refuses what we let through, and it must \
    not take a picture for a novel: an image of a megabyte is a thousand tokens and not three hundred thousand of them. \
    That is all there is to it.";

#[test]
fn prose_is_over_estimated_by_no_more_than_two_fifths() {
    let request = ChatRequest::new("gpt-5.2", [Message::user(PROSE.repeat(100))]);
    let truth_at_most = PROSE.len() as u64 * 100 * 10 / 41;
    let estimate = estimate_input_tokens(&request);
    assert!(
        estimate >= truth_at_most && estimate < truth_at_most * 14 / 10,
        "{estimate} for {truth_at_most}"
    );
}

#[test]
fn other_vendors_tokens_are_smaller() {
    let estimate =
        |model: &str| estimate_input_tokens(&ChatRequest::new(model, [Message::user(PROSE.repeat(100))]));
    assert!(estimate("claude-opus-5-5") > estimate("gpt-5.2") * 15 / 10);
    assert!(estimate("gemini-3.8-flash") > estimate("gpt-5.2") * 11 / 10);
}

#[test]
fn media_are_never_counted_as_text() {
    let image = ContentPart::image_url(format!("data:image/png;base64,{}", "A".repeat(1_000_000)));
    let request =
        ChatRequest::new("gpt-5.2", [Message::user_parts(vec![ContentPart::text("What is this?"), image])]);
    let estimate = estimate_input_tokens(&request);
    assert!((1_000..1_100).contains(&estimate), "{estimate}");

    let parts = json!([
        {"type": "input_audio", "input_audio": {"data": "A".repeat(650_000), "format": "mp3"}},
        {"type": "file", "file": {"file_data": format!("data:application/pdf;base64,{}", "A".repeat(100_000))}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "video", "video": {"url": "data:video/mp4;base64,AAAA"}},
    ]);
    let request = json!({"model": "gpt-5.2", "messages": [{"role": "user", "content": parts}]});
    let estimate = estimate_input_tokens(&serde_json::from_value(request).unwrap());
    assert!((5_000..5_100).contains(&estimate), "{estimate}");
}

#[test]
fn other_vendors_media_are_recognised_and_text_that_looks_like_media_is_text() {
    let of = |part: serde_json::Value| {
        let request = json!({"model": "gpt-5.2", "messages": [{"role": "user", "content": [part]}]});
        estimate_input_tokens(&serde_json::from_value(request).unwrap())
    };
    let base64 = "A".repeat(650_000);
    for (part, least, most) in [
        (
            json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": base64}}),
            1_000,
            1_020,
        ),
        (json!({"type": "image", "source": {"type": "url", "url": "https://e.com/x.png"}}), 1_000, 2_020),
        (json!({"type": "x", "inlineData": {"mimeType": "audio/mp3", "data": base64}}), 1_000, 1_020),
        (
            json!({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": base64}}),
            13_000,
            13_020,
        ),
        (
            json!({"type": "file", "file": {"file_data": format!("data:image/png;base64,{base64}")}}),
            1_000,
            1_020,
        ),
        (json!({"type": "x", "text": format!("data:image/png;base64,{base64}")}), 185_000, 190_000),
    ] {
        let estimate = of(part.clone());
        assert!((least..most).contains(&estimate), "{estimate} for {}", part["type"]);
    }
    let text = "data: 1, 2, 3\n".repeat(10_000);
    for input in [
        json!(text),
        json!([{"role": "user", "content": text}]),
        json!([{"type": "function_call_output", "output": text}]),
    ] {
        let mut request = ResponsesRequest::new("gpt-5.2", "");
        request.input = input;
        assert!(estimate_responses_tokens(&request) >= 40_000);
    }
    let mut request = ResponsesRequest::new("gpt-5.2", "");
    request.input = json!([{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": base64, "format": "mp3"}}]}]);
    assert!((1_000..1_050).contains(&estimate_responses_tokens(&request)));
}

#[test]
fn tools_schemas_and_earlier_calls_count() {
    let bare = estimate_input_tokens(&ChatRequest::new("gpt-5.2", [Message::user("Hi")]));
    let schema =
        json!({"type": "object", "properties": {"q": {"type": "string", "description": "x".repeat(350)}}});
    let tool = Tool::function("lookup", "Looks up", schema);
    let tools = estimate_input_tokens(&ChatRequest::new("gpt-5.2", [Message::user("Hi")]).tools([tool]));
    assert!(tools > bare + 110 && tools < bare + 160, "{bare} and {tools}");
}

#[test]
fn embeddings_and_responses_are_estimated_too() {
    let request = EmbeddingsRequest::new("text-embedding-3-small", ["x".repeat(350), "y".repeat(350)]);
    assert_eq!(estimate_embeddings_tokens(&request), 200);
    let tokens =
        EmbeddingsRequest { input: EmbeddingsInput::TokenLists(vec![vec![1; 7], vec![2; 5]]), ..request };
    assert_eq!(estimate_embeddings_tokens(&tokens), 12);

    let mut request = ResponsesRequest::new("gpt-5.2", "x".repeat(3_500));
    let text = estimate_responses_tokens(&request);
    assert!((1_000..1_010).contains(&text), "{text}");
    request.input = json!([{"role": "user", "content": [
        {"type": "input_text", "text": "x".repeat(3_500)},
        {"type": "input_image", "image_url": format!("data:image/png;base64,{}", "A".repeat(500_000))}]}]);
    let with_image = estimate_responses_tokens(&request);
    assert!((2_000..2_050).contains(&with_image), "{with_image}");
}

#[test]
fn the_routing_table_of_the_documentation_is_the_one_in_force() {
    let page = include_str!("../../../docs/providers.md");
    let table = page.split("| begins with | provider |").nth(1).expect("the page has the table");
    let rows: Vec<_> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    assert_eq!(rows.len(), 4);
    for row in rows {
        let (prefixes, provider) = row.trim_matches(['|', ' ']).rsplit_once('|').unwrap();
        for prefix in prefixes.split(',').map(|prefix| prefix.trim().trim_matches('`')) {
            let found = route(prefix).unwrap_or_else(|| panic!("{prefix} is in the table and unknown"));
            assert_eq!(found.dialect.to_string(), provider.trim(), "{prefix}");
        }
    }
}

#[test]
fn claude_takes_prefill_up_to_its_4_5_generation_and_nobody_else_is_known_to() {
    use omega_protocol::takes_prefill;
    for model in [
        "claude-3-haiku-20240307",
        "claude-sonnet-4",
        "claude-sonnet-4-20250514",
        "claude-opus-4-1-20250805",
        "claude-opus-4-5",
        "anthropic/claude-haiku-4-5-20251001",
    ] {
        assert!(takes_prefill(Dialect::Anthropic, model), "{model}");
    }
    for model in [
        "claude-opus-4-6",
        "claude-sonnet-4-6",
        "claude-opus-4-8",
        "claude-sonnet-5",
        "claude-opus-5-5",
        "claude-",
    ] {
        assert!(!takes_prefill(Dialect::Anthropic, model), "{model}");
    }
    assert!(!takes_prefill(Dialect::OpenAi, "gpt-5.2") && !takes_prefill(Dialect::Google, "gemini-2.5-pro"));
}
