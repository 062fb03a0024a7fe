//! Dropping a call at any moment gives back everything it held.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use omega_client::{ChatCall, UnifiedLLMClient};

use crate::support::*;

/// Polls a future this many times at most; then it is ready without a result, and whoever awaited it drops it.
pub struct Polls<F> {
    pub future: Pin<Box<F>>,
    pub left: usize,
}

impl<F: Future> Future for Polls<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        match self.future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if self.left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// A story with every kind of await in it: a queue, a head that comes late, a failure with its body, a backoff, another
/// queue, a stream that breaks, a failover, and an answer in pieces.
fn story() -> Arc<Upstream> {
    Upstream::by_provider(|name, at| match (name, at) {
        ("openai", 0) => openai::answer("goes first"),
        ("openai", 1) => Reply::new(500, [wait(0.2), text("{\"error\":"), wait(0.2), text("{}}")]),
        ("openai", 2) => {
            Reply::new(200, [openai::role(), wait(0.3), openai::content("a"), wait(0.3), Step::Break])
        }
        ("openai", _) => Reply::refused(),
        _ => {
            let pieces =
                ["f", "a", "l", "l"].into_iter().flat_map(|piece| [wait(0.2), anthropic::content(piece)]);
            let start = [anthropic::start(), wait(0.2), anthropic::block()];
            Reply::new(200, start.into_iter().chain(pieces).chain(anthropic::end()))
        }
    })
}

const SLOW_START: &str = "
model: gpt-4.1
rate_limiting: {openai: {max_requests_per_minute: 60, burst_seconds: 1}}
";

async fn whole(client: UnifiedLLMClient) -> String {
    let call = ChatCall::from("Hi").fallbacks(["claude-opus-5-5"]);
    client.chat(call).await.unwrap().text().to_owned()
}

async fn streamed(client: UnifiedLLMClient) -> String {
    let call = ChatCall::from("Hi").fallbacks(["claude-opus-5-5"]);
    let mut stream = client.chat_stream(call).await.unwrap();
    let mut said = String::new();
    while let Some(chunk) = stream.next().await {
        match chunk {
            Ok(chunk) => said.push_str(chunk.text()),
            Err(_) => break,
        }
    }
    said
}

/// Runs `call` with one more poll each time until it is allowed enough to end; returns how many that were.
async fn at_every_await<F: Future<Output = String>>(
    call: impl Fn(UnifiedLLMClient) -> F,
    ends_with: &str,
) -> usize {
    for left in 0..10_000 {
        let upstream = story();
        let client = configured(&upstream, SLOW_START).build().unwrap();
        client.chat("goes first").await.unwrap();
        let ended = Polls { future: Box::pin(call(client.clone())), left }.await;
        assert_nothing_held(&client);
        let breaker = &client.resilience_stats().circuit_breakers["openai"];
        assert!(breaker.failure_count as usize <= upstream.asked("openai"), "a drop is no failure");
        // Whoever comes next is served: nothing of the dropped call stands in the way.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let request = omega_client::ChatRequest::new("claude-opus-5-5", [omega_client::Message::user("Hi")]);
        assert_eq!(client.chat(request).await.unwrap().text(), "fall", "after {left} polls");
        assert_nothing_held(&client);
        if let Some(said) = ended {
            assert_eq!(said, ends_with);
            return left;
        }
    }
    panic!("the call never ended");
}

#[tokio::test(start_paused = true)]
async fn a_whole_call_can_be_dropped_at_every_await() {
    let polls = at_every_await(whole, "fall").await;
    assert!(polls > 12, "the story has more awaits than {polls}");
}

#[tokio::test(start_paused = true)]
async fn a_streamed_call_can_be_dropped_at_every_await() {
    // The second stream breaks after its content was delivered, so that is where it ends.
    let polls = at_every_await(streamed, "a").await;
    assert!(polls > 8, "the story has more awaits than {polls}");
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_stays_charged_and_what_was_not_goes_back() {
    let upstream = Upstream::sequence([Reply::silence()]);
    let client =
        configured(&upstream, "rate_limiting: {openai: {max_concurrent_requests: 1}}").build().unwrap();
    let charged = || {
        let limiter = &client.resilience_stats().rate_limiters["openai"];
        (limiter.requests_last_minute, limiter.tokens_last_minute > 0)
    };
    let waits = Polls { future: Box::pin(client.chat("Hi")), left: 1 };
    let (sent, waits) = tokio::join!(tokio::time::timeout(Duration::from_secs(1), client.chat("Hi")), waits);
    assert!(sent.is_err() && waits.is_none());
    assert_eq!(upstream.count(), 1);
    assert_eq!(charged(), (1, true), "the provider has seen one of them");
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn dropped_waiters_leave_no_place_and_delay_nobody() {
    let upstream = Upstream::sequence([openai::answer("ok").after(Duration::from_secs(1))]);
    let client =
        configured(&upstream, "rate_limiting: {openai: {max_concurrent_requests: 1}}").build().unwrap();
    for dropped in 0..20 {
        let calls: Vec<_> = (0..5)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move { client.chat("Hi").await.map(|_| ()) })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(50 * dropped)).await;
        calls.iter().for_each(tokio::task::JoinHandle::abort);
        for call in calls {
            let _ = call.await;
        }
        assert_nothing_held(&client);
    }
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_calls_half_of_them_dropped_leave_nothing_behind() {
    let upstream = Upstream::new(|_, at| {
        let millis = 20 + (at as u64 * 7_919) % 400;
        Reply::new(
            200,
            [
                openai::role(),
                wait(0.03),
                openai::content("a"),
                wait(0.03),
                openai::content("b"),
                openai::finish(),
                openai::usage(10, 2),
                openai::done(),
            ],
        )
        .after(Duration::from_millis(millis))
    });
    let yaml = "
resilience: {timeout_seconds: 3600}
rate_limiting:
  openai: {max_requests_per_minute: 30000, max_tokens_per_minute: 1000000000, max_concurrent_requests: 100, max_wait_seconds: 3600, burst_seconds: 1}
";
    let client = configured(&upstream, yaml).build().unwrap();
    let mut random = fastrand::Rng::with_seed(11);
    let mut calls = tokio::task::JoinSet::new();
    for at in 0..10_000 {
        let client = client.clone();
        let patience = Duration::from_micros(random.u64(0..120_000_000));
        let arrival = Duration::from_micros(random.u64(0..10_000_000));
        calls.spawn(async move {
            tokio::time::sleep(arrival).await;
            let call = async {
                if at % 4 < 2 {
                    client.chat("Hi").await.map(|answer| assert_eq!(answer.text(), "ab"))
                } else {
                    let mut stream = client.chat_stream("Hi").await?;
                    while let Some(chunk) = stream.next().await {
                        chunk?;
                    }
                    Ok(())
                }
            };
            if at % 2 == 0 {
                call.await.unwrap();
                true
            } else {
                // Dropped at a random moment of its wait, its sending, its reading, or not at all.
                tokio::time::timeout(patience / (1 + at % 400), call).await.is_ok()
            }
        });
    }
    let mut ended = 0;
    while let Some(call) = calls.join_next().await {
        ended += usize::from(call.unwrap());
    }
    assert!((5_000..9_500).contains(&ended), "{ended} ended: too few were dropped, or too many");
    assert_nothing_held(&client);
    let stats = client.resilience_stats();
    let (breaker, openai) = (&stats.circuit_breakers["openai"], &stats.details.providers["openai"]);
    assert_eq!((breaker.failure_count, openai.transitions_total), (0, 0), "the breaker has not moved");
    assert!(openai.cancelled_total > 500, "{openai:?}");
    assert!(openai.queued_total > 1_000, "{openai:?}");
    // What it then has to give is all there.
    client.chat("Hi").await.unwrap();
}

/// Panics over one line of the log.
struct Panicking(&'static str);

impl tracing::Subscriber for Panicking {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Message(&'static str);
        impl tracing::field::Visit for Message {
            fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                assert!(!format!("{value:?}").contains(self.0), "the subscriber fails");
            }
        }
        event.record(&mut Message(self.0));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// A subscriber is code of others. The line that breaks it is written in the very step that grants the permit.
#[tokio::test(start_paused = true)]
async fn a_log_subscriber_that_panics_costs_no_permit() {
    let upstream = Upstream::sequence([openai::server_error(), openai::answer("ok")]);
    let yaml = "circuit_breaker: {failure_threshold: 1, success_threshold: 1, half_open_max_calls: 1}";
    let client = configured(&upstream, yaml).max_retries(1).build().unwrap();
    client.chat("Hi").await.unwrap_err();
    tokio::time::sleep(Duration::from_secs(61)).await;
    let panicked = {
        let _log = tracing::subscriber::set_default(Panicking("entering HALF_OPEN"));
        let client = client.clone();
        tokio::spawn(async move { client.chat("Hi").await.map(drop) }).await
    };
    assert!(panicked.unwrap_err().is_panic());
    assert_nothing_held(&client);
    assert_eq!(client.chat("Hi").await.unwrap().text(), "ok", "the only probe was given back");
    assert_nothing_held(&client);
}
