use std::time::Duration;

use omega_policy::{Call, Demand, LimiterConfig, ModelId, Pipeline, PipelineConfig, Timestamp, TokenLimits};
use tokio::sync::broadcast;

use super::*;
use crate::clock::SystemClock;

fn call(input_tokens: u64, now: Timestamp) -> Call {
    let demand = Demand { input_tokens, max_output_tokens: Some(0) };
    Call::new(ModelId::OTHER, demand, now + Duration::from_secs(60), now)
}

#[tokio::test(start_paused = true)]
async fn many_small_steps_forward_are_told_to_the_head() {
    let clock = Arc::new(SystemClock::new());
    let limiter = LimiterConfig {
        requests_per_minute: None,
        tokens: TokenLimits::Total(Some(6_000_000)), // 100 in a millisecond
        max_concurrent: None,
        burst: Duration::from_secs(6),
        depth_margin: Duration::ZERO,
        ..LimiterConfig::default()
    };
    let now = clock.now();
    let pipeline = Pipeline::new(PipelineConfig { limiter, ..PipelineConfig::default() }, now);
    let (subscribers, _) = broadcast::channel(1);
    let scope = Scope::new("provider", pipeline, Models::default(), clock.clone(), subscribers);
    let take = |input_tokens| match scope.admit(&call(input_tokens, now), None, now) {
        Decision::Granted(held) => held,
        _ => panic!("the bucket is full enough"),
    };

    let small: Vec<_> = (0..100).map(|_| take(90)).collect();
    let _rest = take(600_000 - 100 * 90);
    let Decision::Queued(place) = scope.admit(&call(100_000, now), None, now) else {
        panic!("nothing is left");
    };
    let waits = async { place.await.expect("its time comes").scope().clock.now().saturating_since(now) };
    // Polled after the waiter has looked. Each brings its moment forward by less than is worth a wake-up.
    let gives_back = async { drop(small) };
    let (waited, ()) = tokio::join!(waits, gives_back);
    assert!(waited <= Duration::from_millis(912), "{waited:?}, with quota for it after 910 ms");
}
