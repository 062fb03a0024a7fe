//! A primary that is down for a minute: served from the fallback, probed, and used again soon after it has recovered.

use std::time::Duration;

use omega_emulator::EmulatorConfig;
use omega_gateway::GatewayOptions;

use crate::house::{House, chat};

/// How many times faster than real time the outage passes.
const SCALE: f64 = 20.0;

#[tokio::test]
async fn a_primary_that_was_down_for_a_minute_is_used_again_within_thirty_seconds() {
    // The adaptive preset with its open periods as much shorter as the outage is.
    let scaled = |seconds: f64| seconds / SCALE;
    let defaults = omega_client::Config::load(&omega_client::Sources {
        file: omega_client::FileChoice::Text {
            name: "adaptive.yaml".into(),
            yaml: "preset: adaptive".into(),
        },
        ..omega_client::Sources::default()
    });
    let breaker = defaults.expect("a configuration").config.breaker;
    let yaml = format!(
        "
preset: adaptive
resilience: {{max_retries: 2}}
fallbacks: [claude-opus-5-5]
backoff: {{base_delay: 0.01, max_delay: 0.05}}
circuit_breaker: {{timeout_seconds: {}, max_open_seconds: {}}}
rate_limiting:
  openai: {{max_requests_per_minute: 1000000, max_tokens_per_minute: 1000000000, max_concurrent_requests: 1000}}
  anthropic: {{max_requests_per_minute: 1000000, max_tokens_per_minute: 1000000000, max_concurrent_requests: 1000}}
",
        scaled(breaker.timeout.as_secs_f64()),
        scaled(breaker.max_open.as_secs_f64()),
    );
    let config = EmulatorConfig { time_scale: SCALE, ..EmulatorConfig::default() };
    let house = House::with(config, &yaml, GatewayOptions::default()).await;
    let down_from = house.emulator.trace_seconds() + 10.0;
    let up_from = down_from + 60.0;
    house.scenario(&format!(
        "rules: [{{provider: openai, from_s: {down_from}, until_s: {up_from}, fault: server-error}}]"
    ));
    let (mut used_again, mut asked_while_down) = (None, 0_u32);
    while used_again.is_none() {
        let now = house.emulator.trace_seconds();
        assert!(now < up_from + 30.0, "30 s after its recovery the primary is still not used");
        let answer = house.post("/v1/chat/completions", chat("gpt-5.2", "hi")).await;
        assert_eq!(answer.status, 200, "at {now}: {}", answer.text());
        let by = answer.headers["x-omega-provider"].to_str().expect("text").to_owned();
        // Asked before the outage and answered in it, it may have been answered by either.
        let answered = house.emulator.trace_seconds();
        match (answered < down_from, now >= up_from) {
            (true, _) => assert_eq!(by, "openai", "at {now}"),
            (_, false) if now >= down_from => asked_while_down += 1,
            _ if by == "openai" && now >= up_from => used_again = Some(now - up_from),
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let tried = house
        .seen()
        .iter()
        .filter(|seen| seen.provider.name() == "openai" && seen.status == Some(500))
        .count();
    assert!(tried >= 5, "{tried}: it opened, and was probed");
    assert!(
        tried < asked_while_down as usize / 2,
        "{tried} of {asked_while_down}: while it was down it was left alone"
    );
}
