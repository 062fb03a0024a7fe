//! The rate limiter through whole calls.

use std::time::Duration;

use futures_util::future::join_all;
use omega_client::{ChatCall, ChatRequest, ErrorKind, Message, Origin, Priority};
use tokio::time::Instant;

use crate::support::*;

/// The specification's own test: a burst of 100 against 60 requests per minute. 60 are granted without a quota wait,
/// ten in flight at a time; about 30 are smoothed over the next half minute; the rest are refused at once.
#[tokio::test(start_paused = true)]
async fn a_burst_of_a_hundred_is_smoothed_and_cut() {
    let upstream = Upstream::sequence([openai::answer("ok")]);
    let client = client(&upstream);
    let start = Instant::now();
    let calls = (0..100).map(|at| {
        let client = client.clone();
        async move {
            let request = ChatRequest::new("gpt-5.2", [Message::user(format!("test {at}"))]).max_tokens(50);
            let result = client.chat(request).await;
            (result, start.elapsed())
        }
    });
    let results = join_all(calls).await;
    let (answered, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(|(result, _)| result.is_ok());
    let at_once = answered.iter().filter(|(_, at)| *at < Duration::from_secs(2)).count();
    assert!((58..=62).contains(&at_once), "{at_once} without a quota wait");
    assert!((88..=92).contains(&answered.len()), "{} answered", answered.len());
    assert!(answered.iter().all(|(_, at)| *at <= Duration::from_secs(31)));
    for (result, at) in refused {
        let error = result.unwrap_err();
        assert_eq!(at, Duration::ZERO, "refused at once");
        assert_eq!((error.kind(), error.origin()), (ErrorKind::RateLimited, Origin::Local));
        let wait = error.retry_after().unwrap();
        assert!((30.0..41.5).contains(&wait.as_secs_f64()), "{wait:?}");
    }
    let times = upstream.times(start);
    // At no moment more than ten in flight: each takes 0.1 s.
    for (at, time) in times.iter().enumerate() {
        let together = times[..=at].iter().filter(|earlier| **earlier > time - 0.099).count();
        assert!(together <= 10, "{together} at {time}");
    }
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn waiters_are_served_in_their_order() {
    let upstream = Upstream::sequence([openai::answer("ok")]);
    let yaml = "rate_limiting: {openai: {max_requests_per_minute: 60, burst_seconds: 1, max_tokens_per_minute: 1000000}}";
    let client = configured(&upstream, yaml).build().unwrap();
    let start = Instant::now();
    let results = join_all((0..10).map(|at| {
        let client = client.clone();
        async move {
            client.chat(format!("{at}")).await.unwrap();
            (at, start.elapsed())
        }
    }))
    .await;
    for pair in results.windows(2) {
        let gap = pair[1].1 - pair[0].1;
        assert!((0.99..1.05).contains(&gap.as_secs_f64()), "{gap:?}");
    }
    let asked: Vec<String> = upstream
        .seen()
        .iter()
        .map(|seen| seen.body["messages"][0]["content"].as_str().unwrap().into())
        .collect();
    assert_eq!(asked, (0..10).map(|at| at.to_string()).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_may_not_wait_is_refused_with_the_exact_time() {
    let upstream = Upstream::sequence([openai::answer("ok")]);
    let yaml =
        "rate_limiting: {openai: {max_requests_per_minute: 6, burst_seconds: 10, depth_margin_seconds: 0}}";
    let client = configured(&upstream, yaml).build().unwrap();
    client.chat("one").await.unwrap();
    let error = client.chat(ChatCall::from("two").max_wait(Duration::ZERO)).await.unwrap_err();
    let wait = error.retry_after().unwrap();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert!((9.8..10.0).contains(&wait.as_secs_f64()), "{wait:?}");
    tokio::time::sleep(wait).await;
    client.chat(ChatCall::from("two").max_wait(Duration::ZERO)).await.unwrap();
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_can_never_fit_says_so() {
    let upstream = Upstream::sequence([openai::answer("ok")]);
    let client =
        configured(&upstream, "rate_limiting: {openai: {max_tokens_per_minute: 1000}}").build().unwrap();
    let error = client.chat("x".repeat(100_000)).await.unwrap_err();
    assert_eq!((error.kind(), error.retry_after()), (ErrorKind::RateLimited, None));
    assert!(error.to_string().contains("no wait helps"), "{error}");
    assert_eq!(upstream.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn true_usage_replaces_the_estimate() {
    let upstream = Upstream::sequence([Reply::new(
        200,
        [openai::role(), openai::content("a"), openai::finish(), openai::usage(100, 23), openai::done()],
    )]);
    let yaml = "rate_limiting: {grok: {max_tokens_per_minute: 100000}}";
    let client = configured(&upstream, yaml).grok_api_key("k").build().unwrap();
    client.chat(ChatRequest::new("grok-5", [Message::user("Hi")]).max_tokens(4_000)).await.unwrap();
    assert_eq!(client.resilience_stats().rate_limiters["grok"].tokens_last_minute, 123);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_leaves_gives_its_place_to_the_next_at_once() {
    let upstream = Upstream::sequence([openai::answer("ok")]);
    let yaml = "rate_limiting: {openai: {max_requests_per_minute: 60, burst_seconds: 1}}";
    let client = configured(&upstream, yaml).build().unwrap();
    client.chat("first").await.unwrap();
    let start = Instant::now();
    let leaver = {
        let client = client.clone();
        tokio::spawn(async move { client.chat("leaves").await })
    };
    tokio::task::yield_now().await;
    let stayer = {
        let client = client.clone();
        tokio::spawn(async move { client.chat("stays").await.map(|_| start.elapsed()) })
    };
    tokio::task::yield_now().await;
    assert_eq!(client.resilience_stats().details.providers["openai"].queued, 2);
    leaver.abort();
    let served = stayer.await.unwrap().unwrap();
    assert!(served < Duration::from_millis(1_100), "{served:?}: not one refill later");
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_never_polled_does_not_freeze_the_queue() {
    use std::task::{Context, Poll, Waker};
    let upstream = Upstream::sequence([openai::answer("ok")]);
    let yaml = "rate_limiting: {openai: {max_requests_per_minute: 60, burst_seconds: 1}}";
    let client = configured(&upstream, yaml).build().unwrap();
    client.chat("first").await.unwrap();
    let mut frozen = Box::pin(client.chat("frozen"));
    // Polled once with a waker that wakes nobody: it stands at the head and never looks again.
    assert!(matches!(frozen.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Pending));
    let start = Instant::now();
    client.chat("second").await.unwrap();
    let took = start.elapsed().as_secs_f64();
    assert!((1.8..2.4).contains(&took), "{took}: its own turn, and the margin");
    assert!(frozen.await.is_ok(), "its permit waited for it");
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn the_limits_of_one_model_do_not_hold_another_back() {
    let upstream = Upstream::sequence([openai::answer("ok")]);
    let yaml = "rate_limiting: {openai: {models: {gpt-5.2-pro: {max_requests_per_minute: 1}}}}";
    let client = configured(&upstream, yaml).build().unwrap();
    let pro =
        || ChatCall::from(ChatRequest::new("gpt-5.2-pro", [Message::user("Hi")])).max_wait(Duration::ZERO);
    client.chat(pro()).await.unwrap();
    assert_eq!(client.chat(pro()).await.unwrap_err().kind(), ErrorKind::RateLimited);
    client.chat(ChatCall::from("Hi").max_wait(Duration::ZERO)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_providers_headers_are_heeded() {
    let reply = openai::answer("ok")
        .header("x-ratelimit-limit-requests", "5000")
        .header("x-ratelimit-remaining-requests", "0")
        .header("x-ratelimit-reset-requests", "20s");
    let upstream = Upstream::sequence([reply, openai::answer("ok")]);
    let client = client(&upstream);
    client.chat("one").await.unwrap();
    let stats = client.resilience_stats();
    assert_eq!(stats.details.providers["openai"].observed_max_requests_per_minute, Some(5_000));
    let start = Instant::now();
    client.chat("two").await.unwrap();
    assert!(start.elapsed() > Duration::from_millis(150), "nothing remained: {:?}", start.elapsed());
}

/// The last words of what was asked, in the order of arrival upstream.
fn asked(upstream: &Upstream) -> Vec<String> {
    let words = |body: &serde_json::Value| body["messages"][0]["content"].as_str().unwrap().to_owned();
    upstream.seen().iter().map(|seen| words(&seen.body)).collect()
}

/// One request a second, none at once beyond the first.
const ONE_A_SECOND: &str = "rate_limiting: {openai: {max_requests_per_minute: 60, burst_seconds: 1, \
     max_tokens_per_minute: unlimited, max_concurrent_requests: unlimited}}";

#[tokio::test(start_paused = true)]
async fn urgent_calls_go_first_and_others_get_a_turn_now_and_then() {
    let upstream = Upstream::sequence([openai::answer("ok")]);
    let client = configured(&upstream, ONE_A_SECOND).build().unwrap();
    client.chat("first").await.unwrap();
    let calls = (0..12).map(|_| ("low", Priority::Low)).chain((0..10).map(|_| ("high", Priority::High)));
    let results = join_all(calls.map(|(word, priority)| {
        let client = client.clone();
        async move { client.chat(ChatCall::from(word).priority(priority)).await }
    }))
    .await;
    assert!(results.iter().all(Result::is_ok));
    let order = asked(&upstream);
    assert!(order[1..11].iter().all(|word| word == "high"), "{order:?}");
    assert!(order[11..].iter().all(|word| word == "low"), "{order:?}");
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn tenants_share_what_there_is_however_many_calls_each_has_waiting() {
    let upstream = Upstream::sequence([openai::answer("ok")]);
    let client = configured(&upstream, ONE_A_SECOND).tenant_weight("heavy", 2).build().unwrap();
    client.chat("first").await.unwrap();
    let calls = (0..20).map(|_| "heavy").chain((0..5).map(|_| "light"));
    let results = join_all(calls.map(|tenant| {
        let client = client.clone();
        async move { client.chat(ChatCall::from(tenant).tenant(tenant)).await }
    }))
    .await;
    assert!(results.iter().all(Result::is_ok));
    let order = asked(&upstream);
    let light = order[1..13].iter().filter(|tenant| *tenant == "light").count();
    assert!((4..=5).contains(&light), "a third of the turns, as the weights say: {order:?}");
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn automatic_limits_are_those_the_headers_show() {
    let shown = || {
        openai::answer("ok")
            .header("x-ratelimit-limit-requests", "60")
            .header("x-ratelimit-remaining-requests", "0")
    };
    let upstream = Upstream::sequence([shown(), shown(), openai::answer("ok")]);
    let yaml = "rate_limiting: {openai: {limits: auto, max_requests_per_minute: 1}}";
    let client = configured(&upstream, yaml).build().unwrap();
    let start = Instant::now();
    for _ in 0..3 {
        client.chat("test").await.unwrap();
    }
    let took = start.elapsed().as_secs_f64();
    assert!((1.8..3.5).contains(&took), "sixty a minute as shown, not one as configured: {took}");
}
