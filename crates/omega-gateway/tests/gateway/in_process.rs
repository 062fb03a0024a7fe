//! The gateway without a socket of its own.

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode};
use omega_gateway::{BrokenOff, InProcess};
use serde_json::{Value, json};

use crate::house::*;

async fn call(gateway: &InProcess, path: &str, body: &Value) -> (StatusCode, Result<String, BrokenOff>) {
    let mut request = Request::post(path).body(Bytes::from(body.to_string())).expect("a request");
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    // As a library that fills in its own host would; it does not matter here.
    request.headers_mut().insert("host", HeaderValue::from_static("api.openai.com"));
    request.headers_mut().insert("origin", HeaderValue::from_static("https://example.org"));
    let mut answer = gateway.call(request).await;
    let mut text = Vec::new();
    while let Some(piece) = answer.next().await {
        match piece {
            Ok(bytes) => text.extend_from_slice(&bytes),
            Err(broken) => return (answer.status, Err(broken)),
        }
    }
    (answer.status, Ok(String::from_utf8(text).expect("text")))
}

fn chat(model: &str, stream: bool) -> Value {
    json!({"model": model, "stream": stream, "messages": [{"role": "user", "content": "a b c d e f g"}]})
}

#[tokio::test]
async fn it_serves_what_a_listening_one_serves() {
    let house = House::new("").await;
    let gateway = InProcess::new(house.gateway.client());
    for model in ["gpt-5.2", "claude-opus-5-5", "gemini-3.5-flash"] {
        let (status, body) = call(&gateway, "/v1/chat/completions", &chat(model, false)).await;
        let body: Value = serde_json::from_str(&body.unwrap()).unwrap();
        assert_eq!(status, StatusCode::OK, "{body}");
        assert_eq!(body["choices"][0]["message"]["content"], "You said: a b c d e f g");
        let (status, events) = call(&gateway, "/v1/chat/completions", &chat(model, true)).await;
        assert_eq!(status, StatusCode::OK);
        assert!(events.unwrap().ends_with("data: [DONE]\n\n"), "{model}");
    }
    let (status, body) =
        call(&gateway, "/v1/embeddings", &json!({"model": "text-embedding-3-small", "input": "a"})).await;
    assert_eq!(status, StatusCode::OK, "{body:?}");
    let (status, _) = call(&gateway, "/v1/nothing", &json!({})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, body) =
        call(&gateway, "/v1/chat/completions", &json!({"model": "gpt-5.2", "messages": 3})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body:?}");
}

#[tokio::test]
async fn a_stream_that_breaks_never_looks_whole() {
    let house = House::new("").await;
    house.scenario("rules: [{fault: 'cut-after:3'}]");
    let gateway = InProcess::new(house.gateway.client());
    let (status, events) = call(&gateway, "/v1/chat/completions", &chat("gpt-5.2", true)).await;
    assert_eq!(status, StatusCode::OK);
    if let Ok(events) = events {
        assert!(!events.contains("[DONE]"), "{events}");
        assert!(events.contains("\"error\""), "{events}");
    }
}

#[tokio::test]
async fn whoever_can_call_it_may() {
    let hash = "0".repeat(64);
    let house = House::new(&format!("keys: {{team: {{hash: 'sha256:{hash}'}}}}")).await;
    assert_eq!(
        house.post("/v1/chat/completions", chat("gpt-5.2", false)).await.status,
        StatusCode::UNAUTHORIZED
    );
    let gateway = InProcess::new(house.gateway.client());
    let (status, body) = call(&gateway, "/v1/chat/completions", &chat("gpt-5.2", false)).await;
    assert_eq!(status, StatusCode::OK, "{body:?}");
}
