//! Sixteen ways in which a primary fails, one by one: who answers, after how many attempts, and that the text is whole.
//!
//! The primary is OpenAI, the fallback Anthropic. Both speak as their emulated originals; the caller speaks OpenAI's
//! protocol and sees nothing of it but `x-omega-provider`.

use std::net::TcpListener;

use omega_emulator::EmulatorConfig;
use omega_gateway::GatewayOptions;

use crate::house::{Answer, House, QUICK, chat, streamed_chat};

/// More than forty tokens (of four bytes) to be said again.
fn long() -> String {
    (0..80).map(|number| format!("word{number:03} ")).collect::<String>().trim_end().to_owned()
}

const CLOCKS: &str = "streaming: {on_stream_break: continue, first_byte_seconds: 0.3, first_content_seconds: 0.3, \
reasoning_first_content_seconds: 0.3, gap_seconds: 0.3}";

async fn house(fallback: &str) -> House {
    let yaml = format!("{QUICK}{CLOCKS}\nfallbacks: [{fallback}]\n");
    House::with(EmulatorConfig::default(), &yaml, GatewayOptions::default()).await
}

/// Who answered, and after how many attempts.
fn story(answer: &Answer) -> (&str, &str) {
    let header = |name| answer.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    (header("x-omega-provider"), header("x-omega-attempts"))
}

/// The text of an answer, which must be whole.
fn said(answer: &Answer, stream: bool) -> String {
    if stream {
        let (said, is_whole) = answer.streamed();
        assert!(is_whole, "{}", answer.text());
        return said;
    }
    answer.json()["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned()
}

/// How often each of the two was asked.
fn asked(house: &House) -> (usize, usize) {
    let seen = house.seen();
    let count = |start: &str| seen.iter().filter(|request| request.model.starts_with(start)).count();
    (count("gpt"), count("claude"))
}

/// Asks for a whole answer and for a stream while the primary fails so; each comes whole from `provider` after so many
/// attempts, and the primary is asked so many times for each.
async fn answered(fault: &str, provider: &str, attempts: &str, primary: usize) {
    for stream in [false, true] {
        let house = house("claude-haiku-4-5").await;
        let text = long();
        let model = format!("gpt-5.2+{fault}");
        let body = if stream { streamed_chat(&model, &text) } else { chat(&model, &text) };
        let answer = house.post("/v1/chat/completions", body).await;
        assert_eq!(answer.status, 200, "{fault}: {}", answer.text());
        assert_eq!(said(&answer, stream), format!("You said: {text}"), "{fault}, stream: {stream}");
        assert_eq!(story(&answer), (provider, attempts), "{fault}, stream: {stream}");
        assert_eq!(asked(&house).0, primary, "{fault}, stream: {stream}");
        house.settled().await;
    }
}

#[tokio::test]
async fn s01_a_server_error_is_tried_again_and_then_answered_elsewhere() {
    answered("server-error", "anthropic", "3", 2).await;
}

#[tokio::test]
async fn s02_a_server_that_says_come_back_in_a_minute_is_left_at_once() {
    answered("unavailable:60", "anthropic", "2", 1).await;
}

#[tokio::test]
async fn s03_a_rate_limit_with_a_long_hint_is_left_at_once() {
    answered("rate-limited:60", "anthropic", "2", 1).await;
}

#[tokio::test]
async fn s04_a_rate_limit_with_a_short_hint_is_waited_out() {
    answered("rate-limited-ms:0.05,times=1", "openai", "2", 2).await;
}

#[tokio::test]
async fn s05_an_overloaded_provider_is_tried_again_and_then_left() {
    answered("overloaded", "anthropic", "3", 2).await;
}

#[tokio::test]
async fn s06_a_spent_quota_is_never_asked_again() {
    answered("insufficient-quota", "anthropic", "2", 1).await;
}

#[tokio::test]
async fn s07_a_refused_key_is_never_asked_again() {
    answered("bad-key", "anthropic", "2", 1).await;
}

#[tokio::test]
async fn s08_a_model_that_is_gone_is_answered_elsewhere() {
    answered("model-not-found", "anthropic", "2", 1).await;
}

#[tokio::test]
async fn s09_a_prompt_too_long_for_the_window_goes_to_the_larger_one() {
    answered("context-length", "anthropic", "2", 1).await;
}

#[tokio::test]
async fn s10_a_connection_that_is_reset_is_tried_again_and_then_left() {
    answered("reset-before-headers", "anthropic", "3", 2).await;
}

#[tokio::test]
async fn s11_a_provider_that_says_nothing_is_given_up() {
    answered("hang", "anthropic", "2", 1).await;
}

#[tokio::test]
async fn s12_an_answer_that_is_no_json_is_none() {
    answered("malformed-body", "anthropic", "3", 2).await;
}

#[tokio::test]
async fn s13_a_port_that_nobody_listens_on_is_answered_elsewhere() {
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let nobody = nobody.expect("a free port");
    let yaml = format!(
        "{QUICK}fallbacks: [claude-haiku-4-5]\n\
         providers: {{gone: {{protocol: openai, base_url: 'http://{nobody}/v1', models: ['gone-*']}}}}\n"
    );
    let house = House::with(EmulatorConfig::default(), &yaml, GatewayOptions::default()).await;
    for stream in [false, true] {
        let body = if stream { streamed_chat("gone-1", "hi") } else { chat("gone-1", "hi") };
        let answer = house.post("/v1/chat/completions", body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(story(&answer).0, "anthropic", "{}", answer.text());
        assert_eq!(said(&answer, stream), "You said: hi", "stream: {stream}");
    }
}

/// A stream that breaks after forty tokens, on the way to a fallback that goes on from there and to one that cannot.
async fn mended(fault: &str) {
    for fallback in ["claude-haiku-4-5", "claude-opus-5-5"] {
        let house = house(fallback).await;
        let model = format!("gpt-5.2+{fault}:40");
        let answer = house.post("/v1/chat/completions", streamed_chat(&model, &long())).await;
        assert_eq!(answer.status, 200, "{fault}: {}", answer.text());
        assert_eq!(answer.streamed(), (format!("You said: {}", long()), true), "{fault} to {fallback}");
        // Which had begun already: the head names who began it.
        assert_eq!(story(&answer).0, "openai", "{fault} to {fallback}");
        assert_eq!(asked(&house), (1, 1), "{fault} to {fallback}");
        house.settled().await;
    }
}

#[tokio::test]
async fn s14_a_stream_that_is_cut_is_gone_on_with() {
    mended("cut-after").await;
    mended("end-after").await;
}

#[tokio::test]
async fn s15_a_stream_that_falls_silent_is_gone_on_with() {
    mended("stall-after").await;
}

#[tokio::test]
async fn s16_an_error_in_the_middle_of_a_stream_is_gone_on_with() {
    mended("error-in-stream").await;
    mended("malformed-chunk").await;
}
