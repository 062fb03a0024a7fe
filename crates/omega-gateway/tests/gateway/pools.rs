//! Several keys or endpoints of one provider: the one with room is used, calls that a cache would serve alike stay
//! together, and a dead key costs nobody an answer.

use omega_client::Environment;
use omega_emulator::{Emulator, EmulatorConfig};
use omega_gateway::GatewayOptions;

use crate::house::{House, chat, sources};

/// A gateway with two keys for OpenAI, each with limits of its own.
async fn two(config: EmulatorConfig, limits: &str) -> (House, Emulator) {
    let emulator = Emulator::start(config).await.expect("an emulator");
    let url = emulator.base_url("openai");
    let yaml = format!(
        "
resilience: {{max_retries: 1}}
providers:
  openai: {{api_key_env: FIRST_KEY}}
  openai-2: {{pool: openai, base_url: '{url}', api_key_env: SECOND_KEY}}
rate_limiting:
  openai: {{{limits}}}
  openai-2: {{{limits}}}
"
    );
    let mut sources = sources(&emulator, &yaml);
    let pairs = [
        ("OMEGA_PROVIDERS_OPENAI_BASE_URL", url.as_str()),
        ("FIRST_KEY", "sk-first"),
        ("SECOND_KEY", "sk-second"),
    ];
    sources.environment = Environment::from_pairs(pairs);
    let options = GatewayOptions { sources: Some(sources), ..GatewayOptions::default() };
    (House::with(EmulatorConfig::default(), "", options).await, emulator)
}

const ROOMY: &str = "max_requests_per_minute: 100000, max_tokens_per_minute: 1000000000";

async fn by(house: &House, text: &str) -> String {
    let answer = house.post("/v1/chat/completions", chat("gpt-5.2", text)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.headers["x-omega-provider"].to_str().expect("text").to_owned()
}

#[tokio::test]
async fn calls_with_the_same_beginning_stay_together_and_others_spread() {
    let (house, _emulator) = two(EmulatorConfig::default(), ROOMY).await;
    let mut used = std::collections::BTreeSet::new();
    for conversation in 0..16 {
        let text = format!("conversation {conversation}");
        let first = by(&house, &text).await;
        for _ in 0..3 {
            assert_eq!(by(&house, &text).await, first, "{text}");
        }
        used.insert(first);
    }
    let used: Vec<&str> = used.iter().map(String::as_str).collect();
    assert_eq!(used, ["openai", "openai-2"]);
}

#[tokio::test]
async fn the_one_with_room_is_used_before_anybody_waits() {
    let limits = "max_requests_per_minute: 3, burst_seconds: 60, depth_margin_seconds: 0, max_tokens_per_minute: unlimited";
    let (house, _emulator) = two(EmulatorConfig::default(), limits).await;
    let mut counts = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..6 {
        *counts.entry(by(&house, "the same for all").await).or_default() += 1;
    }
    let counts: Vec<u32> = counts.into_values().collect();
    assert_eq!(counts, [3, 3], "all of both quotas, and nobody waited");
}

#[tokio::test]
async fn a_dead_key_costs_nobody_an_answer() {
    let mut config = EmulatorConfig::default();
    config.providers.openai.keys = vec!["sk-second".into()];
    let (house, _emulator) = two(config, ROOMY).await;
    for conversation in 0..16 {
        assert_eq!(by(&house, &format!("conversation {conversation}")).await, "openai-2");
    }
    let stats = house.get("/stats").await.json();
    assert!(stats["circuit_breakers"]["openai-2"].is_object(), "each is counted by itself");
}
