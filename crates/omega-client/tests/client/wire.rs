//! Over real HTTP against the emulated providers: the same calls, with sockets in between.

use std::time::Duration;

use omega_client::{
    ChatCall, ChatRequest, Environment, ErrorKind, FileChoice, Message, Sources, UnifiedLLMClient,
};
use omega_emulator::{Emulator, EmulatorConfig};

use crate::support::assert_nothing_held;

const MODELS: [(&str, &str); 4] =
    [("openai", "gpt-5.2"), ("anthropic", "claude-opus-5-5"), ("google", "gemini-3-pro"), ("grok", "grok-5")];

async fn emulator() -> Emulator {
    Emulator::start(EmulatorConfig::default()).await.unwrap()
}

fn client(emulator: &Emulator) -> UnifiedLLMClient {
    let sources = Sources { file: FileChoice::None, environment: Environment::empty(), ..Sources::default() };
    let mut builder = UnifiedLLMClient::builder()
        .sources(sources)
        .setting("backoff.base_delay", "0.02")
        // Real time: waiting for quota would only make the test slow.
        .enable_rate_limiting(false);
    for (provider, _) in MODELS {
        builder = builder.api_key(provider, "k-test").base_url(provider, emulator.base_url(provider));
    }
    builder.build().unwrap()
}

fn request(model: &str) -> ChatRequest {
    ChatRequest::new(model, [Message::system("Be brief."), Message::user("Tell me about queues.")])
        .max_tokens(2_000)
}

#[tokio::test]
async fn all_four_providers_answer_whole_and_in_pieces_with_their_usage() {
    let emulator = emulator().await;
    let client = client(&emulator);
    for (provider, model) in MODELS {
        let answer = client.chat(request(model)).await.unwrap();
        assert_eq!(answer.provider, provider);
        let usage = answer.usage.as_ref().unwrap_or_else(|| panic!("{provider} reports usage"));
        assert!(usage.prompt_tokens > 0 && usage.completion_tokens > 0, "{provider}: {usage:?}");
        let mut stream = client.chat_stream(request(model)).await.unwrap();
        let mut said = String::new();
        while let Some(chunk) = stream.next().await {
            said.push_str(chunk.unwrap().text());
        }
        assert!(!said.is_empty());
        assert_eq!(said, answer.text(), "{provider}: the same question has the same answer both ways");
        assert_eq!(
            stream.usage().map(|usage| usage.output_tokens),
            Some(usage.completion_tokens),
            "{provider}"
        );
    }
    assert_nothing_held(&client);
}

#[tokio::test]
async fn connections_are_used_again_after_whole_answers_and_streams() {
    let emulator = emulator().await;
    let client = client(&emulator);
    for _ in 0..10 {
        client.chat(request("gpt-5.2")).await.unwrap();
        let mut stream = client.chat_stream(request("gpt-5.2")).await.unwrap();
        while let Some(chunk) = stream.next().await {
            chunk.unwrap();
        }
    }
    let pool = client.pool_stats().unwrap();
    let opened: u64 = pool.origins.iter().map(|origin| origin.opened_total).sum();
    assert_eq!((opened, pool.in_flight()), (1, 0), "{pool:?}");
}

#[tokio::test]
async fn faults_of_the_wire_are_retried_or_failed_over_and_never_answers() {
    let emulator = emulator().await;
    let client = client(&emulator);
    for fault in ["reset-before-headers", "cut-after:2", "end-after:2", "malformed-chunk:2", "server-error"] {
        let call = ChatCall::from(request(&format!("gpt-5.2+{fault}")))
            .timeout(Duration::from_secs(20))
            .max_attempts(1);
        let error = client.chat(call.clone()).await.unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::Transport | ErrorKind::StreamBroken | ErrorKind::Provider),
            "{fault}: {error}"
        );
        let answer = client.chat(call.fallbacks(["claude-opus-5-5"])).await.unwrap();
        assert_eq!(answer.provider, "anthropic", "{fault}");
        client.reset_circuit("openai").unwrap();
    }
    assert_nothing_held(&client);
}
