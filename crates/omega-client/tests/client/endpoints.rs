//! Embeddings and the Responses API go through the same loop.

use std::time::Duration;

use omega_client::{Call, EmbeddingsRequest, ErrorKind, ResponsesRequest};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::*;

fn embeddings() -> Reply {
    let body = json!({
        "object": "list", "model": "text-embedding-3-small",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -0.25]}],
        "usage": {"prompt_tokens": 7, "total_tokens": 7}
    });
    Reply {
        headers: vec![("content-type", "application/json".into())],
        ..Reply::new(200, [text(body.to_string())])
    }
}

fn response(status: &str) -> Value {
    json!({
        "id": "resp_1", "object": "response", "created_at": 1, "status": status, "model": "gpt-5.2", "error": null,
        "output": [{"type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
            "content": [{"type": "output_text", "text": "Hello", "annotations": []}]}],
        "usage": {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}
    })
}

fn event(kind: &str, fields: Value) -> Step {
    let mut data = fields;
    data["type"] = kind.into();
    text(format!("event: {kind}\ndata: {data}\n\n"))
}

pub fn streamed_response() -> Vec<Step> {
    vec![
        event("response.created", json!({"response": response("in_progress")})),
        event(
            "response.output_text.delta",
            json!({"item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": "Hello"}),
        ),
        event("response.completed", json!({"response": response("completed")})),
    ]
}

#[tokio::test(start_paused = true)]
async fn embeddings_are_retried_and_settled() {
    let upstream = Upstream::sequence([openai::server_error(), embeddings()]);
    let client = client(&upstream);
    let answer = client.embeddings(EmbeddingsRequest::new("text-embedding-3-small", ["Hi"])).await.unwrap();
    assert_eq!(answer.data.len(), 1);
    assert_eq!((answer.provider.as_str(), answer.attempts.len()), ("openai", 2));
    assert_eq!(upstream.seen()[1].path, "/v1/embeddings");
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn embeddings_never_turn_to_a_model_that_was_not_named_for_them() {
    let upstream = Upstream::sequence([openai::insufficient_quota()]);
    let client = configured(&upstream, "fallbacks: [claude-opus-5-5]").build().unwrap();
    let error =
        client.embeddings(EmbeddingsRequest::new("text-embedding-3-small", ["Hi"])).await.unwrap_err();
    assert_eq!((error.kind(), error.attempts().len()), (ErrorKind::QuotaExhausted, 1));
}

#[tokio::test(start_paused = true)]
async fn an_embedding_that_never_comes_is_caught_by_the_first_byte_clock() {
    let upstream = Upstream::sequence([Reply::silence()]);
    let start = Instant::now();
    let call = Call::new(EmbeddingsRequest::new("text-embedding-3-small", ["Hi"])).max_attempts(1);
    assert_eq!(client(&upstream).embeddings(call).await.unwrap_err().kind(), ErrorKind::Deadline);
    assert_eq!(start.elapsed(), Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn a_whole_response_is_guarded_by_a_stream() {
    let cut = Reply::new(200, streamed_response()[..2].to_vec());
    let upstream = Upstream::sequence([cut, Reply::new(200, streamed_response())]);
    let client = client(&upstream);
    let answer = client.responses(ResponsesRequest::new("gpt-5.2", "Hi")).await.unwrap();
    assert_eq!((answer.text().as_str(), answer.status.as_str()), ("Hello", "completed"));
    assert_eq!(answer.attempts.len(), 2);
    assert_eq!(upstream.seen()[0].body["stream"], true);
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn a_streamed_response_ends_with_its_usage_or_an_error() {
    let upstream = Upstream::sequence([
        Reply::new(200, streamed_response()),
        Reply::new(200, streamed_response()[..2].to_vec()),
    ]);
    let client = client(&upstream);
    let mut stream = client.responses_stream(ResponsesRequest::new("gpt-5.2", "Hi")).await.unwrap();
    let mut kinds = Vec::new();
    while let Some(event) = stream.next().await {
        kinds.push(event.unwrap().kind);
    }
    assert_eq!(kinds, ["response.created", "response.output_text.delta", "response.completed"]);
    assert_eq!(stream.usage().map(|usage| (usage.input_tokens, usage.output_tokens)), Some((5, 2)));
    let mut cut = client.responses_stream(ResponsesRequest::new("gpt-5.2", "Hi")).await.unwrap();
    let mut last = None;
    while let Some(event) = cut.next().await {
        last = Some(event);
    }
    assert_eq!(last.unwrap().unwrap_err().kind(), ErrorKind::StreamBroken);
    assert_nothing_held(&client);
}

#[tokio::test(start_paused = true)]
async fn a_response_in_the_background_is_asked_for_whole() {
    let body = response("queued").to_string();
    let upstream = Upstream::new(move |_, _| Reply {
        headers: vec![("content-type", "application/json".into())],
        ..Reply::new(200, [text(body.clone())])
    });
    let mut request = ResponsesRequest::new("gpt-5.2", "Hi");
    request.extra.insert("background".into(), true.into());
    let answer = client(&upstream).responses(request).await.unwrap();
    assert_eq!(answer.status, "queued");
    assert_ne!(upstream.seen()[0].body["stream"], true);
}
