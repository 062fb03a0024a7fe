//! Streams: frame by frame as they come, honest when they break, gone on with where that was asked for.

use std::time::Duration;

use omega_emulator::{EmulatorConfig, Latency};
use omega_gateway::GatewayOptions;
use serde_json::{Value, json};

use crate::house::{House, QUICK, chat, streamed_chat};

/// More than forty tokens (of four bytes) to be said again.
fn long() -> String {
    (0..80).map(|number| format!("word{number:03} ")).collect::<String>().trim_end().to_owned()
}

fn whole() -> String {
    format!("You said: {}", long())
}

async fn continuing(fallbacks: &str) -> House {
    let yaml = format!("{QUICK}\nstreaming: {{on_stream_break: continue}}\nfallbacks: [{fallbacks}]");
    House::with(EmulatorConfig::default(), &yaml, GatewayOptions::default()).await
}

#[tokio::test]
async fn frames_come_as_they_are_written() {
    let mut config = EmulatorConfig::default();
    config.providers.openai.latency = Latency { tokens_per_s: 20.0, ..Latency::none() };
    let house = House::with(config, QUICK, GatewayOptions::default()).await;
    for model in ["gpt-5.2"] {
        let (status, mut body) = house.stream("/v1/chat/completions", streamed_chat(model, &long())).await;
        assert_eq!(status, 200);
        let first = body.chunk().await.expect("a frame").expect("bytes");
        assert!(!first.ends_with(b"[DONE]\n\n"), "the beginning comes before the end");
        let mut frames = 1;
        while let Some(frame) = body.chunk().await {
            frame.expect("bytes");
            frames += 1;
        }
        assert!(frames > 20, "{frames}: they were put together");
    }
}

#[tokio::test]
async fn a_break_ends_with_an_error_and_never_with_a_terminator() {
    let house = House::new("").await;
    for fault in ["cut-after:3", "end-after:3", "malformed-chunk:3", "error-in-stream:3"] {
        let answer = house
            .post(
                "/v1/chat/completions",
                streamed_chat(&format!("gpt-5.2+{fault}"), "hi there, long enough to be cut"),
            )
            .await;
        assert_eq!(answer.status, 200, "{fault}");
        assert!(answer.is_whole, "{fault}: the body ends as HTTP wants it");
        let last = answer.text().trim_end().lines().last().expect("a line").to_owned();
        assert!(last.starts_with("data: {\"error\":"), "{fault}: {last}");
        assert!(!answer.text().contains("[DONE]"), "{fault}");
    }
    let body = json!({"model": "claude-opus-5-5+cut-after:3", "max_tokens": 50, "stream": true,
        "messages": [{"role": "user", "content": "hi there, long enough to be cut"}]});
    let answer = house.post("/v1/messages", body).await;
    assert!(
        answer.text().contains("event: error\n") && !answer.text().contains("message_stop"),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn a_stream_cut_after_forty_tokens_is_gone_on_with_by_prefill() {
    let house = continuing("claude-haiku-4-5").await;
    let answer = house.post("/v1/chat/completions", streamed_chat("gpt-5.2+cut-after:40", &long())).await;
    assert_eq!(answer.streamed(), (whole(), true), "{}", answer.text());
    let seen = house.seen();
    let last = seen.last().expect("a request");
    assert_eq!(last.model, "claude-haiku-4-5");
    assert!(last.output_tokens < 160, "{}: only the rest was written", last.output_tokens);
    house.settled().await;
}

#[tokio::test]
async fn a_stream_cut_after_forty_tokens_is_begun_again_where_nobody_takes_prefill() {
    let house = continuing("claude-opus-5-5").await;
    let answer = house.post("/v1/chat/completions", streamed_chat("gpt-5.2+cut-after:40", &long())).await;
    assert_eq!(answer.streamed(), (whole(), true), "{}", answer.text());
    house.settled().await;
    let metrics = house.get("/metrics").await;
    assert!(metrics.text().contains("omega_streams_continued_total{provider="), "{}", metrics.text());
}

#[tokio::test]
async fn streams_of_every_protocol_are_gone_on_with() {
    for (fallback, how) in [("claude-haiku-4-5", "prefill"), ("gemini-3.5-flash", "again")] {
        let house = continuing(fallback).await;
        let answer = house
            .post("/v1/responses", json!({"model": "gpt-5.2+cut-after:40", "input": long(), "stream": true}))
            .await;
        let events = events(answer.text());
        let last = events.last().expect("an event");
        assert_eq!(last["type"], "response.completed", "{how}: {}", answer.text());
        let parts = &last["response"]["output"][0]["content"];
        assert_eq!(parts[0]["text"], whole(), "{how}");
        let said: String = events
            .iter()
            .filter(|event| event["type"] == "response.output_text.delta")
            .filter_map(|event| event["delta"].as_str())
            .collect();
        assert_eq!(said, whole(), "{how}");
        let numbers: Vec<u64> = events.iter().filter_map(|event| event["sequence_number"].as_u64()).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{how}: {numbers:?}");
        let body = json!({"model": "claude-opus-5-5+cut-after:40", "max_tokens": 4_000, "stream": true,
            "messages": [{"role": "user", "content": long()}]});
        let answer = house.post("/v1/messages", body).await;
        let events = self::events(answer.text());
        let said: String = events.iter().filter_map(|event| event["delta"]["text"].as_str()).collect();
        assert_eq!(said, whole(), "{how}");
        assert_eq!(events.iter().filter(|event| event["type"] == "message_start").count(), 1, "{how}");
        assert_eq!(events.last().expect("an event")["type"], "message_stop", "{how}");
        house.scenario("rules: [{provider: google, fault: 'cut-after:40', first: 1}]");
        let body = json!({"contents": [{"role": "user", "parts": [{"text": long()}]}], "fallbacks": ["claude-opus-5-5"]});
        let answer = house.post("/v1/models/gemini-3.6-flash:streamGenerateContent?alt=sse", body).await;
        let events = self::events(answer.text());
        let said: String = events
            .iter()
            .filter_map(|event| event["candidates"][0]["content"]["parts"][0]["text"].as_str())
            .collect();
        assert_eq!(said, whole(), "{how}: {}", answer.text());
        assert_eq!(events.last().expect("an event")["candidates"][0]["finishReason"], "STOP", "{how}");
        house.settled().await;
    }
}

/// The data of every event.
fn events(text: &str) -> Vec<Value> {
    let data = text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    data.map(|data| serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"))).collect()
}

#[tokio::test]
async fn tools_and_structured_output_are_never_joined() {
    let house = continuing("claude-opus-5-5").await;
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": false});
    let mut structured = streamed_chat("gpt-5.2+cut-after:2", "hi");
    structured["response_format"] =
        json!({"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": true}});
    let mut tools = streamed_chat("gpt-5.2+cut-after:2", "call:weather");
    tools["tools"] = json!([{"type": "function", "function": {"name": "weather", "parameters": schema}}]);
    for body in [structured, tools] {
        let answer = house.post("/v1/chat/completions", body).await;
        assert!(
            answer.text().contains("\"error\":") && !answer.text().contains("[DONE]"),
            "{}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn a_whole_answer_that_breaks_is_tried_again_unseen() {
    let house = House::new("\nfallbacks: [claude-opus-5-5]").await;
    let answer = house.post("/v1/chat/completions", chat("gpt-5.2+cut-after:3", "hi")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.headers["x-omega-provider"], "anthropic");
}

#[tokio::test]
async fn who_waits_for_a_turn_is_kept_alive_if_that_was_asked_for() {
    let limits = "
rate_limiting: {openai: {max_requests_per_minute: 60, burst_seconds: 1, depth_margin_seconds: 0}}
gateway: {queue_keep_alive_seconds: 0.1}
";
    let house = House::with(EmulatorConfig::default(), limits, GatewayOptions::default()).await;
    assert_eq!(house.post("/v1/chat/completions", chat("gpt-5.2", "hi")).await.status, 200);
    let answer = house.post("/v1/chat/completions", streamed_chat("gpt-5.2", "hi")).await;
    assert_eq!(answer.streamed(), ("You said: hi".into(), true), "{}", answer.text());
    let comments = answer.text().lines().filter(|line| line.starts_with(": ")).count();
    assert!((2..=15).contains(&comments), "{comments}: one every tenth of about a second\n{}", answer.text());
    // A failure comes as an event then: the status has been said.
    let impossible = streamed_chat("gpt-5.2+invalid-request", "hi");
    let answer = house.post("/v1/chat/completions", impossible).await;
    assert_eq!(answer.status, 200);
    assert!(
        answer.text().contains("data: {\"error\":") && !answer.text().contains("[DONE]"),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn a_slow_reader_slows_the_provider_down() {
    let house = House::new("").await;
    let mut body = streamed_chat("gpt-5.2", "[[output-tokens:300000]] hi");
    body["max_completion_tokens"] = 300_000.into();
    let (_, mut stream) = house.stream("/v1/chat/completions", body).await;
    stream.chunk().await.expect("a frame").expect("bytes");
    let mut before = 0;
    // It comes to rest when everything in between is full.
    let resting = async {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = house.seen().last().expect("a request").content_events;
            if now == before {
                return now;
            }
            before = now;
        }
    };
    let written = tokio::time::timeout(Duration::from_secs(30), resting).await.expect("it comes to rest");
    assert!(written < 250_000, "{written}: nobody read, and nearly all of it was taken in");
    drop(stream);
    house.settled().await;
}
