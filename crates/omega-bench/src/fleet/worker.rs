//! One process of the fleet: calls at random moments, as many as it was told, whatever becomes of them.

use std::time::{Duration, Instant};

use omega_client::{
    ChatCall, ChatRequest, ErrorKind, FileChoice, Message, Origin, Sources, UnifiedLLMClient,
};

use super::{MAX_TOKENS, MODEL, Met, Orders};

/// Carries out its orders.
///
/// # Errors
/// The client cannot be built.
#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock itself")]
pub async fn work(orders: &Orders) -> Result<Met, omega_client::Error> {
    let yaml = serde_json::json!({
        "state": orders.state,
        "rate_limiting": {"openai": {
            "max_requests_per_minute": orders.requests_per_minute,
            "max_tokens_per_minute": orders.requests_per_minute * 1_000,
            "max_concurrent_requests": 10_000,
            "burst_seconds": orders.burst_seconds,
            "max_wait_seconds": orders.max_wait_seconds,
        }},
        "providers": {"openai": {"base_url": orders.base_url}},
    });
    let file = FileChoice::Text { name: "fleet.yaml".into(), yaml: yaml.to_string() };
    let sources = Sources { file, ..Sources::default() };
    let client =
        UnifiedLLMClient::builder().sources(sources).openai_api_key("sk-fleet".to_owned()).build()?;
    let mut rng = fastrand::Rng::with_seed(orders.seed);
    let began = Instant::now();
    let end = began + Duration::from_secs_f64(orders.seconds);
    let mut next = began;
    let mut calls = tokio::task::JoinSet::new();
    loop {
        // Exponential gaps: arrivals that know nothing of each other.
        next += Duration::from_secs_f64(-(1.0 - rng.f64()).ln() / orders.rate);
        if next >= end {
            break;
        }
        tokio::time::sleep_until(next.into()).await;
        let client = client.clone();
        calls.spawn(async move {
            let sent = Instant::now();
            let request =
                ChatRequest::new(MODEL, [Message::user("Why is the sky blue?")]).max_tokens(MAX_TOKENS);
            let call = ChatCall::new(request).timeout(Duration::from_secs(120));
            let result = client.chat(call).await.map(drop);
            (result, sent.elapsed())
        });
    }
    let mut met = Met::default();
    while let Some(done) = calls.join_next().await {
        match done {
            Ok((Ok(()), took)) => {
                met.answered += 1;
                met.took_ms.push(took.as_secs_f64() * 1e3);
            }
            Ok((Err(error), _))
                if error.kind() == ErrorKind::RateLimited && error.origin() == Origin::Local =>
            {
                met.refused += 1;
            }
            Ok((Err(error), _)) => {
                met.failed += 1;
                met.failure = Some(error.to_string());
            }
            Err(error) => {
                met.failed += 1;
                met.failure = Some(error.to_string());
            }
        }
    }
    if let Some(shared) = &client.resilience_stats().details.providers["openai"].shared {
        (met.exchanges, met.lost) = (shared.exchanges_total, shared.lost_total);
    }
    Ok(met)
}
