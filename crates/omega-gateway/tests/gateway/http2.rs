//! Callers that speak HTTP/2 from the first byte, many requests on one connection.

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use omega_emulator::EmulatorConfig;
use omega_gateway::GatewayOptions;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use crate::house::*;

async fn connect(house: &House) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(house.gateway.address()).await.expect("a connection");
    let (sender, connection) =
        handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("a handshake");
    TaskTracker::new().spawn(connection);
    sender
}

fn request(house: &House, body: &Value) -> Request<Full<Bytes>> {
    let request = Request::post(house.url("/v1/chat/completions")).header("content-type", "application/json");
    request.body(Full::from(body.to_string())).expect("a request")
}

fn chat(text: &str, stream: bool) -> Value {
    json!({"model": "gpt-5.2", "stream": stream, "messages": [{"role": "user", "content": text}]})
}

#[tokio::test]
async fn many_calls_share_one_connection() {
    let house = House::new("").await;
    let sender = connect(&house).await;
    let calls = (0..200).map(|at| {
        let (mut sender, stream) = (sender.clone(), at % 2 == 1);
        let request = request(&house, &chat(&format!("{at}"), stream));
        async move {
            let answer = sender.send_request(request).await.unwrap();
            assert_eq!((answer.status(), answer.version()), (StatusCode::OK, Version::HTTP_2));
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            let text = String::from_utf8(body.to_vec()).unwrap();
            match stream {
                true => assert!(text.ends_with("data: [DONE]\n\n"), "{text}"),
                false => assert!(text.contains(&format!("You said: {at}")), "{text}"),
            }
        }
    });
    join_all(calls).await;
    assert_eq!(house.gateway.in_flight(), 0);
}

#[tokio::test]
async fn a_stream_that_is_reset_ends_its_call_and_no_other() {
    let yaml = "providers: {openai: {latency: {base_s: 0.01, tokens_per_s: 50}}}";
    let config = EmulatorConfig::from_yaml(yaml).unwrap();
    let house = House::with(config, QUICK, GatewayOptions::default()).await;
    let mut sender = connect(&house).await;
    let long = "word ".repeat(400);
    let mut left = sender.send_request(request(&house, &chat(&long, true))).await.unwrap().into_body();
    let kept = sender.send_request(request(&house, &chat("one two three four", true))).await.unwrap();
    left.frame().await.unwrap().unwrap();
    assert_eq!(house.gateway.in_flight(), 2);
    drop(left);
    let whole = kept.into_body().collect().await.unwrap().to_bytes();
    assert!(whole.ends_with(b"data: [DONE]\n\n"));
    let held = || house.gateway.client().resilience_stats().details.providers["openai"].permits_in_flight;
    for _ in 0..500 {
        if held() == 0 && house.gateway.in_flight() == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{} permits are still held, {} requests run", held(), house.gateway.in_flight());
}

#[tokio::test]
async fn an_error_is_an_answer_there_too() {
    let house = House::new("").await;
    let mut sender = connect(&house).await;
    let answer =
        sender.send_request(request(&house, &json!({"model": "gpt-5.2", "messages": 3}))).await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    let body: Value =
        serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(body["error"]["param"], "messages");
    let answer = sender.send_request(request(&house, &chat("still there", false))).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
}
