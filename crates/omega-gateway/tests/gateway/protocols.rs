//! Bytes pass where both sides speak the same protocol, and are translated elsewhere; what cannot be said is refused.

use serde_json::{Value, json};

use crate::house::{House, chat, streamed_chat};

#[tokio::test]
async fn a_chat_passes_and_says_who_answered() {
    let house = House::new("").await;
    let answer = house.post("/v1/chat/completions", chat("gpt-5.2", "hi")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "You said: hi");
    for (name, value) in
        [("x-omega-provider", "openai"), ("x-omega-model", "gpt-5.2"), ("x-omega-attempts", "1")]
    {
        assert_eq!(answer.headers[name], value, "{name}");
    }
    assert_eq!(answer.headers["x-omega-queued-ms"], "0");
    assert_eq!(answer.headers["x-request-id"], answer.headers["request-id"]);
    assert!(answer.headers["x-omega-upstream-request-id"].to_str().expect("text").starts_with("req_"));
}

#[tokio::test]
async fn the_callers_own_request_id_is_kept() {
    let house = House::new("").await;
    let answer =
        house.post_as("/v1/chat/completions", &[("x-request-id", "mine-1")], chat("gpt-5.2", "hi")).await;
    assert_eq!(answer.headers["x-request-id"], "mine-1");
}

#[tokio::test]
async fn fallbacks_of_the_request_are_tried_and_never_sent() {
    let house = House::new("").await;
    for field in ["fallbacks", "models"] {
        let mut request = chat("gpt-5.2+overloaded", "hi");
        request[field] = json!(["claude-opus-5-5"]);
        // The emulator refuses fields that it does not know.
        let answer = house.post("/v1/chat/completions", request).await;
        assert_eq!(answer.status, 200, "{field}: {}", answer.text());
        assert_eq!(answer.json()["model"], "claude-opus-5-5");
        assert_eq!(answer.headers["x-omega-provider"], "anthropic");
    }
}

#[tokio::test]
async fn what_another_protocol_cannot_say_is_refused_with_the_fields_name() {
    let house = House::new("").await;
    let messages = json!({
        "model": "gpt-5.2", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}],
        "tools": [{"type": "web_search_20250305", "name": "web_search"}],
    });
    let answer = house.post("/v1/messages", messages).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.text().contains("tools.0"), "{}", answer.text());
    assert_eq!(answer.json()["type"], "error");
    let responses = json!({"model": "claude-opus-5-5", "input": "hi", "previous_response_id": "resp_1"});
    let answer = house.post("/v1/responses", responses).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert_eq!(answer.json()["error"]["param"], "previous_response_id");
    assert!(house.seen().is_empty(), "nobody was asked");
}

#[tokio::test]
async fn gemini_streams_as_one_array_unless_it_is_asked_for_events() {
    let house = House::new("").await;
    let body = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]});
    for model in ["gemini-3.5-flash", "gpt-5.2"] {
        for version in ["v1", "v1beta"] {
            let path = format!("/{version}/models/{model}:streamGenerateContent");
            let answer = house.post(&path, body.clone()).await;
            assert_eq!(answer.headers["content-type"], "application/json");
            let said: String = answer
                .json()
                .as_array()
                .expect("an array")
                .iter()
                .filter_map(|chunk| chunk["candidates"][0]["content"]["parts"][0]["text"].as_str())
                .collect();
            assert_eq!(said, "You said: hi", "{model} {version}");
            let answer = house.post(&format!("{path}?alt=sse"), body.clone()).await;
            assert_eq!(answer.headers["content-type"], "text/event-stream");
            assert!(answer.text().starts_with("data: {"), "{}", answer.text());
        }
    }
}

#[tokio::test]
async fn the_usage_that_only_we_asked_for_is_taken_out_again() {
    let house = House::new("").await;
    let answer = house.post("/v1/chat/completions", streamed_chat("gpt-5.2", "hi")).await;
    assert_eq!(answer.streamed(), ("You said: hi".into(), true));
    assert!(!answer.text().contains("\"usage\":{"), "{}", answer.text());
    let mut request = streamed_chat("gpt-5.2", "hi");
    request["stream_options"] = json!({"include_usage": true});
    let answer = house.post("/v1/chat/completions", request).await;
    assert!(answer.text().contains("\"usage\":{"), "{}", answer.text());
}

#[tokio::test]
async fn a_wrong_path_or_method_says_what_is_meant() {
    let house = House::new("").await;
    let answer = house.post("/chat/completions", chat("gpt-5.2", "hi")).await;
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("/v1"), "{}", answer.text());
    let answer = house.post("/v1/v1/messages", chat("gpt-5.2", "hi")).await;
    assert!(answer.status == 404 && answer.text().contains("has no /v1"), "{}", answer.text());
    let answer = house.get("/v1/chat/completions").await;
    assert_eq!(answer.status, 405, "{}", answer.text());
}

#[tokio::test]
async fn every_path_of_the_description_is_served() {
    let house = House::new("").await;
    let described = house.get("/openapi.json").await.json();
    for (path, methods) in described["paths"].as_object().expect("paths") {
        let path = path.replace("{model}", "gpt-5.2");
        for method in methods.as_object().expect("methods").keys() {
            let answer = match method.as_str() {
                "get" => house.get(&path).await,
                _ => house.post(&path, Value::Object(serde_json::Map::new())).await,
            };
            let is_missing = answer.status == 405 || answer.text().contains("no_such_path");
            assert!(!is_missing, "{method} {path}: {} {}", answer.status, answer.text());
        }
    }
}

#[tokio::test]
async fn embeddings_pass_to_whom_the_model_names() {
    let house = House::new("").await;
    let request = json!({"model": "text-embedding-3-small", "input": ["a", "b"], "dimensions": 8});
    let answer = house.post("/v1/embeddings", request).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let said = answer.json();
    let sizes: Vec<_> =
        said["data"].as_array().expect("a list").iter().map(|one| &one["embedding"]).collect();
    assert!(sizes.len() == 2 && sizes.iter().all(|one| one.as_array().is_some_and(|all| all.len() == 8)));
    assert!(said["usage"]["prompt_tokens"].as_u64().is_some_and(|tokens| tokens > 0), "{said}");
    assert_eq!(answer.headers["x-omega-provider"], "openai");
    assert_eq!(house.seen().len(), 1);
    for (body, field) in [
        (json!({"model": "text-embedding-3-small"}), "input"),
        (json!({"input": "a"}), "model"),
        (json!({"model": 7, "input": "a"}), "model"),
    ] {
        let answer = house.post("/v1/embeddings", body).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(answer.json()["error"]["message"].as_str().is_some_and(|text| text.contains(field)));
    }
}

#[tokio::test]
async fn tokens_are_counted_by_a_provider_that_can_and_estimated_for_any_other() {
    let house = House::new("").await;
    let words = "word ".repeat(400);
    let messages =
        |model: &str| json!({"model": model, "messages": [{"role": "user", "content": words.clone()}]});
    let contents = json!({"contents": [{"role": "user", "parts": [{"text": words}]}]});
    for (model, asked) in [("claude-opus-5-5", 1), ("gpt-5.2", 0)] {
        let before = house.seen().len();
        let answer = house.post("/v1/messages/count_tokens", messages(model)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let tokens = answer.json()["input_tokens"].as_u64().expect("a number");
        assert!((200..1_000).contains(&tokens), "{model}: {tokens}");
        assert_eq!(house.seen().len() - before, asked, "{model}");
    }
    for (model, asked) in [("gemini-2.5-flash", 1), ("claude-opus-5-5", 0)] {
        let before = house.seen().len();
        let answer = house.post(&format!("/v1beta/models/{model}:countTokens"), contents.clone()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let tokens = answer.json()["totalTokens"].as_u64().expect("a number");
        assert!((200..1_000).contains(&tokens), "{model}: {tokens}");
        assert_eq!(house.seen().len() - before, asked, "{model}");
    }
    let answer = house.post("/v1/messages/count_tokens", json!({"model": 7, "messages": []})).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["type"]), (400, &json!("error")));
}
