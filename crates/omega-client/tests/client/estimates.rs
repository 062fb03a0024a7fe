//! What is reserved for a call's input: an estimate, corrected by what this model's answers reported.

use std::sync::Arc;
use std::time::Duration;

use omega_client::{ChatRequest, Message, UnifiedLLMClient};

use crate::support::*;

/// 3,479 bytes are 994 tokens; the message and the answer's beginning make it 1,000.
fn request(model: &str) -> ChatRequest {
    ChatRequest::new(model, [Message::user("x".repeat(3_479))]).max_tokens(1)
}

fn reporting(input: u64) -> Reply {
    let steps =
        [openai::role(), openai::content("ok"), openai::finish(), openai::usage(input, 1), openai::done()];
    Reply::new(200, steps)
}

/// `answers` answers that report this input each, then silence.
fn reporting_upstream(input: u64, answers: usize) -> Arc<Upstream> {
    Upstream::new(move |_, at| if at < answers { reporting(input) } else { Reply::silence() })
}

/// The input tokens a call to this model takes from the quota of its provider before it is answered.
async fn reserved(client: &UnifiedLLMClient, provider: &str, model: &str) -> u64 {
    tokio::time::sleep(Duration::from_secs(120)).await; // what was used before has left the minute
    let call = {
        let (client, request) = (client.clone(), request(model));
        tokio::spawn(async move { client.chat(request).await })
    };
    tokio::task::yield_now().await;
    let tokens = client.resilience_stats().rate_limiters[provider].tokens_last_minute;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    let output = if provider == "openai" { 1 } else { 0 };
    tokens - output
}

#[tokio::test(start_paused = true)]
async fn a_reservation_follows_what_the_model_reported() {
    for (answers, expected) in [(0, 1_000), (1, 1_500), (3, 2_250), (8, 2_672)] {
        let client = client(&reporting_upstream(3_000, answers));
        for _ in 0..answers {
            client.chat(request("gpt-5.2")).await.unwrap();
        }
        assert_eq!(reserved(&client, "openai", "gpt-5.2").await, expected, "after {answers} answers");
        assert_nothing_held(&client);
    }
}

#[tokio::test(start_paused = true)]
async fn an_overestimated_model_gets_its_quota_back_before_the_call() {
    let client = client(&reporting_upstream(500, 20));
    for _ in 0..20 {
        client.chat(request("gpt-5.2")).await.unwrap();
    }
    let reserved = reserved(&client, "openai", "gpt-5.2").await;
    assert!((500..530).contains(&reserved), "{reserved}");
}

#[tokio::test(start_paused = true)]
async fn streams_teach_as_whole_answers_do() {
    let client = client(&reporting_upstream(3_000, 3));
    for _ in 0..3 {
        let mut stream = client.chat_stream(request("gpt-5.2")).await.unwrap();
        while let Some(item) = stream.next().await {
            item.unwrap();
        }
    }
    assert_eq!(reserved(&client, "openai", "gpt-5.2").await, 2_250);
}

#[tokio::test(start_paused = true)]
async fn each_model_and_each_provider_learns_for_itself() {
    let client = client(&reporting_upstream(3_000, 8));
    for _ in 0..8 {
        client.chat(request("gpt-5.2")).await.unwrap();
    }
    assert_eq!(reserved(&client, "openai", "gpt-4.1").await, 1_000);
    // Claude's tokens are smaller: 1.6 times as many of them.
    let claude = reserved(&client, "anthropic", "claude-opus-5-5").await;
    assert!((1_590..1_610).contains(&claude), "{claude}");
    assert_eq!(reserved(&client, "openai", "gpt-5.2").await, 2_672);
}

#[tokio::test(start_paused = true)]
async fn a_fallback_is_estimated_in_its_own_tokens() {
    let upstream = Upstream::by_provider(|provider, at| match (provider, at) {
        ("openai", at) if at < 3 => reporting(3_000),
        ("openai", _) => openai::insufficient_quota(),
        _ => Reply::silence(),
    });
    let yaml = "fallbacks: [claude-opus-5-5]";
    let client = configured(&upstream, yaml).build().unwrap();
    for _ in 0..3 {
        client.chat(request("gpt-5.2")).await.unwrap();
    }
    let call = {
        let client = client.clone();
        tokio::spawn(async move { client.chat(request("gpt-5.2")).await })
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    let tokens = client.resilience_stats().rate_limiters["anthropic"].tokens_last_minute;
    assert!((1_590..1_610).contains(&tokens), "{tokens}");
    call.abort();
}

#[tokio::test(start_paused = true)]
async fn cached_input_counts_as_input() {
    let usage = serde_json::json!({"input_tokens": 200, "cache_read_input_tokens": 4_000,
        "cache_creation_input_tokens": 600, "output_tokens": 1});
    let start = serde_json::json!({"type": "message_start", "message": {"id": "msg_1", "type": "message",
        "role": "assistant", "content": [], "model": "claude-opus-5-5", "stop_reason": null, "usage": usage}});
    let mut steps = vec![
        text(format!("event: message_start\ndata: {start}\n\n")),
        anthropic::block(),
        anthropic::content("ok"),
    ];
    steps.extend(anthropic::end());
    let reply = Reply::new(200, steps);
    let upstream = Upstream::new(move |_, at| if at < 1 { reply.clone() } else { Reply::silence() });
    let client = client(&upstream);
    client.chat(request("claude-opus-5-5")).await.unwrap();
    // 4,800 for about 1,600 is three times as many, of which the first answer counts for two.
    let reserved = reserved(&client, "anthropic", "claude-opus-5-5").await;
    assert!((2_380..2_410).contains(&reserved), "{reserved}");
}

#[tokio::test(start_paused = true)]
async fn answers_without_usage_failures_and_abandoned_streams_teach_nothing() {
    let silent =
        || Reply::new(200, [openai::role(), openai::content("ok"), openai::finish(), openai::done()]);
    let half =
        || Reply::new(200, [openai::role(), openai::content("ok"), openai::usage(9_000, 1), Step::Hang]);
    let upstream = Upstream::new(move |_, at| match at {
        0 => silent(),
        1 => openai::error(400, "invalid_request_error", "bad", "no"),
        2 => half(),
        _ => Reply::silence(),
    });
    let client = client(&upstream);
    client.chat(request("gpt-5.2")).await.unwrap();
    client.chat(request("gpt-5.2")).await.unwrap_err();
    let mut stream = client.chat_stream(request("gpt-5.2")).await.unwrap();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    assert_eq!(reserved(&client, "openai", "gpt-5.2").await, 1_000);
}

/// Its answers cost far more than a minute's quota; then they are what they were estimated to be. A call that would not
/// fit by experience, and does by its estimate, is still sent, and teaches the truth.
#[tokio::test(start_paused = true)]
async fn what_answers_once_cost_never_shuts_a_model_out() {
    let upstream = Upstream::new(|_, at| reporting(if at < 12 { 20_000 } else { 1_000 }));
    let yaml = "rate_limiting: {openai: {charge: actual, max_tokens_per_minute: 4000}}";
    let client = configured(&upstream, yaml).build().unwrap();
    let call = || async {
        tokio::time::sleep(Duration::from_secs(3_600)).await; // debts are paid
        client.chat(request("gpt-5.2")).await
    };
    for at in 0..30 {
        let answer = call().await;
        assert!(answer.is_ok(), "call {at}: {answer:?}");
    }
    let by_then = reserved(&client, "openai", "gpt-5.2").await;
    assert!((1_000..2_000).contains(&by_then), "{by_then}");
    // What does not even fit by its estimate is refused as ever.
    let error = client.chat("x".repeat(35_000)).await.unwrap_err();
    assert!(error.to_string().contains("no wait helps"), "{error}");
}

#[cfg(not(feature = "tokenizer"))]
#[test]
fn a_tokenizer_this_build_lacks_is_refused_with_the_way_to_get_it() {
    let upstream = Upstream::sequence([openai::answer("ok")]);
    let error = configured(&upstream, "estimates: {tokenizer: exact}").build().unwrap_err();
    assert_eq!(error.kind(), omega_client::ErrorKind::Config);
    assert_eq!(
        error.message(),
        "estimates.tokenizer: this build has no tokenizer: it was made without the cargo feature `tokenizer`; build \
         with `--features tokenizer`, or set it to `off` to estimate by bytes"
    );
}

#[cfg(feature = "tokenizer")]
#[tokio::test(start_paused = true)]
async fn with_the_tokenizer_text_is_counted_and_still_corrected() {
    let yaml = "estimates: {tokenizer: exact}";
    let client = configured(&reporting_upstream(0, 0), yaml).build().unwrap();
    let counted = reserved(&client, "openai", "gpt-5.2").await;
    assert!((430..450).contains(&counted), "{counted}: eight of the letter are one token");
    let claude = reserved(&client, "anthropic", "claude-opus-5-5").await;
    assert!((1_590..1_610).contains(&claude), "{claude}: by bytes, its encoding is not public");

    let client = configured(&reporting_upstream(2 * counted, 1), yaml).build().unwrap();
    client.chat(request("gpt-5.2")).await.unwrap();
    assert_eq!(reserved(&client, "openai", "gpt-5.2").await, counted * 3 / 2 + counted % 2);

    let yaml = "estimates: {tokenizer: exact, exact_bytes_max: 3478}";
    let client = configured(&reporting_upstream(0, 0), yaml).build().unwrap();
    assert_eq!(reserved(&client, "openai", "gpt-5.2").await, 1_000, "one byte too many");
}
