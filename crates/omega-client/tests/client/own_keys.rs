//! A key that a caller brings: used where it is allowed and meant, sent nowhere else, shown to nobody.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use omega_client::{
    Builder, CallerProtocol, Environment, Error, ErrorKind, FileChoice, RelayRequest, Relayed, RelayedAnswer,
    Sources, UnifiedLLMClient,
};
use serde_json::{Value, json};

use crate::support::*;

const MINE: &str = "sk-MINE-and-nobody-elses";
const ON: &str = "gateway: {pass_through_keys: true}\nresilience: {max_retries: 1}\n";
const OURS: (&str, &str) = ("OPENAI_API_KEY", "sk-ours");
const OURS_TOO: (&str, &str) = ("ANTHROPIC_API_KEY", "sk-ant-ours");

fn with(upstream: &Arc<Upstream>, yaml: &str, pairs: &[(&str, &str)]) -> Builder {
    let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let environment = Environment::from_pairs(pairs);
    let sources = Sources { file: FileChoice::None, environment, ..Sources::default() };
    bare(upstream).sources(sources).config_text("test.yaml", yaml)
}

fn request(model: &str) -> RelayRequest {
    read(&json!({"model": model, "messages": [{"role": "user", "content": "Hi"}]}))
}

fn read(body: &Value) -> RelayRequest {
    let body = body.to_string();
    RelayRequest::read(CallerProtocol::ChatCompletions, Bytes::from(body)).unwrap()
}

fn own(model: &str) -> RelayRequest {
    request(model).credential(MINE.into())
}

async fn relayed(client: &UnifiedLLMClient, request: RelayRequest) -> Result<RelayedAnswer, Error> {
    client.relay(request).await.map(|relayed| match relayed {
        Relayed::Whole(answer) => answer,
        Relayed::Stream(_) => panic!("it was asked for whole"),
    })
}

fn openai_whole() -> Reply {
    let body = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_790_000_000, "model": "gpt-4.1",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}]
    });
    Reply {
        headers: vec![("content-type", "application/json".into())],
        ..Reply::new(200, [text(body.to_string())])
    }
}

/// OpenAI like this, Anthropic healthy.
fn upstream(others: fn() -> Reply) -> Arc<Upstream> {
    Upstream::by_provider(move |name, _| match name {
        "anthropic" => anthropic::answer("from the fallback"),
        _ => others(),
    })
}

/// Host and key of every request.
fn sent(upstream: &Upstream) -> Vec<(String, String)> {
    let seen = upstream.seen().into_iter();
    seen.map(|seen| (provider_of(&seen.host).to_owned(), seen.key.unwrap_or_default())).collect()
}

fn went(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(host, key)| ((*host).to_owned(), (*key).to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn it_takes_the_place_of_ours_and_makes_a_provider_callable_for_this_call() {
    for ours in [&[OURS][..], &[]] {
        let upstream = upstream(openai_whole);
        let client = with(&upstream, ON, ours).build().unwrap();
        relayed(&client, own("gpt-4.1")).await.unwrap();
        assert_eq!(sent(&upstream), went(&[("openai", MINE)]));
    }
    let upstream = upstream(openai_whole);
    let client = with(&upstream, ON, &[]).build().unwrap();
    let error = relayed(&client, request("gpt-4.1")).await.unwrap_err();
    assert_eq!((error.kind(), upstream.count()), (ErrorKind::Config, 0));
}

#[tokio::test(start_paused = true)]
async fn it_has_no_effect_unless_it_is_allowed() {
    let upstream = upstream(openai_whole);
    let client = with(&upstream, "{}", &[OURS]).build().unwrap();
    relayed(&client, own("gpt-4.1")).await.unwrap();
    assert_eq!(sent(&upstream), went(&[("openai", "sk-ours")]));
    let client = with(&upstream, "{}", &[]).build().unwrap();
    assert_eq!(relayed(&client, own("gpt-4.1")).await.unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test(start_paused = true)]
async fn a_fallback_gets_our_key_and_another_protocol_never_the_callers() {
    let upstream = upstream(openai::server_error);
    let yaml = format!("{ON}fallbacks: [claude-opus-5-5]\n");
    let client = with(&upstream, &yaml, &[OURS, OURS_TOO]).build().unwrap();
    assert_eq!(relayed(&client, own("gpt-4.1")).await.unwrap().provider, "anthropic");
    assert_eq!(sent(&upstream), went(&[("openai", MINE), ("anthropic", "sk-ant-ours")]));
    // The caller speaks OpenAI's protocol, and the model it asks for is Anthropic's.
    relayed(&client, own("claude-opus-5-5")).await.unwrap();
    assert_eq!(sent(&upstream)[2..], went(&[("anthropic", "sk-ant-ours")]));
    // A fallback that speaks the caller's protocol is still somebody else.
    let client =
        with(&upstream, &format!("{ON}fallbacks: [gpt-4.1]\n"), &[OURS, ("XAI_API_KEY", "xai-ours")]);
    relayed(&client.build().unwrap(), own("grok-5")).await.unwrap_err();
    assert_eq!(sent(&upstream)[3..], went(&[("grok", MINE), ("openai", "sk-ours")]));
}

#[tokio::test(start_paused = true)]
async fn a_server_gets_it_for_what_passes_untouched_and_not_for_what_is_translated() {
    let upstream = upstream(openai_whole);
    let yaml = format!(
        "{ON}providers: {{vllm: {{protocol: openai, base_url: 'http://vllm/v1', api_key_env: VLLM_KEY, models: [qwen3]}}}}\n"
    );
    let client = with(&upstream, &yaml, &[("VLLM_KEY", "vllm-ours")]).build().unwrap();
    relayed(&client, own("qwen3")).await.unwrap();
    // Few servers that speak like OpenAI have its Responses API, so that is made into a chat of ours.
    let body = json!({"model": "qwen3", "input": "Hi"}).to_string();
    let request = RelayRequest::read(CallerProtocol::Responses, Bytes::from(body)).unwrap();
    relayed(&client, request.credential(MINE.into())).await.unwrap();
    assert_eq!(sent(&upstream), went(&[("vllm", MINE), ("vllm", "vllm-ours")]));
}

#[tokio::test(start_paused = true)]
async fn it_is_used_at_the_provider_it_is_for_however_free_others_beside_it_are() {
    let yaml = format!(
        "{ON}providers: {{eu: {{protocol: openai, pool: openai, api_key_env: EU_KEY, base_url: 'http://eu/v1'}}}}\n\
         rate_limiting: {{openai: {{max_concurrent_requests: 1}}}}\n"
    );
    for ours in [&[OURS, ("EU_KEY", "sk-eu-key-22")][..], &[("EU_KEY", "sk-eu-key-22")]] {
        for seed in 0..8 {
            let upstream = upstream(|| openai_whole().after(Duration::from_secs(2)));
            let client = with(&upstream, &yaml, ours).seed(seed).build().unwrap();
            let (one, two) = tokio::join!(relayed(&client, own("gpt-4.1")), relayed(&client, own("gpt-4.1")));
            assert_eq!((one.unwrap().provider, two.unwrap().provider), ("openai".into(), "openai".into()));
            assert_eq!(sent(&upstream), went(&[("openai", MINE), ("openai", MINE)]));
            assert_nothing_held(&client);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn it_counts_tokens_where_it_may_go_and_nowhere_else() {
    fn counted() -> Reply {
        Reply {
            headers: vec![("content-type", "application/json".into())],
            ..Reply::new(200, [text(r#"{"input_tokens":7}"#)])
        }
    }
    let body = || {
        let body = json!({"model": "claude-opus-5-5", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]});
        let read = RelayRequest::read(CallerProtocol::Messages, Bytes::from(body.to_string())).unwrap();
        read.credential(MINE.into())
    };
    for (yaml, key) in [(ON, MINE), ("{}", "sk-ant-ours")] {
        let upstream = Upstream::by_provider(|_, _| counted());
        let client = with(&upstream, yaml, &[OURS_TOO]).build().unwrap();
        client.count_tokens(body()).await.unwrap();
        assert_eq!(sent(&upstream), went(&[("anthropic", key)]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_quotes_it_does_not_bring_it_into_errors_or_logs() {
    let log = Log::capture();
    let quoting = || {
        let said = format!("Incorrect API key provided: {MINE}");
        openai::error(401, "invalid_request_error", "invalid_api_key", &said)
    };
    let in_stream = || {
        let said = json!({"error": {"message": format!("no: {MINE}"), "type": "server_error", "code": null}});
        Reply::new(200, [openai::role(), openai::content("a"), text(format!("data: {said}\n\n"))])
    };
    let upstream = Upstream::new(move |seen, _| match seen.body["stream"] == true {
        true => in_stream(),
        false => quoting(),
    });
    let client = with(&upstream, ON, &[]).build().unwrap();
    let error = relayed(&client, own("gpt-4.1")).await.unwrap_err();
    let shown = format!("{error} {error:?} {:?} {:?}", error.attempts(), own("gpt-4.1"));
    assert!(shown.contains("Incorrect API key provided: [redacted]"), "{shown}");
    let body = json!({"model": "gpt-4.1", "stream": true, "messages": [{"role": "user", "content": "Hi"}]});
    let Relayed::Stream(mut stream) = client.relay(read(&body).credential(MINE.into())).await.unwrap() else {
        panic!("it was asked for as a stream");
    };
    let mut said = String::new();
    while let Some(bytes) = futures_util::StreamExt::next(&mut stream).await {
        said.push_str(std::str::from_utf8(&bytes).unwrap());
    }
    assert!(said.contains("[redacted]"), "{said}");
    let all = format!("{shown} {said} {stream:?} {client:?} {:?}", log.lines());
    assert!(!all.contains(MINE), "{all}");
    assert!(upstream.seen().iter().all(|seen| seen.key.as_deref() == Some(MINE)), "it was sent all the same");
}
