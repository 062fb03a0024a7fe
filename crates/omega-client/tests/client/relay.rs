//! Calls that are passed on for somebody else, on paused time.

use std::time::Duration;

use bytes::Bytes;
use omega_client::{
    Call, CallerProtocol, ErrorKind, RelayRequest, RelayStream, Relayed, RelayedAnswer, Streaming,
    UnifiedLLMClient,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::*;

fn asked(stream: bool) -> Value {
    json!({"model": "gpt-5.2", "stream": stream, "messages": [{"role": "user", "content": "hi"}], "vendor": {"b": 1, "a": 2}})
}

fn chat(body: &Value) -> Call<RelayRequest> {
    let body = Bytes::from(body.to_string());
    Call::new(RelayRequest::read(CallerProtocol::ChatCompletions, body).unwrap())
}

async fn whole(client: &UnifiedLLMClient, call: Call<RelayRequest>) -> RelayedAnswer {
    match client.relay(call).await.unwrap() {
        Relayed::Whole(answer) => answer,
        Relayed::Stream(stream) => panic!("{stream:?}"),
    }
}

async fn stream(client: &UnifiedLLMClient, call: Call<RelayRequest>) -> RelayStream {
    match client.relay(call).await.unwrap() {
        Relayed::Stream(stream) => stream,
        Relayed::Whole(answer) => panic!("{answer:?}"),
    }
}

async fn read(stream: &mut RelayStream) -> String {
    let mut all = Vec::new();
    while let Some(bytes) = std::future::poll_fn(|cx| stream.poll_bytes(cx)).await {
        all.extend_from_slice(&bytes);
    }
    String::from_utf8(all).unwrap()
}

fn json_answer(said: &str) -> Reply {
    let body = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-5.2", "own": [3, 1],
        "choices": [{"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    });
    Reply {
        headers: vec![("content-type", "application/json".into())],
        ..Reply::new(200, [text(body.to_string())])
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_protocol_on_both_sides_passes_the_answer_as_it_is() {
    let reply = json_answer("Hello");
    let Some(Step::Text(sent)) = reply.steps.first().cloned() else { unreachable!("it has one step") };
    let upstream = Upstream::sequence([reply]);
    let client = client(&upstream);
    let answer = whole(&client, chat(&asked(false))).await;
    assert_eq!(answer.body, sent.as_bytes());
    assert_eq!((&*answer.provider, &*answer.model), ("openai", "gpt-5.2"));
    assert_eq!(answer.usage.unwrap().input_tokens, 10);
    let seen = &upstream.seen()[0].body;
    assert_eq!(seen["vendor"], json!({"b": 1, "a": 2}), "what is the provider's goes along");
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn failures_are_waited_out_and_retried_on_the_clients_clock() {
    let upstream = Upstream::sequence([openai::server_error(), openai::server_error(), json_answer("Hello")]);
    let client = client(&upstream);
    let start = Instant::now();
    let answer = whole(&client, chat(&asked(false))).await;
    assert_eq!(answer.attempts.len(), 3);
    let times = upstream.times(start);
    assert!((1.0..=2.2).contains(&(times[1] - times[0])), "{times:?}");
    assert!((2.0..=4.2).contains(&(times[2] - times[1])), "{times:?}");
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn fallbacks_named_in_the_request_are_ours_and_translated() {
    let upstream = Upstream::by_provider(|provider, _| match provider {
        "openai" => openai::server_error(),
        _ => anthropic::answer("Hello from the other"),
    });
    let client = client(&upstream);
    let mut body = asked(false);
    body["fallbacks"] = json!(["claude-opus-5-5"]);
    let answer = whole(&client, chat(&body).max_attempts(1)).await;
    assert_eq!(answer.provider, "anthropic");
    let said: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(said["choices"][0]["message"]["content"], "Hello from the other");
    assert_eq!(said["model"], "claude-opus-5-5");
    assert!(upstream.seen().iter().all(|seen| seen.body.get("fallbacks").is_none()), "they are never sent");
}

#[tokio::test(start_paused = true)]
async fn a_stream_passes_as_it_comes_and_settles_at_its_end() {
    let steps = [
        openai::role(),
        openai::content("Hel"),
        wait(20.0),
        openai::content("lo"),
        openai::finish(),
        openai::done(),
    ];
    let sent: String = steps
        .iter()
        .filter_map(|step| if let Step::Text(text) = step { Some(&**text) } else { None })
        .collect();
    let upstream = Upstream::sequence([Reply::new(200, steps)]);
    let client = client(&upstream);
    let start = Instant::now();
    let mut stream = stream(&client, chat(&asked(true))).await;
    assert!(start.elapsed() < Duration::from_secs(1), "it begins with its first content");
    assert_eq!(client.resilience_stats().details.providers["openai"].permits_in_flight, 1);
    let got = read(&mut stream).await;
    assert_eq!(got, sent);
    assert!(stream.error().is_none());
    assert!(start.elapsed() >= Duration::from_secs(20));
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_falls_silent_ends_with_an_error_and_without_an_end() {
    let steps = [openai::role(), openai::content("Hel"), Step::Hang];
    let upstream = Upstream::sequence([Reply::new(200, steps)]);
    let client = client(&upstream);
    let start = Instant::now();
    let mut stream = stream(&client, chat(&asked(true))).await;
    let got = read(&mut stream).await;
    // The gap between two pieces of content: 60 s.
    assert!((60.0..61.0).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
    assert!(!got.contains("[DONE]"), "{got}");
    assert!(got.contains("\"error\""), "{got}");
    assert_eq!(stream.error().unwrap().kind(), ErrorKind::StreamBroken);
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_caller_leaves_gives_back_what_it_held() {
    let steps = [openai::role(), openai::content("Hel"), Step::Hang];
    let upstream = Upstream::sequence([Reply::new(200, steps)]);
    let client = client(&upstream);
    let stream = stream(&client, chat(&asked(true))).await;
    assert_eq!(client.resilience_stats().details.providers["openai"].permits_in_flight, 1);
    drop(stream);
    assert_nothing_held(&client);
    assert_eq!(client.resilience_stats().circuit_breakers["openai"].failure_count, 0, "nobody's failure");
}

#[tokio::test(start_paused = true)]
async fn a_broken_stream_is_gone_on_with_where_that_is_configured() {
    let upstream = Upstream::by_provider(|provider, _| match provider {
        "openai" => Reply::new(200, [openai::role(), openai::content("Hello"), Step::Break]),
        _ => anthropic::answer("Hello, world"),
    });
    let yaml = "streaming: {on_stream_break: restart}\nfallbacks: [claude-opus-5-5]";
    let client = configured(&upstream, yaml).build().unwrap();
    let mut stream = stream(&client, chat(&asked(true))).await;
    let got = read(&mut stream).await;
    let said: String = got
        .lines()
        .filter_map(|line| line.strip_prefix("data: {"))
        .map(|rest| serde_json::from_str::<Value>(&format!("{{{rest}")).unwrap())
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(said, "Hello, world", "{got}");
    assert!(got.ends_with("data: [DONE]\n\n"), "{got}");
    assert_eq!(stream.continued(), 1);
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_no_target_can_express_names_its_field() {
    let upstream = Upstream::sequence([anthropic::answer("never")]);
    let client = client(&upstream);
    let body = json!({"model": "claude-opus-5-5", "n": 3, "messages": [{"role": "user", "content": "hi"}]});
    let error = client.relay(chat(&body)).await.unwrap_err();
    assert_eq!((error.kind(), error.param()), (ErrorKind::Unsupported, Some("n")));
    assert_eq!(upstream.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_protocol_that_names_the_model_in_the_path_is_told_it() {
    let upstream = Upstream::sequence([openai::answer("Hello")]);
    let client = client(&upstream);
    let body = Bytes::from(json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}).to_string());
    let request = RelayRequest::read(CallerProtocol::GenerateContent, body).unwrap();
    let request = request.model("gpt-5.2").streaming(Streaming::Whole);
    let answer = whole(&client, Call::new(request)).await;
    let said: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(said["candidates"][0]["content"]["parts"][0]["text"], "Hello");
    assert_eq!(upstream.asked("openai"), 1);
}
