//! Names for models: the first of a list is asked, the rest are its first fallbacks.

use bytes::Bytes;
use omega_client::{
    CallerProtocol, ChatCall, ChatRequest, Counted, EmbeddingsCall, EmbeddingsRequest, ErrorKind, Message,
    RelayRequest,
};

use crate::support::*;

const NAMES: &str = "
resilience: {max_retries: 1}
aliases: {fast: [gpt-4.1, claude-haiku-4-5], smart: claude-opus-5-5, vectors: [text-embedding-3-large, gemini-embedding-001]}
";

fn models(upstream: &Upstream) -> Vec<String> {
    upstream.seen().iter().map(|seen| seen.body["model"].as_str().unwrap_or_default().to_owned()).collect()
}

fn named(model: &str) -> ChatRequest {
    ChatRequest::new(model, [Message::user("Hi")])
}

#[tokio::test(start_paused = true)]
async fn the_first_of_an_alias_is_asked_and_the_rest_before_other_fallbacks() {
    let upstream = Upstream::by_provider(|name, _| match name {
        "openai" => openai::server_error(),
        _ => anthropic::overloaded(),
    });
    let client = configured(&upstream, NAMES).build().unwrap();
    let call = ChatCall::new(named("fast")).fallbacks(["gpt-5.2", "smart"]);
    client.chat(call).await.unwrap_err();
    assert_eq!(models(&upstream), ["gpt-4.1", "claude-haiku-4-5", "gpt-5.2", "claude-opus-5-5"]);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_two_aliases_name_is_asked_once() {
    let upstream = Upstream::by_provider(|name, _| match name {
        "openai" => openai::server_error(),
        _ => anthropic::overloaded(),
    });
    let client = configured(&upstream, NAMES).build().unwrap();
    client.chat(ChatCall::new(named("fast")).fallbacks(["claude-haiku-4-5", "fast"])).await.unwrap_err();
    assert_eq!(models(&upstream), ["gpt-4.1", "claude-haiku-4-5"]);
}

#[tokio::test(start_paused = true)]
async fn an_alias_may_be_the_preferred_model_and_a_configured_fallback() {
    let upstream = Upstream::by_provider(|name, _| match name {
        "openai" => openai::server_error(),
        _ => anthropic::answer("from the fallback"),
    });
    let yaml = "{model: quick, resilience: {max_retries: 1}, fallbacks: [smart], aliases: {quick: gpt-4.1, smart: claude-opus-5-5}}";
    let client = configured(&upstream, yaml).build().unwrap();
    let answer = client.chat("Hi").await.unwrap();
    assert_eq!((answer.provider.as_str(), answer.model.as_str()), ("anthropic", "claude-opus-5-5"));
}

#[tokio::test(start_paused = true)]
async fn vectors_of_two_models_are_not_mixed_by_an_alias() {
    let upstream = Upstream::by_provider(|_, _| openai::server_error());
    let client = configured(&upstream, NAMES).google_api_key("a-key-for-google").build().unwrap();
    let request = || EmbeddingsRequest::new("vectors", ["Hi"]);
    client.embeddings(request()).await.unwrap_err();
    assert_eq!((upstream.asked("openai"), upstream.asked("google")), (1, 0));
    // Whoever names the other one for this very call gets it.
    client.embeddings(EmbeddingsCall::new(request()).fallbacks(["gemini-embedding-001"])).await.unwrap_err();
    assert_eq!((upstream.asked("openai"), upstream.asked("google")), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn an_alias_has_a_provider_and_its_tokens_are_counted_there() {
    let counted = Reply {
        headers: vec![("content-type", "application/json".into())],
        ..Reply::new(200, [text(r#"{"input_tokens":7}"#)])
    };
    let upstream = Upstream::sequence([counted]);
    let client = configured(&upstream, NAMES).build().unwrap();
    assert_eq!(client.provider_of("fast").as_deref(), Some("openai"));
    assert_eq!(client.provider_of("smart").as_deref(), Some("anthropic"));
    assert_eq!(client.provider_of("nobodys-model"), None);
    let body = r#"{"model":"smart","max_tokens":10,"messages":[{"role":"user","content":"Hi"}]}"#;
    let request = RelayRequest::read(CallerProtocol::Messages, Bytes::from_static(body.as_bytes())).unwrap();
    let said = client.count_tokens(request).await.unwrap();
    assert!(matches!(&said, Counted::Said(body) if body.ends_with(b":7}")), "{said:?}");
    assert_eq!(models(&upstream), ["claude-opus-5-5"]);
}

#[tokio::test(start_paused = true)]
async fn an_alias_of_a_model_that_nobody_serves_is_noticed_at_once() {
    let upstream = Upstream::sequence([openai::answer("ok")]);
    let error = configured(&upstream, "aliases: {odd: nobodys-model}").build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("nobodys-model"), "{error}");
}
