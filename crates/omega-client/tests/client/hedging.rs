//! A second request beside a slow one: when there is one, who wins, what becomes of the loser, what it may cost.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use omega_client::{
    AttemptOutcome, BreakerState, ChatCall, ChatRequest, ClientEvent, EmbeddingsCall, EmbeddingsRequest,
    ErrorKind, FailureKind, Message, ResponsesRequest, UnifiedLLMClient,
};
use tokio::time::Instant;

use crate::cancellation::Polls;
use crate::endpoints::streamed_response;
use crate::support::*;

/// Limits that never stand in the way, and a budget that never does.
const ON: &str = "
model: gpt-4.1
fallbacks: [claude-opus-5-5]
hedging: {enabled: true, percent: 100}
rate_limiting:
  openai: {max_requests_per_minute: unlimited, max_tokens_per_minute: unlimited, max_concurrent_requests: unlimited}
  anthropic: {max_requests_per_minute: unlimited, max_tokens_per_minute: unlimited, max_concurrent_requests: unlimited}
";

/// What is slow is known after this many answers; each of them takes a second to begin.
const ENOUGH: usize = 20;

/// OpenAI answers [`ENOUGH`] times after a second and then like `slow`; Anthropic like `other`.
fn upstream(
    slow: impl Fn(usize) -> Reply + Send + Sync + 'static,
    other: impl Fn(usize) -> Reply + Send + Sync + 'static,
) -> Arc<Upstream> {
    Upstream::by_provider(move |name, at| match name {
        "openai" if at < ENOUGH => openai::answer("usual").after(secs(1.0)),
        "openai" => slow(at - ENOUGH),
        _ => other(at),
    })
}

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn slow_openai(seconds: f64) -> impl Fn(usize) -> Reply {
    move |_| openai::answer("from the first").after(secs(seconds))
}

fn anthropic_after(seconds: f64) -> impl Fn(usize) -> Reply {
    move |_| anthropic::answer("from the hedge").after(secs(seconds))
}

async fn warm_up(client: &UnifiedLLMClient, calls: usize) {
    for _ in 0..calls {
        assert_eq!(client.chat("Hi").await.unwrap().text(), "usual");
    }
}

/// A client that knows what is slow.
async fn warm(upstream: &Arc<Upstream>, yaml: &str) -> UnifiedLLMClient {
    let client = configured(upstream, yaml).build().unwrap();
    warm_up(&client, ENOUGH).await;
    client
}

fn hedges(client: &UnifiedLLMClient) -> (u64, u64) {
    let calls = client.resilience_stats().details.calls;
    (calls.hedged, calls.hedges_won)
}

fn assert_breakers_unmoved(client: &UnifiedLLMClient) {
    let stats = client.resilience_stats();
    for (name, breaker) in &stats.circuit_breakers {
        assert_eq!((breaker.state, breaker.failure_count), (BreakerState::Closed, 0), "{name}");
        assert_eq!(stats.details.providers[name].transitions_total, 0, "{name}");
    }
}

fn story(attempts: &[omega_client::Attempt]) -> Vec<(&str, &str)> {
    let word = |outcome: &AttemptOutcome| match outcome {
        AttemptOutcome::Answered => "answered",
        AttemptOutcome::Cancelled => "cancelled",
        AttemptOutcome::Failed { .. } => "failed",
        AttemptOutcome::Refused { .. } => "refused",
        _ => "other",
    };
    attempts.iter().map(|attempt| (attempt.provider.as_str(), word(&attempt.outcome))).collect()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_hedged_unless_it_is_switched_on() {
    let upstream = upstream(slow_openai(8.0), anthropic_after(0.1));
    let client = warm(&upstream, "{model: gpt-4.1, fallbacks: [claude-opus-5-5]}").await;
    assert_eq!(client.chat("Hi").await.unwrap().text(), "from the first");
    assert_eq!((upstream.asked("anthropic"), hedges(&client)), (0, (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_slow_before_twenty_answers_are_known() {
    let upstream = upstream(slow_openai(8.0), anthropic_after(0.1));
    let client = configured(&upstream, ON).build().unwrap();
    warm_up(&client, ENOUGH - 1).await;
    // The twentieth takes as long as it likes.
    let slow = Upstream::by_provider(|_, _| openai::answer("late").after(secs(8.0)));
    let young = configured(&slow, ON).build().unwrap();
    assert_eq!(young.chat("Hi").await.unwrap().text(), "late");
    assert_eq!(slow.asked("anthropic"), 0);
    warm_up(&client, 1).await;
    assert_eq!(client.chat("Hi").await.unwrap().text(), "from the hedge");
}

#[tokio::test(start_paused = true)]
async fn the_hedge_goes_out_at_the_95th_percentile_and_wins() {
    let log = Log::capture();
    let upstream = upstream(slow_openai(8.0), anthropic_after(0.5));
    let client = warm(&upstream, ON).await;
    let mut events = client.subscribe();
    let start = Instant::now();
    let answer = client.chat("Hi").await.unwrap();
    assert_eq!((answer.text(), answer.provider.as_str()), ("from the hedge", "anthropic"));
    assert_eq!(answer.model, "claude-opus-5-5");
    let times = upstream.times(start);
    assert!((times[ENOUGH + 1] - 1.0).abs() < 0.01, "{}", times[ENOUGH + 1]);
    assert!((start.elapsed().as_secs_f64() - 1.5).abs() < 0.01, "{:?}", start.elapsed());
    assert_eq!(story(&answer.attempts), [("openai", "cancelled"), ("anthropic", "answered")]);
    assert!(answer.attempts.iter().all(omega_client::Attempt::was_sent));
    assert_eq!(answer.attempts[1].started.as_secs(), 1);

    assert_nothing_held(&client);
    assert_breakers_unmoved(&client);
    let stats = client.resilience_stats();
    assert_eq!(hedges(&client), (1, 1));
    assert_eq!(stats.details.providers["openai"].cancelled_total, 1);
    assert_eq!(stats.rate_limiters["openai"].requests_last_minute, ENOUGH as u64 + 1, "it stays charged");
    assert!(
        log.has("openai has not begun to answer after 1.00s; anthropic (claude-opus-5-5) is asked as well")
    );
    assert!(log.has("anthropic answers in the place of openai"), "{:?}", log.lines());
    let told: Vec<_> = std::iter::from_fn(|| events.try_next().unwrap()).collect();
    let [ClientEvent::Hedged { from, to, waited, .. }, ClientEvent::HedgeWon { .. }] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!((from.as_str(), to.as_str(), waited.as_secs()), ("openai", "anthropic", 1));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_begins_in_time_is_not_hedged() {
    let upstream = upstream(slow_openai(1.0), anthropic_after(0.1));
    let client = warm(&upstream, ON).await;
    assert_eq!(client.chat("Hi").await.unwrap().text(), "from the first");
    assert_eq!((upstream.asked("anthropic"), hedges(&client)), (0, (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn the_losers_slot_goes_to_the_next_in_the_queue() {
    // The hedge begins after half a second and goes on for three.
    let other = |_| {
        let steps = [anthropic::start(), anthropic::block(), anthropic::content("from the hedge"), wait(3.0)];
        Reply::new(200, steps.into_iter().chain(anthropic::end())).after(secs(0.5))
    };
    let upstream = upstream(slow_openai(8.0), other);
    let yaml = ON.replace(
        "max_concurrent_requests: unlimited}\n  anthropic",
        "max_concurrent_requests: 1}\n  anthropic",
    );
    let client = warm(&upstream, &yaml).await;
    let start = Instant::now();
    let waiter = async {
        tokio::time::sleep(secs(0.1)).await;
        client.chat(ChatCall::from("Hi").fallbacks([""; 0])).await.map(|answer| answer.queued)
    };
    let (hedged, queued) = tokio::join!(client.chat("Hi"), waiter);
    assert_eq!(hedged.unwrap().provider, "anthropic");
    let queued = queued.unwrap().as_secs_f64();
    assert!((queued - 1.4).abs() < 0.01, "the slot was free when the hedge began: {queued}");
    assert!((start.elapsed().as_secs_f64() - 9.5).abs() < 0.1);
    assert_nothing_held(&client);
    assert_breakers_unmoved(&client);
}

#[tokio::test(start_paused = true)]
async fn the_first_wins_when_it_begins_first_and_the_hedge_is_left_at_once() {
    // It begins after 1.5 s and goes on for five; the hedge would begin after 2 s.
    let slow = |_| {
        let steps = [openai::role(), openai::content("from "), wait(5.0), openai::content("the first")];
        let end = [openai::finish(), openai::usage(10, 5), openai::done()];
        Reply::new(200, steps.into_iter().chain(end)).after(secs(1.5))
    };
    let upstream = upstream(slow, anthropic_after(1.0));
    let client = warm(&upstream, ON).await;
    let watched = async {
        tokio::time::sleep(secs(1.4)).await;
        let during = client.resilience_stats().details.providers["anthropic"].permits_in_flight;
        tokio::time::sleep(secs(0.2)).await;
        (during, client.resilience_stats().details.providers["anthropic"].permits_in_flight)
    };
    let (answer, permits) = tokio::join!(client.chat("Hi"), watched);
    let answer = answer.unwrap();
    assert_eq!((answer.text(), answer.provider.as_str()), ("from the first", "openai"));
    assert_eq!(permits, (1, 0));
    assert_eq!(story(&answer.attempts), [("anthropic", "cancelled"), ("openai", "answered")]);
    assert_eq!((upstream.asked("openai"), upstream.asked("anthropic")), (ENOUGH + 1, 1));
    assert_eq!(hedges(&client), (1, 0));
    assert_eq!(
        client.resilience_stats().rate_limiters["anthropic"].requests_last_minute,
        1,
        "it stays charged"
    );
    assert_nothing_held(&client);
    assert_breakers_unmoved(&client);
}

#[tokio::test(start_paused = true)]
async fn when_the_first_fails_the_hedge_goes_on_alone() {
    let upstream = upstream(|_| openai::server_error().after(secs(1.5)), anthropic_after(2.0));
    let client = warm(&upstream, ON).await;
    let start = Instant::now();
    let answer = client.chat("Hi").await.unwrap();
    assert_eq!(answer.text(), "from the hedge");
    assert!((start.elapsed().as_secs_f64() - 3.0).abs() < 0.01, "{:?}", start.elapsed());
    assert_eq!(story(&answer.attempts), [("openai", "failed"), ("anthropic", "answered")]);
    assert_eq!(client.resilience_stats().circuit_breakers["openai"].failure_count, 1);
    assert_eq!((upstream.asked("openai"), hedges(&client)), (ENOUGH + 1, (1, 1)));
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn when_the_hedge_fails_the_first_goes_on_alone() {
    let upstream = upstream(slow_openai(4.0), |_| anthropic::overloaded());
    let client = warm(&upstream, ON).await;
    let start = Instant::now();
    let answer = client.chat("Hi").await.unwrap();
    assert_eq!(answer.text(), "from the first");
    assert!((start.elapsed().as_secs_f64() - 4.0).abs() < 0.01, "{:?}", start.elapsed());
    assert_eq!(story(&answer.attempts), [("anthropic", "failed"), ("openai", "answered")]);
    let stats = client.resilience_stats();
    assert_eq!(stats.circuit_breakers["anthropic"].failure_count, 1);
    assert_eq!(stats.details.providers["anthropic"].retries_total, 0);
    assert_eq!((upstream.asked("anthropic"), hedges(&client)), (1, (1, 0)));
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn when_both_fail_the_first_is_retried_as_ever_and_not_hedged_again() {
    let slow = |at| match at {
        0 => openai::server_error().after(secs(1.5)),
        _ => openai::answer("second try").after(secs(5.0)),
    };
    let upstream = upstream(slow, |_| anthropic::overloaded().after(secs(2.0)));
    let client = warm(&upstream, ON).await;
    let answer = client.chat("Hi").await.unwrap();
    assert_eq!(answer.text(), "second try");
    let expected = [("openai", "failed"), ("anthropic", "failed"), ("openai", "answered")];
    assert_eq!(story(&answer.attempts), expected);
    assert_eq!((upstream.asked("anthropic"), hedges(&client)), (1, (1, 0)));
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn when_everything_fails_the_fallback_is_asked_as_ever() {
    let upstream = upstream(
        |_| openai::server_error().after(secs(1.5)),
        |at| match at {
            0 => anthropic::overloaded(),
            _ => anthropic::answer("from the fallback"),
        },
    );
    let client = warm(&upstream, ON).await;
    let answer = client.chat("Hi").await.unwrap();
    assert_eq!((answer.text(), upstream.asked("openai")), ("from the fallback", ENOUGH + 3));
    assert_eq!(client.resilience_stats().details.providers["openai"].failed_over_total, 1);
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_failed_for_good_is_not_asked_again_as_a_fallback() {
    let unauthorized = |_| {
        let body =
            serde_json::json!({"type": "error", "error": {"type": "authentication_error", "message": "no"}});
        Reply::error(401, &body)
    };
    let upstream = upstream(|_| openai::server_error().after(secs(1.5)), unauthorized);
    let client = warm(&upstream, ON).await;
    let error = client.chat("Hi").await.unwrap_err();
    assert_eq!((upstream.asked("openai"), upstream.asked("anthropic")), (ENOUGH + 3, 1));
    assert!(error.to_string().contains("also: anthropic"), "{error}");
    assert_eq!(error.provider(), Some("openai"), "the model that was asked for explains more");
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_else_may_answer_is_not_answered_by_a_hedge() {
    let wrong =
        |_| openai::error(400, "invalid_request_error", "bad", "`temperature` is too high").after(secs(1.5));
    let upstream = upstream(wrong, anthropic_after(3.0));
    let client = warm(&upstream, ON).await;
    let start = Instant::now();
    let error = client.chat("Hi").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!((start.elapsed().as_secs_f64() - 1.5).abs() < 0.01, "{:?}", start.elapsed());
    assert_eq!(story(error.attempts()), [("openai", "failed"), ("anthropic", "cancelled")]);
    assert_nothing_held(&client);
    assert_breakers_unmoved(&client);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_breaks_after_it_was_first_costs_the_call_nothing_but_time() {
    let broken = |at| match at {
        0 => Reply::new(
            200,
            [anthropic::start(), anthropic::block(), anthropic::content("half"), wait(0.5), Step::Break],
        ),
        _ => anthropic::answer("not needed"),
    };
    let slow = |at| match at {
        0 => openai::answer("too late").after(secs(8.0)),
        _ => openai::answer("asked again"),
    };
    let upstream = upstream(slow, broken);
    let client = warm(&upstream, ON).await;
    let answer = client.chat("Hi").await.unwrap();
    assert_eq!(answer.text(), "asked again");
    let expected = [("openai", "cancelled"), ("anthropic", "failed"), ("openai", "answered")];
    assert_eq!(story(&answer.attempts), expected);
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_slow_calls_start_twenty_hedges() {
    let upstream = upstream(slow_openai(25.0), anthropic_after(0.5));
    let yaml = ON.replace("percent: 100", "percent: 2") + "streaming: {learned_first_content: false}\n";
    let client = warm(&upstream, &yaml).await;
    let calls = (0..1_000).map(|at| {
        let client = client.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(20) * at).await;
            client.chat("Hi").await.unwrap();
        }
    });
    join_all(calls).await;
    assert_eq!((hedges(&client), upstream.asked("anthropic")), ((20, 20), 20));
    assert_nothing_held(&client);
    assert_breakers_unmoved(&client);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_slow_calls_at_once_start_five() {
    let upstream = upstream(slow_openai(8.0), anthropic_after(0.5));
    let client = warm(&upstream, &ON.replace("percent: 100", "percent: 2")).await;
    join_all((0..1_000).map(|_| async { client.chat("Hi").await.unwrap() })).await;
    assert_eq!(hedges(&client), (5, 5));
}

#[tokio::test(start_paused = true)]
async fn what_is_slow_does_not_shrink_when_the_slowest_are_never_answered() {
    // First contents after 0.2 to 0.4 s, and one in fifty after 8 s. Were those that are left not counted, each hedge
    // would lower the percentile, and the lower percentile start more of them.
    let slow = |at: usize| {
        let usual = 0.2 + 0.002 * ((at * 7_919) % 100) as f64;
        openai::answer("x").after(secs(if at.is_multiple_of(50) { 8.0 } else { usual }))
    };
    let upstream = upstream(slow, anthropic_after(0.001));
    let client = warm(&upstream, ON).await;
    for _ in 0..2_000 {
        client.chat("Hi").await.unwrap();
    }
    let (hedged, _) = hedges(&client);
    assert!((60..=140).contains(&hedged), "{hedged} of 2,000 were slow, which should be about one in twenty");
}

#[tokio::test(start_paused = true)]
async fn no_hedge_waits_in_a_queue() {
    let upstream = upstream(slow_openai(4.0), anthropic_after(100.0));
    // Twenty calls have earned one hedge.
    let yaml = ON.replace("percent: 100", "percent: 5").replace(
        "anthropic: {max_requests_per_minute: unlimited, max_tokens_per_minute: unlimited, max_concurrent_requests: unlimited}",
        "anthropic: {max_concurrent_requests: 1}",
    );
    let client = warm(&upstream, &yaml).await;
    let busy = {
        let client = client.clone();
        let request = ChatRequest::new("claude-opus-5-5", [Message::user("Hi")]);
        tokio::spawn(async move { client.chat(ChatCall::new(request).fallbacks([""; 0])).await })
    };
    tokio::task::yield_now().await;
    assert_eq!(client.chat("Hi").await.unwrap().text(), "from the first");
    assert_eq!((upstream.asked("anthropic"), hedges(&client)), (1, (0, 0)));
    let anthropic = &client.resilience_stats().details.providers["anthropic"];
    assert_eq!((anthropic.queued, anthropic.queued_total), (0, 0));
    busy.abort();
    let _ = busy.await;
    assert_nothing_held(&client);
    // The hedge that was not started is still in hand.
    let hedged = tokio::time::timeout(secs(2.0), client.chat("Hi")).await;
    assert!(hedged.is_err());
    assert_eq!(hedges(&client), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn no_hedge_goes_to_a_circuit_that_is_open_or_to_be_tested() {
    let upstream = upstream(slow_openai(4.0), |at| match at {
        0 => anthropic::overloaded(),
        _ => anthropic::answer("recovered"),
    });
    let yaml = format!("{ON}circuit_breaker: {{failure_threshold: 1, success_threshold: 1}}\n");
    let client = configured(&upstream, &yaml).max_retries(1).build().unwrap();
    warm_up(&client, ENOUGH).await;
    let claude =
        || ChatCall::new(ChatRequest::new("claude-opus-5-5", [Message::user("Hi")])).fallbacks([""; 0]);
    client.chat(claude()).await.unwrap_err();
    for wait in [0, 61] {
        tokio::time::sleep(Duration::from_secs(wait)).await;
        assert_eq!(client.chat("Hi").await.unwrap().text(), "from the first");
    }
    assert_eq!((upstream.asked("anthropic"), hedges(&client)), (1, (0, 0)));
    client.chat(claude()).await.unwrap();
    // Recovered, it may help again; what is slow has moved in between.
    assert_eq!(client.resilience_stats().circuit_breakers["anthropic"].state, BreakerState::Closed);
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn another_model_of_the_same_provider_is_no_hedge() {
    let upstream = upstream(slow_openai(8.0), anthropic_after(0.1));
    let client = warm(&upstream, &ON.replace("[claude-opus-5-5]", "[gpt-5.2]")).await;
    assert_eq!(client.chat("Hi").await.unwrap().text(), "from the first");
    assert_eq!((upstream.asked("openai"), hedges(&client)), (ENOUGH + 1, (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn a_target_without_a_key_is_no_hedge_and_the_next_one_is() {
    let upstream = upstream(slow_openai(8.0), anthropic_after(0.1));
    let client = warm(&upstream, &ON.replace("[claude", "[gemini-3.5-flash, claude")).await;
    let answer = client.chat("Hi").await.unwrap();
    assert_eq!(story(&answer.attempts), [("openai", "cancelled"), ("anthropic", "answered")]);
}

#[tokio::test(start_paused = true)]
async fn a_whole_answer_that_is_not_streamed_is_not_slow() {
    let whole = || {
        let body = serde_json::json!({
            "id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4.1",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        });
        Reply::error(200, &body).after(secs(8.0))
    };
    let upstream = upstream(move |_| whole(), anthropic_after(0.1));
    let client =
        configured(&upstream, &format!("{ON}streaming: {{guard_whole_answers: false}}\n")).build().unwrap();
    for _ in 0..ENOUGH {
        let mut stream = client.chat_stream("Hi").await.unwrap();
        while let Some(chunk) = stream.next().await {
            chunk.unwrap();
        }
    }
    assert_eq!(client.chat("Hi").await.unwrap().text(), "whole");
    assert_eq!(hedges(&client), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn vectors_are_not_hedged() {
    let vectors = |model: &str, seconds| {
        let body = serde_json::json!({
            "object": "list", "model": model, "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
            "usage": {"prompt_tokens": 1, "total_tokens": 1}
        });
        Reply::error(200, &body).after(secs(seconds))
    };
    let upstream = Upstream::by_provider(move |_, at| vectors("m", if at < ENOUGH { 1.0 } else { 8.0 }));
    let client = configured(&upstream, ON).google_api_key("k").build().unwrap();
    for _ in 0..=ENOUGH {
        let request = EmbeddingsRequest::new("text-embedding-3-small", ["Hi"]);
        client.embeddings(EmbeddingsCall::new(request).fallbacks(["gemini-embedding-001"])).await.unwrap();
    }
    assert_eq!((upstream.count(), hedges(&client)), (ENOUGH + 1, (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn a_hedge_has_the_clocks_of_its_own_target() {
    let upstream = upstream(slow_openai(6.0), |_| Reply::silence());
    let yaml = format!("{ON}providers: {{anthropic: {{streaming: {{first_byte_seconds: 2}}}}}}\n");
    let client = warm(&upstream, &yaml).await;
    let answer = client.chat("Hi").await.unwrap();
    assert_eq!(story(&answer.attempts), [("anthropic", "failed"), ("openai", "answered")]);
    assert_eq!(answer.attempts[0].elapsed.as_secs_f64().round() as u64, 2);
    let silent = AttemptOutcome::Failed {
        kind: FailureKind::Timeout,
        status: None,
        code: None,
        message: "no first byte within 2 s".into(),
    };
    assert_eq!(answer.attempts[0].outcome, silent);
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_is_estimated_in_its_own_tokens_and_only_the_winner_teaches() {
    // 1,000 tokens of OpenAI's by their bytes, which cost 3,000; 1,600 of Claude's, which cost 4,800.
    let usual = || {
        let steps = [openai::role(), openai::content("usual"), openai::finish(), openai::usage(3_000, 1)];
        Reply::new(200, steps.into_iter().chain([openai::done()])).after(secs(1.0))
    };
    let won = || {
        let start = serde_json::json!({"type": "message_start", "message": {"id": "msg_1", "type": "message",
            "role": "assistant", "content": [], "model": "claude-opus-5-5",
            "usage": {"input_tokens": 4_800, "output_tokens": 1}}});
        let start = text(format!("event: message_start\ndata: {start}\n\n"));
        let steps = [start, anthropic::block(), anthropic::content("from the hedge")];
        Reply::new(200, steps.into_iter().chain(anthropic::end())).after(secs(0.5))
    };
    let upstream = Upstream::by_provider(move |name, at| match (name, at) {
        ("openai", at) if at < ENOUGH => usual(),
        ("anthropic", 0) => won(),
        _ => Reply::silence(),
    });
    let client = configured(&upstream, ON).build().unwrap();
    let call = || client.chat(ChatRequest::new("gpt-4.1", [Message::user("x".repeat(3_479))]).max_tokens(1));
    for _ in 0..ENOUGH {
        call().await.unwrap();
    }
    // What both have taken from their quotas while both fly.
    let reserved = || async {
        tokio::time::sleep(secs(1.2)).await;
        let tokens = |name| client.resilience_stats().rate_limiters[name].tokens_last_minute;
        (tokens("openai"), tokens("anthropic"))
    };
    tokio::time::sleep(secs(120.0)).await; // what was used before has left the minute
    let (answer, first) = tokio::join!(call(), reserved());
    assert_eq!(answer.unwrap().text(), "from the hedge");
    assert!((2_900..3_000).contains(&first.0), "{first:?}: as twenty answers taught");
    assert!((1_590..1_610).contains(&first.1), "{first:?}: nothing of another model's experience");

    tokio::time::sleep(secs(120.0)).await;
    let second = tokio::select! {
        biased;
        answer = call() => panic!("{answer:?}"),
        second = reserved() => second,
    };
    assert_eq!(second.0, first.0, "the one that was left has taught nothing");
    assert!((2_380..2_410).contains(&second.1), "{second:?}: as the hedge's answer taught");
    assert_eq!(hedges(&client), (2, 1));
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_both() {
    let upstream = upstream(|_| Reply::silence(), |_| Reply::silence());
    let client = warm(&upstream, ON).await;
    let start = Instant::now();
    let error = client.chat(ChatCall::from("Hi").timeout(secs(3.0))).await.unwrap_err();
    assert_eq!((error.kind(), error.provider()), (ErrorKind::Deadline, Some("openai")));
    assert!((start.elapsed().as_secs_f64() - 3.0).abs() < 0.01, "{:?}", start.elapsed());
    assert_eq!(story(error.attempts()), [("openai", "failed"), ("anthropic", "failed")]);
    assert_nothing_held(&client);
    assert_breakers_unmoved(&client);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_hedged_until_its_content_begins() {
    let upstream = upstream(slow_openai(8.0), anthropic_after(0.5));
    let client = warm(&upstream, ON).await;
    let start = Instant::now();
    let mut stream = client.chat_stream("Hi").await.unwrap();
    assert!((start.elapsed().as_secs_f64() - 1.5).abs() < 0.01, "{:?}", start.elapsed());
    assert_eq!((stream.provider(), stream.model()), ("anthropic", "claude-opus-5-5"));
    assert_eq!(story(stream.attempts()), [("openai", "cancelled"), ("anthropic", "answered")]);
    let openai = &client.resilience_stats().details.providers["openai"];
    assert_eq!(openai.permits_in_flight, 0, "the loser is gone before the winner is read");
    let mut said = String::new();
    while let Some(chunk) = stream.next().await {
        said.push_str(chunk.unwrap().text());
    }
    assert_eq!(said, "from the hedge");
    assert_nothing_held(&client);
    assert_breakers_unmoved(&client);
}

#[tokio::test(start_paused = true)]
async fn responses_are_hedged_as_chats_are() {
    let upstream = Upstream::by_provider(|name, at| {
        let seconds = if name == "openai" && at >= ENOUGH { 8.0 } else { 1.0 };
        Reply::new(200, streamed_response()).after(secs(seconds))
    });
    let yaml = ON.replace("claude-opus-5-5", "grok-4.6");
    let client = configured(&upstream, &yaml).grok_api_key("k").build().unwrap();
    for _ in 0..ENOUGH {
        client.responses(ResponsesRequest::new("gpt-4.1", "Hi")).await.unwrap();
    }
    let whole = client.responses(ResponsesRequest::new("gpt-4.1", "Hi")).await.unwrap();
    assert_eq!((whole.text().as_str(), whole.provider.as_str()), ("Hello", "grok"));
    let mut stream = client.responses_stream(ResponsesRequest::new("gpt-4.1", "Hi")).await.unwrap();
    assert_eq!((stream.provider(), hedges(&client)), ("grok", (2, 2)));
    while let Some(event) = stream.next().await {
        event.unwrap();
    }
    assert_nothing_held(&client);
    assert_breakers_unmoved(&client);
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_content_has_begun_is_not_hedged() {
    let slow = |_| {
        let steps = [openai::role(), openai::content("slowly"), wait(20.0), openai::finish(), openai::done()];
        Reply::new(200, steps).after(secs(0.5))
    };
    let upstream = upstream(slow, anthropic_after(0.1));
    let client = warm(&upstream, ON).await;
    assert_eq!(client.chat("Hi").await.unwrap().text(), "slowly");
    let mut stream = client.chat_stream("Hi").await.unwrap();
    while let Some(chunk) = stream.next().await {
        chunk.unwrap();
    }
    assert_eq!((upstream.asked("anthropic"), hedges(&client)), (0, (0, 0)));
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn a_hedged_stream_that_is_dropped_leaves_nothing() {
    let slow = |_| anthropic::content("never ends");
    let endless = move |at| Reply::new(200, [anthropic::start(), anthropic::block(), slow(at), Step::Hang]);
    let upstream = upstream(slow_openai(8.0), endless);
    let client = warm(&upstream, ON).await;
    let mut stream = client.chat_stream("Hi").await.unwrap();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    assert_nothing_held(&client);
    assert_breakers_unmoved(&client);
}

/// A hedge in every state: both silent, one failed, the other one begun, broken, a backoff, the first again.
fn eventful() -> Arc<Upstream> {
    let slow = |at| match at {
        0 => Reply::new(500, [wait(0.2), text("{}")]).after(secs(1.5)),
        _ => Reply::new(
            200,
            [
                openai::role(),
                openai::content("a"),
                wait(0.2),
                openai::content("b"),
                openai::finish(),
                openai::done(),
            ],
        ),
    };
    let other = |_| {
        let steps = [anthropic::start(), wait(1.0), anthropic::block(), wait(1.0), Step::Break];
        Reply::new(200, steps)
    };
    upstream(slow, other)
}

/// The first begins, the hedge is left; or the hedge begins and the first is left.
fn decided(first_begins: f64) -> Arc<Upstream> {
    let slow = move |_| {
        let steps = [openai::role(), wait(0.2), openai::content("a"), wait(0.2), openai::content("b")];
        Reply::new(200, steps.into_iter().chain([openai::finish(), openai::done()])).after(secs(first_begins))
    };
    let other = |_| {
        let start = [anthropic::start(), wait(0.5), anthropic::block(), anthropic::content("a"), wait(0.5)];
        Reply::new(200, start.into_iter().chain([anthropic::content("b")]).chain(anthropic::end()))
    };
    upstream(slow, other)
}

/// Drops the call after one poll, two, and so on, until it is allowed enough of them to end.
async fn at_every_await(story: impl Fn() -> Arc<Upstream>, expected: (u64, u64)) {
    for left in 0..1_000 {
        let client = warm(&story(), ON).await;
        let said = Polls { future: Box::pin(client.chat("Hi")), left }.await;
        assert_nothing_held(&client);
        if let Some(answer) = said {
            assert_eq!(answer.unwrap().text(), "ab");
            assert_eq!(hedges(&client), expected);
            assert!(left > 4, "the story has more awaits than {left}");
            return;
        }
        let failures = client.resilience_stats().circuit_breakers["openai"].failure_count;
        assert!(failures <= 1, "a drop is no failure");
    }
    panic!("the call never ended");
}

#[tokio::test(start_paused = true)]
async fn a_hedged_call_can_be_dropped_at_every_await() {
    at_every_await(eventful, (1, 0)).await;
    at_every_await(|| decided(1.2), (1, 0)).await;
    at_every_await(|| decided(8.0), (1, 1)).await;
}
