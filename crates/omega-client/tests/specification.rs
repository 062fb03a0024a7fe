//! The specification, read: its log lines, its dictionary, its arguments and its two tests, against the client itself.
//! Whoever changes a word there or here learns that the other one does not agree any more.
#![allow(clippy::disallowed_methods, reason = "tests read the paused clock and spawn what they await")]
#![allow(clippy::unwrap_used, reason = "a helper of a test may fail it as the test itself may")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use omega_client::{Builder, ChatCall, ErrorKind, Message, Origin, UnifiedLLMClient};
use serde_json::Value;
use tokio::time::{Instant, advance};

#[path = "client/support.rs"]
#[allow(dead_code, reason = "shared with the client's other tests, which use all of it")]
mod support;

use support::*;

const SPECIFICATION: &str = include_str!("../../../docs/specification.md");

const PROVIDERS: [&str; 4] = ["openai", "anthropic", "google", "grok"];

/// The first code block under a heading.
fn block(heading: &str) -> &'static str {
    let (_, under) = SPECIFICATION.split_once(&format!("\n{heading}\n")).expect(heading);
    let (_, opened) = under.split_once("```").expect("a block begins");
    let (block, _) = opened.split_once("\n```").expect("a block ends");
    block.split_once('\n').expect("its language stands on the first line").1
}

/// The text between two marks.
fn between(text: &'static str, before: &str, after: &str) -> &'static str {
    let (_, rest) = text.split_once(before).expect(before);
    rest.split_once(after).expect(after).0
}

/// A client built as a constructor call in the specification builds it: each argument given as it is printed.
fn constructed(upstream: &Arc<Upstream>, block: &'static str) -> Builder {
    let arguments = between(block, "UnifiedLLMClient(\n", "\n)");
    arguments.lines().fold(bare(upstream), |builder, line| {
        let line = line.split('#').next().unwrap().trim().trim_end_matches(',');
        let (name, value) = line.split_once('=').expect(line);
        let text = || value.trim_matches('"');
        let on = || match value {
            "True" => true,
            "False" => false,
            other => panic!("{other} is no switch"),
        };
        match name {
            "preferred_model" => builder.preferred_model(text()),
            "openai_api_key" => builder.openai_api_key(text()),
            "enable_circuit_breaker" => builder.enable_circuit_breaker(on()),
            "enable_rate_limiting" => builder.enable_rate_limiting(on()),
            "max_retries" => builder.max_retries(value.parse().unwrap()),
            other => panic!("the specification has an argument `{other}` that is not known here"),
        }
    })
}

// ---- Log messages ----

/// Provokes everything the specification prints a line for, with the numbers it prints.
async fn provoke() -> Vec<String> {
    let log = Log::capture();
    // The layers are announced. Two failures: the wait after the second is base × 2 = 2.34 s.
    let failing = Upstream::sequence([openai::server_error(), openai::server_error(), openai::answer("ok")]);
    let client = configured(&failing, "backoff: {base_delay: 1.17, jitter: false}").build().unwrap();
    client.chat("Hello!").await.unwrap();
    // A spent quota on the second attempt.
    let spent = Upstream::sequence([openai::server_error(), openai::insufficient_quota()]);
    support::client(&spent).chat("Hello!").await.unwrap_err();
    // The life of a circuit.
    let outage = Upstream::new(|_, at| if at < 5 { openai::server_error() } else { openai::answer("ok") });
    let client = builder(&outage).max_retries(1).build().unwrap();
    for _ in 0..5 {
        client.chat("Hello!").await.unwrap_err();
    }
    advance(Duration::from_secs(60)).await;
    client.chat("Hello!").await.unwrap();
    client.chat("Hello!").await.unwrap();
    // A burst: with the whole minute to spend (no margin) the sixty-first call finds 60 sent.
    let steady = Upstream::sequence([openai::answer("ok")]);
    let yaml = "rate_limiting: {openai: {max_concurrent_requests: unlimited, depth_margin_seconds: 0}}";
    let client = configured(&steady, yaml).build().unwrap();
    join_all((0..61).map(|_| client.chat("Hello!"))).await;
    log.lines()
}

/// Everything is compared to the character but `Error...`, which stands for the provider's own words.
#[tokio::test(start_paused = true)]
async fn every_log_line_is_provoked_and_the_same_to_the_character() {
    let printed: Vec<&str> = block("### Log Messages").lines().collect();
    assert_eq!(printed.len(), 9, "{printed:?}");
    let lines = provoke().await;
    for line in printed {
        let expected = line.replace("Error...", "500 server_error (internal_error): The server had an error");
        assert!(lines.contains(&expected), "`{expected}` is not among\n{}", lines.join("\n"));
    }
}

/// Whatever the client logs with one of the specification's signs in front has the form of a printed line: equal after
/// each number has become `#` and what follows the count of attempts (the reason) has been taken off.
#[tokio::test(start_paused = true)]
async fn no_line_has_a_sign_of_the_specification_and_another_form() {
    fn form(line: &str) -> String {
        let reason = line.find(" on attempt ").and_then(|at| Some(at + line[at..].find(": ")?));
        let line = reason.map_or(line, |at| &line[..at]);
        let mut form = String::new();
        for character in line.chars() {
            let part_of_number = character.is_ascii_digit() || character == '.' && form.ends_with('#');
            match part_of_number {
                true if form.ends_with('#') => {}
                true => form.push('#'),
                false => form.push(character),
            }
        }
        form
    }
    let printed: Vec<String> = block("### Log Messages").lines().map(form).collect();
    let lines = provoke().await;
    let signed: Vec<&String> = lines.iter().filter(|line| !line.is_ascii()).collect();
    assert!(signed.len() >= 15, "{signed:?}");
    for line in signed {
        assert!(printed.contains(&form(line)), "`{line}` has none of the forms {printed:#?}");
    }
}

// ---- Statistics ----

/// The dictionary as the specification prints it: the comment signs taken off, it is JSON.
fn printed_statistics() -> Value {
    let lines = block("### Get Resilience Statistics").lines();
    let json: String = lines.filter_map(|line| line.strip_prefix("# ")).collect::<Vec<_>>().join("\n");
    serde_json::from_str(&json).unwrap()
}

/// The same keys and the same types, all the way down. What is printed as null may also be a text (a time).
fn assert_same_form(path: &str, printed: &Value, ours: &Value) {
    match (printed, ours) {
        (Value::Object(printed), Value::Object(ours)) => {
            let (theirs, found): (BTreeSet<_>, BTreeSet<_>) =
                (printed.keys().collect(), ours.keys().collect());
            assert_eq!(found, theirs, "keys of {path}");
            for (key, value) in printed {
                assert_same_form(&format!("{path}.{key}"), value, &ours[key]);
            }
        }
        (Value::String(_), Value::String(_)) => {}
        (Value::Number(_), Value::Number(number)) => assert!(number.is_u64(), "{path}: {number}"),
        (Value::Null, Value::Null | Value::String(_)) => {}
        other => panic!("{path}: {other:?}"),
    }
}

fn assert_statistics(client: &UnifiedLLMClient) -> Value {
    let printed = printed_statistics();
    let ours = serde_json::to_value(client.resilience_stats()).unwrap();
    let top: BTreeSet<&str> = ours.as_object().unwrap().keys().map(String::as_str).collect();
    let expected: BTreeSet<&str> = printed.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        &top - &BTreeSet::from(["details"]),
        expected,
        "`details` is all there is beside the specification's"
    );
    for section in expected {
        let by_provider = ours[section].as_object().unwrap();
        assert_eq!(by_provider.len(), PROVIDERS.len(), "{section} of all four providers");
        for provider in PROVIDERS {
            let path = format!("{section}.{provider}");
            assert_same_form(&path, &printed[section]["openai"], &by_provider[provider]);
        }
    }
    ours
}

#[tokio::test(start_paused = true)]
async fn the_statistics_have_the_printed_keys_and_types_for_every_provider() {
    let upstream = Upstream::sequence([openai::answer("ok"), openai::server_error()]);
    let client = builder(&upstream).max_retries(1).build().unwrap();
    let fresh = assert_statistics(&client);
    client.chat("Hello!").await.unwrap();
    client.chat("Hello!").await.unwrap_err();
    let used = assert_statistics(&client);
    // The printed values that are defaults are ours too.
    let printed = printed_statistics();
    assert_eq!(fresh["circuit_breakers"]["openai"], printed["circuit_breakers"]["openai"]);
    for key in ["max_requests_per_minute", "max_tokens_per_minute"] {
        assert_eq!(fresh["rate_limiters"]["openai"][key], printed["rate_limiters"]["openai"][key]);
    }
    assert!(used["circuit_breakers"]["openai"]["last_failure_time"].is_string());
    assert_eq!(used["rate_limiters"]["openai"]["requests_last_minute"], 2);
    let off = builder(&upstream).enable_circuit_breaker(false).enable_rate_limiting(false).build().unwrap();
    assert_statistics(&off);
}

/// A server of one's own stands beside the four, in the same form.
#[tokio::test(start_paused = true)]
async fn a_server_of_ones_own_has_the_same_statistics() {
    let upstream = Upstream::sequence([openai::answer("ok")]);
    let yaml = "providers: {house: {protocol: openai, base_url: 'http://127.0.0.1:9/v1'}}";
    let client = configured(&upstream, yaml).build().unwrap();
    let (printed, ours) = (printed_statistics(), serde_json::to_value(client.resilience_stats()).unwrap());
    for section in ["circuit_breakers", "rate_limiters"] {
        assert_eq!(ours[section].as_object().unwrap().len(), PROVIDERS.len() + 1);
        assert_same_form(section, &printed[section]["openai"], &ours[section]["house"]);
    }
}

// ---- Usage ----

/// The messages of a call in the specification.
fn messages(text: &'static str) -> Vec<Message> {
    serde_json::from_str(&format!("[{}]", between(text, "[", "]"))).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_automatic_example_is_protected_by_default() {
    let upstream = Upstream::sequence([openai::server_error(), openai::answer("Hello to you")]);
    let example = block("### Automatic (Recommended)");
    let client = constructed(&upstream, example).build().unwrap();
    let answer = client.chat(messages(between(example, "llm.chat(", "\n)"))).await.unwrap();
    assert_eq!((answer.text(), answer.model.as_str(), answer.attempts.len()), ("Hello to you", "gpt-5.2", 2));
    assert_eq!(upstream.seen()[0].body["messages"][0]["content"], "Hello!");
    let config = &client.configuration().config;
    assert!(config.breaker.enabled && config.rate_limiting);
}

/// What "Manual Configuration" writes out is what one gets without it.
#[test]
fn the_manual_example_says_the_defaults() {
    let upstream = Upstream::sequence([openai::answer("ok")]);
    let built = |heading| constructed(&upstream, block(heading)).build().unwrap();
    let (manual, automatic) = (built("### Manual Configuration"), built("### Automatic (Recommended)"));
    let facts = |client: &UnifiedLLMClient| {
        let config = &client.configuration().config;
        (config.breaker.enabled, config.rate_limiting, config.max_retries)
    };
    assert_eq!(facts(&manual), (true, true, 3));
    assert_eq!(facts(&automatic), facts(&manual));
}

#[tokio::test(start_paused = true)]
async fn the_disabling_example_disables() {
    let upstream = Upstream::sequence([openai::server_error()]);
    let example = block("### Disable Resilience (Not Recommended)");
    let client = constructed(&upstream, example).build().unwrap();
    // More than any limit and any threshold allows, all at once.
    let start = Instant::now();
    for result in join_all((0..200).map(|_| client.chat("Hello!"))).await {
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.attempts().len()), (ErrorKind::Provider, 1), "{error}");
    }
    assert_eq!(upstream.count(), 200, "each is sent once");
    assert!(start.elapsed() < Duration::from_secs(1), "nothing waited: {:?}", start.elapsed());
    let stats = client.resilience_stats();
    assert_eq!(serde_json::to_value(&stats.circuit_breakers["openai"]).unwrap()["state"], "closed");
    assert_eq!(stats.details.providers["openai"].transitions_total, 0);
    assert_nothing_held(&client);
}

// ---- Errors ----

/// The strings that the specification's program looks for in the error's text.
#[tokio::test(start_paused = true)]
async fn the_texts_that_quota_errors_are_searched_for_are_in_them() {
    let example = block("### Quota Errors");
    let searched: Vec<&str> = example
        .lines()
        .filter_map(|line| line.trim().trim_start_matches("el").strip_prefix("if \""))
        .map(|line| line.split_once("\" in str(e):").expect(line).0)
        .collect();
    assert_eq!(searched, ["insufficient_quota", "429"]);
    for (reply, found) in [
        (openai::insufficient_quota(), searched[0]),
        (openai::error(429, "insufficient_quota", "project_spend_limit_exceeded", "no"), searched[0]),
        (openai::rate_limited(), searched[1]),
        // Its text may have no error body at all: the number is there all the same.
        (Reply::new(429, []), searched[1]),
    ] {
        let error = client(&Upstream::sequence([reply])).chat("Hello!").await.unwrap_err();
        assert!(error.to_string().contains(found), "{found} in {error}");
    }
    // And the first branch is not taken by a plain 429.
    let error = client(&Upstream::sequence([openai::rate_limited()])).chat("Hello!").await.unwrap_err();
    assert!(!error.to_string().contains(searched[0]), "{error}");
}

// ---- Testing ----

/// The number in `range(…)`.
fn range(block: &'static str) -> usize {
    between(block, "range(", ")").parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_circuit_breaker_test_ends_as_it_says() {
    let test = block("### Test Circuit Breaker");
    let upstream = Upstream::sequence([openai::server_error()]);
    let client = client(&upstream);
    for _ in 0..range(test) {
        client.chat(messages(between(test, "llm.chat(", ")"))).await.unwrap_err();
    }
    let stats = serde_json::to_value(client.resilience_stats()).unwrap();
    let path = format!("/{}", between(test, "stats[\"", "\"]) ").replace("\"][\"", "/"));
    assert_eq!(path, "/circuit_breakers/openai/state");
    assert_eq!(stats.pointer(&path).unwrap(), between(test, "# Should be \"", "\""));
    assert_eq!(upstream.seen()[0].body["messages"][0]["content"], "test");
}

/// A burst of 100 against 60 requests per minute: 60 are granted without a wait for quota, ten in flight at a time,
/// about 30 are smoothed over the half minute that a call may wait, and the rest are refused at once with the time to
/// come back.
#[tokio::test(start_paused = true)]
async fn the_rate_limiting_test_waits_and_refuses_as_promised() {
    let burst = range(block("### Test Rate Limiting"));
    assert_eq!(burst, 100);
    let upstream = Upstream::sequence([openai::answer("ok").after(Duration::from_millis(200))]);
    let client = client(&upstream);
    let start = Instant::now();
    let results = join_all((0..burst).map(|at| {
        let client = client.clone();
        async move {
            let result = client.chat(ChatCall::from(format!("test {at}"))).await;
            (result, start.elapsed())
        }
    }))
    .await;
    let limited = results
        .iter()
        .filter(|(result, _)| result.as_ref().is_err_and(|error| error.kind() == ErrorKind::RateLimited));
    let limited = limited.count();
    let mut answered = 0;
    for (result, at) in results {
        match result {
            Ok(_) => answered += 1,
            Err(error) => {
                assert_eq!((at, error.origin()), (Duration::ZERO, Origin::Local), "{error}");
                assert!(error.retry_after().is_some_and(|wait| wait >= Duration::from_secs(30)), "{error}");
            }
        }
    }
    assert_eq!(answered + limited, burst, "nothing else happened");
    assert!((8..=12).contains(&limited), "Rate limited: {limited}/{burst}");
    // Six rounds of ten, each 0.2 s: the burst is through before the next second's quota.
    let times = upstream.times(start);
    let at_once = times.iter().filter(|time| **time < 1.3).count();
    assert!((59..=62).contains(&at_once), "{at_once} without a wait for quota");
    let smoothed = &times[at_once..];
    assert!((28..=32).contains(&smoothed.len()), "{} smoothed", smoothed.len());
    assert!(smoothed.iter().all(|time| *time <= 30.5), "{smoothed:?}");
    for pair in smoothed.windows(2) {
        assert!((0.9..1.1).contains(&(pair[1] - pair[0])), "one each second: {smoothed:?}");
    }
    for (at, time) in times.iter().enumerate() {
        let together = times[..=at].iter().filter(|earlier| **earlier > time - 0.199).count();
        assert!(together <= 10, "{together} in flight at {time}");
    }
    assert_nothing_held(&client);
}
