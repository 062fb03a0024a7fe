//! Streams: the three clocks, the terminator, and what a caller sees of a break.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use omega_client::{ChatCall, ChatRequest, Clock, Error, ErrorKind, Message, SystemClock, UnifiedLLMClient};
use omega_policy::Timestamp;
use tokio::time::Instant;

use crate::support::*;

/// The text that came, and the error if it ended with one.
async fn read(
    client: &UnifiedLLMClient,
    call: impl Into<ChatCall>,
) -> Result<(String, Option<Error>), Error> {
    let mut stream = client.chat_stream(call).await?;
    let (mut said, mut error) = (String::new(), None);
    while let Some(item) = StreamExt::next(&mut stream).await {
        assert!(error.is_none(), "nothing follows an error");
        match item {
            Ok(chunk) => said.push_str(chunk.text()),
            Err(broken) => error = Some(broken),
        }
    }
    Ok((said, error))
}

fn once(client: omega_client::Builder) -> UnifiedLLMClient {
    client.max_retries(1).preferred_model("gpt-4.1").build().unwrap()
}

fn stream(steps: impl IntoIterator<Item = Step>) -> Arc<Upstream> {
    Upstream::sequence([Reply::new(200, steps)])
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_read_to_its_end() {
    let upstream = stream([
        openai::role(),
        openai::content("Hel"),
        wait(1.0),
        openai::content("lo"),
        openai::finish(),
        openai::usage(10, 2),
        openai::done(),
    ]);
    let client = client(&upstream);
    let mut stream = client.chat_stream("Hi").await.unwrap();
    assert_eq!((stream.provider(), stream.model()), ("openai", "gpt-5.2"));
    assert_eq!(client.resilience_stats().rate_limiters["openai"].concurrent_requests, 1);
    let mut said = String::new();
    while let Some(chunk) = stream.next().await {
        said.push_str(chunk.unwrap().text());
    }
    assert_eq!(said, "Hello");
    assert_eq!(stream.usage().map(|usage| (usage.input_tokens, usage.output_tokens)), Some((10, 2)));
    assert!(stream.next().await.is_none());
    assert_nothing_held(&client);
    assert_eq!(client.resilience_stats().details.providers["openai"].answered_total, 1);
}

#[tokio::test(start_paused = true)]
async fn the_terminator_settles_even_if_the_connection_stays_open() {
    let upstream =
        stream([openai::role(), openai::content("a"), openai::finish(), openai::done(), Step::Hang]);
    let client = client(&upstream);
    let start = Instant::now();
    assert_eq!(read(&client, "Hi").await.unwrap().0, "a");
    assert_eq!(client.chat("Hi").await.unwrap().text(), "a");
    assert!(start.elapsed() < Duration::from_millis(300), "{:?}", start.elapsed());
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn a_missing_done_after_the_finish_reason_is_complete() {
    let upstream = stream([openai::role(), openai::content("a"), openai::finish()]);
    let client = client(&upstream);
    let (said, error) = read(&client, "Hi").await.unwrap();
    assert_eq!((said.as_str(), error.is_none()), ("a", true));
    assert_eq!(client.chat("Hi").await.unwrap().text(), "a");
}

#[tokio::test(start_paused = true)]
async fn a_truncated_answer_is_never_a_success() {
    let whole =
        [openai::role(), openai::content("a"), openai::content("b"), openai::finish(), openai::done()];
    // finish_reason is the proof; everything short of it is a cut.
    for kept in 0..3 {
        for end in [None, Some(Step::Break)] {
            let steps: Vec<Step> = whole[..kept].iter().cloned().chain(end.clone()).collect();
            let upstream = stream(steps);
            let client = once(builder(&upstream));
            let error = client.chat("Hi").await.unwrap_err();
            assert!(
                matches!(error.kind(), ErrorKind::StreamBroken | ErrorKind::Provider),
                "{kept} {end:?}: {error}"
            );
            match read(&client, "Hi").await {
                Ok((_, error)) => assert_eq!(
                    error.expect("a cut stream ends with an error").kind(),
                    ErrorKind::StreamBroken
                ),
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::StreamBroken | ErrorKind::Provider), "{error}")
                }
            }
            assert_nothing_held(&client);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn done_without_a_finish_reason_is_a_cut() {
    let upstream = stream([openai::role(), openai::content("a"), openai::done()]);
    let error = once(builder(&upstream)).chat("Hi").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StreamBroken);
}

#[tokio::test(start_paused = true)]
async fn a_break_after_content_is_the_last_item_and_counts_what_was_seen() {
    let upstream = stream([openai::role(), openai::content(&"word ".repeat(100)), Step::Break]);
    let client = client(&upstream);
    let (said, error) = read(&client, "Hi").await.unwrap();
    let error = error.unwrap();
    assert_eq!(said.len(), 500);
    assert_eq!((error.kind(), error.provider()), (ErrorKind::StreamBroken, Some("openai")));
    assert_eq!(upstream.count(), 1, "nothing is retried once content has reached the caller");
    let stats = client.resilience_stats();
    assert_eq!(stats.circuit_breakers["openai"].failure_count, 1);
    assert!(stats.rate_limiters["openai"].tokens_last_minute >= 125);
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn a_whole_answer_that_breaks_is_asked_for_again_unseen() {
    let cut = Reply::new(200, [openai::role(), openai::content("half an ans"), Step::Break]);
    let upstream = Upstream::sequence([cut, openai::answer("a whole answer")]);
    let answer = client(&upstream).chat("Hi").await.unwrap();
    assert_eq!(answer.text(), "a whole answer");
    assert_eq!(answer.attempts.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_first_byte_clock_catches_silence() {
    let upstream = Upstream::sequence([Reply::silence()]);
    let start = Instant::now();
    let error = read(&once(builder(&upstream)), "Hi").await.unwrap_err();
    assert_eq!(start.elapsed(), Duration::from_secs(30));
    assert_eq!(error.kind(), ErrorKind::Deadline);
    assert!(error.to_string().contains("no first byte within 30 s"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_first_content_clock_is_not_reset_by_keep_alives_and_pings() {
    let keep_alives = || (0..1_000).flat_map(|_| [wait(5.0), openai::keep_alive(), openai::role()]);
    for (model, seconds) in [("gpt-4.1", 120), ("gpt-5.2", 300)] {
        let upstream = stream(keep_alives());
        let client = builder(&upstream).max_retries(1).build().unwrap();
        let start = Instant::now();
        let request = ChatRequest::new(model, [Message::user("Hi")]);
        let error = read(&client, request).await.unwrap_err();
        let took = start.elapsed().as_secs();
        assert_eq!(took, seconds, "{model}");
        assert!(error.to_string().contains(&format!("no first content within {seconds} s")), "{error}");
        assert_nothing_held(&client);
    }
    let pings = (0..1_000).flat_map(|_| [wait(1.0), anthropic::ping()]);
    let upstream = stream([anthropic::start()].into_iter().chain(pings));
    let start = Instant::now();
    let request = ChatRequest::new("claude-opus-5-5", [Message::user("Hi")]);
    let error = once(builder(&upstream)).chat(request).await.unwrap_err();
    assert_eq!((error.kind(), start.elapsed().as_secs()), (ErrorKind::Deadline, 120), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_gap_clock_runs_between_pieces_of_content() {
    let pieces = [
        openai::role(),
        openai::content("a"),
        wait(59.0),
        openai::content("b"),
        wait(59.0),
        openai::content("c"),
    ];
    let keep_alives = (0..100).flat_map(|_| [wait(7.0), openai::keep_alive()]);
    let upstream = stream(pieces.into_iter().chain(keep_alives));
    let client = once(builder(&upstream));
    let start = Instant::now();
    let (said, error) = read(&client, "Hi").await.unwrap();
    let error = error.unwrap();
    assert_eq!((said.as_str(), error.kind()), ("abc", ErrorKind::StreamBroken));
    assert!(error.to_string().contains("no content for 60 s"), "{error}");
    let took = start.elapsed().as_secs_f64();
    assert!((178.0..178.3).contains(&took), "{took}");
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_a_stream_that_never_ends() {
    let upstream = stream(
        [openai::role()].into_iter().chain((0..10_000).flat_map(|_| [wait(1.0), openai::content("x")])),
    );
    let client = client(&upstream);
    let start = Instant::now();
    let (_, error) = read(&client, ChatCall::from("Hi").timeout(Duration::from_secs(45))).await.unwrap();
    assert_eq!(error.unwrap().kind(), ErrorKind::Deadline);
    assert_eq!(start.elapsed().as_secs(), 45);
    assert_eq!(client.resilience_stats().circuit_breakers["openai"].failure_count, 0);
    assert_nothing_held(&client);
}

/// A clock on which a hundredth of a second passes with every look, while tokio's own stands still.
struct Ticking {
    clock: SystemClock,
    looks: AtomicU64,
}

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.looks.fetch_add(1, Ordering::Relaxed) * 10)
    }

    fn date(&self) -> jiff::Timestamp {
        self.clock.date()
    }

    fn instant(&self, at: Timestamp) -> Instant {
        self.clock.instant(at)
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_that_never_pause_do_not_outrun_the_clocks() {
    // Every read is ready, so no timer is ever asked.
    let upstream = stream((0..60_000).map(|_| openai::keep_alive()));
    let clock = Arc::new(Ticking { clock: SystemClock::new(), looks: AtomicU64::new(0) });
    let client = once(builder(&upstream).clock(clock.clone()));
    let error = client.chat("Hi").await.unwrap_err();
    assert!(error.to_string().contains("no first content within 120 s"), "{error}");
    assert!(clock.now() < Timestamp::from_secs(125));
    let upstream = stream([openai::role()].into_iter().chain((0..60_000).map(|_| openai::content("x"))));
    let clock = Arc::new(Ticking { clock: SystemClock::new(), looks: AtomicU64::new(0) });
    let client = once(builder(&upstream).clock(clock.clone()));
    let error = client.chat(ChatCall::from("Hi").timeout(Duration::from_secs(90))).await.unwrap_err();
    assert!(error.to_string().contains("deadline"), "{error}");
    assert!(clock.now() < Timestamp::from_secs(95));
}

#[tokio::test(start_paused = true)]
async fn the_first_token_clock_is_learned_where_another_target_exists() {
    // Twenty answers whose first content takes 6 s: three times that is 18 s.
    let upstream = Upstream::by_provider(|name, at| match name {
        "openai" if at < 20 => openai::answer("ok").after(Duration::from_secs(6)),
        "openai" => openai::answer("late").after(Duration::from_secs(25)),
        _ => anthropic::answer("from the fallback"),
    });
    let client = configured(&upstream, "{model: gpt-4.1, fallbacks: [claude-opus-5-5]}").build().unwrap();
    for _ in 0..20 {
        assert_eq!(client.chat("Hi").await.unwrap().provider, "openai");
    }
    let start = Instant::now();
    let answer = client.chat("Hi").await.unwrap();
    assert_eq!(answer.provider, "anthropic");
    let took = start.elapsed().as_secs_f64();
    assert!((18.0..18.5).contains(&took), "{took}");
    // Without another target there is no hurry.
    let alone = client.chat(ChatCall::from("Hi").fallbacks([""; 0])).await.unwrap();
    assert_eq!(alone.text(), "late");
}

#[tokio::test(start_paused = true)]
async fn the_learned_clock_can_be_switched_off() {
    let upstream = Upstream::by_provider(|name, _| match name {
        "openai" => openai::answer("late").after(Duration::from_secs(25)),
        _ => anthropic::answer("from the fallback"),
    });
    let yaml = "{model: gpt-4.1, fallbacks: [claude-opus-5-5], streaming: {learned_first_content: false}}";
    let client = configured(&upstream, yaml).build().unwrap();
    assert_eq!(client.chat("Hi").await.unwrap().text(), "late");
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_that_is_complete_is_an_answer() {
    let upstream = stream([openai::role(), openai::finish(), openai::usage(3, 0), openai::done()]);
    let client = client(&upstream);
    assert_eq!(client.chat("Hi").await.unwrap().text(), "");
    let (said, error) = read(&client, "Hi").await.unwrap();
    assert_eq!((said.as_str(), error.is_none()), ("", true));
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn a_preamble_without_end_is_handed_over_and_still_guarded() {
    let steps = (0..5_000).map(|_| openai::role()).chain([Step::Hang]);
    let upstream = stream(steps);
    let client = once(builder(&upstream));
    let start = Instant::now();
    let (said, error) = read(&client, "Hi").await.unwrap();
    assert_eq!((said.as_str(), error.unwrap().kind()), ("", ErrorKind::StreamBroken));
    assert_eq!(start.elapsed().as_secs(), 120);
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_dropped_returns_its_permit_and_pays_for_what_was_seen() {
    let upstream = stream([openai::role(), openai::content(&"word ".repeat(2_000)), Step::Hang]);
    let client = configured(&upstream, "rate_limiting: {grok: {max_tokens_per_minute: 100000}}")
        .grok_api_key("k")
        .build()
        .unwrap();
    let request = ChatRequest::new("grok-5", [Message::user("Hi")]);
    let mut stream = client.chat_stream(request).await.unwrap();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    assert_nothing_held(&client);
    let stats = client.resilience_stats();
    assert_eq!(stats.circuit_breakers["grok"].failure_count, 0);
    assert!(stats.rate_limiters["grok"].tokens_last_minute >= 2_500, "{:?}", stats.rate_limiters["grok"]);
    assert_eq!(stats.details.providers["grok"].cancelled_total, 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_reads_slowly_is_not_the_providers_silence() {
    let slow = [
        openai::role(),
        openai::content("one "),
        wait(30.0),
        openai::keep_alive(),
        wait(30.0),
        openai::content("two"),
        openai::finish(),
        openai::done(),
    ];
    let upstream = stream(slow);
    let client = once(builder(&upstream));
    let mut stream = client.chat_stream("Hi").await.unwrap();
    let mut said = String::new();
    while let Some(item) = stream.next().await {
        said.push_str(item.expect("the provider was not silent for sixty seconds").text());
        tokio::time::sleep(Duration::from_secs(61)).await;
    }
    assert_eq!(said, "one two");
    assert_nothing_held(&client);
    assert_eq!(client.resilience_stats().circuit_breakers["openai"].failure_count, 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_caller_still_notices_a_provider_that_went_silent() {
    let upstream = stream([openai::role(), openai::content("one "), Step::Hang]);
    let client = once(builder(&upstream));
    let mut stream = client.chat_stream("Hi").await.unwrap();
    stream.next().await.unwrap().unwrap();
    stream.next().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(100)).await;
    let start = Instant::now();
    assert_eq!(stream.next().await.unwrap().unwrap_err().kind(), ErrorKind::StreamBroken);
    assert_eq!(start.elapsed().as_secs(), 60, "sixty seconds in which the caller listened");
}

#[tokio::test(start_paused = true)]
async fn what_will_not_be_sent_again_takes_no_retry_from_the_budget() {
    let cut = || Reply::new(200, [openai::role(), openai::content("half of"), Step::Break]);
    let upstream = Upstream::sequence([cut()]);
    let client = client(&upstream);
    for _ in 0..3 {
        let (_, error) = read(&client, "Hi").await.unwrap();
        assert_eq!(error.unwrap().kind(), ErrorKind::StreamBroken);
    }
    let budget = || client.resilience_stats().details.providers["openai"].budget_available;
    assert_eq!(budget(), 13, "the opening ten, and one for each first try");
    client.chat(ChatCall::from("Hi").max_attempts(1)).await.unwrap_err();
    assert_eq!(budget(), 14, "a call that allows itself one attempt takes none either");
}
