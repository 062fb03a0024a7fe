//! What is beside chat: API versions, embeddings, the Responses API, and a server of one's own.

use omega_client::{
    ChatRequest, EmbeddingsRequest, ErrorKind, Message, ResponsesRequest, ResponsesResponse, UnifiedLLMClient,
};
use omega_emulator::Endpoint;
use omega_protocol::{EmbeddingVector, EmbeddingsInput};
use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn both_versions_of_anthropic_are_spoken() {
    for (version, auth) in [("2023-06-01", "x-api-key"), ("2026-10-21", "authorization")] {
        let setting = ("providers.anthropic.api_version", version);
        let emulator = emulator().await;
        let client = builder(&emulator, "").setting(setting.0, setting.1).build().unwrap();
        for way in [Way::Guarded, Way::Stream] {
            // An older model: it takes a temperature under the old version, and the new version refuses one.
            let ask =
                ChatRequest::new("claude-haiku-4-5-20251001", [Message::user("Hello")]).temperature(0.5);
            let heard = heard(&client, way, ask).await.unwrap();
            assert_eq!(heard.response.text(), "You said: Hello");
            let seen = settled(&emulator).await.pop().unwrap();
            assert_eq!(seen.headers.anthropic_version.as_deref(), Some(version));
            assert_eq!(seen.headers.auth, [auth]);
        }
    }
}

#[tokio::test]
async fn both_versions_of_google_are_spoken() {
    for version in ["v1", "v1beta"] {
        let emulator = emulator().await;
        let recorder = Recorder::new();
        let client = builder(&emulator, "")
            .setting("providers.google.api_version", version)
            .transport(recorder.clone())
            .build()
            .unwrap();
        for way in [Way::Guarded, Way::Stream] {
            let heard =
                heard(&client, way, ChatRequest::new(GOOGLE.model, [Message::user("Hello")])).await.unwrap();
            assert_eq!(heard.response.text(), "You said: Hello");
            assert!(recorder.last().path.starts_with(&format!("/google/{version}/models/")));
        }
    }
}

#[tokio::test]
async fn embeddings_are_given_by_whoever_has_them() {
    let emulator = emulator().await;
    let client = client(&emulator);
    for (model, endpoint) in [
        ("text-embedding-3-small", Endpoint::Embeddings),
        ("house-embed", Endpoint::Embeddings),
        ("gemini-embedding-001", Endpoint::BatchEmbedContents),
    ] {
        let mut request = EmbeddingsRequest::new(model, ["one", "two"]);
        request.dimensions = Some(256);
        let answer = client.embeddings(request.clone()).await.unwrap();
        let mut vectors = Vec::new();
        for (at, embedding) in answer.data.iter().enumerate() {
            let EmbeddingVector::Floats(vector) = &embedding.embedding else { panic!("{embedding:?}") };
            assert_eq!((embedding.index as usize, vector.len()), (at, 256), "{model}");
            vectors.push(vector.clone());
        }
        assert_eq!(vectors.len(), 2, "{model}");
        assert!(answer.usage.as_ref().is_some_and(|usage| usage.prompt_tokens > 0), "{model}");
        assert_eq!(settled(&emulator).await.pop().unwrap().endpoint, endpoint);
        // The vectors belong to the texts, not to their places.
        request.input = EmbeddingsInput::Texts(vec!["two".into(), "one".into()]);
        let turned = client.embeddings(request.clone()).await.unwrap();
        let EmbeddingVector::Floats(first) = &turned.data[0].embedding else { panic!("{turned:?}") };
        assert!(vectors[0] != vectors[1] && *first == vectors[1], "{model}");

        request.encoding_format = Some("base64".into());
        match client.embeddings(request).await {
            Ok(answer) => {
                assert_eq!(endpoint, Endpoint::Embeddings);
                let EmbeddingVector::Base64(text) = &answer.data[0].embedding else { panic!("{answer:?}") };
                assert!(text.len() > 1_000, "{model}");
            }
            // Gemini gives numbers only; asking it would not help.
            Err(error) => {
                assert_eq!((endpoint, error.kind()), (Endpoint::BatchEmbedContents, ErrorKind::Unsupported));
            }
        }
    }
    emulator.clear_requests();
    for vendor in [ANTHROPIC, VENDORS[3]] {
        let error = client.embeddings(EmbeddingsRequest::new(vendor.model, ["one"])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert_eq!(error.provider(), Some(vendor.name));
    }
    assert!(emulator.requests().is_empty(), "what a provider does not offer is not asked for");
    assert_nothing_held(&client).await;
}

/// A response, whole or streamed.
async fn response(client: &UnifiedLLMClient, way: Way, ask: ResponsesRequest) -> ResponsesResponse {
    if way != Way::Stream {
        return client.responses(ask).await.unwrap().response;
    }
    let mut stream = client.responses_stream(ask).await.unwrap();
    let (mut said, mut last) = (String::new(), None);
    while let Some(event) = stream.next().await {
        let event = event.unwrap();
        said.push_str(event.text());
        last = event.response().or(last);
    }
    let last = last.expect("a stream ends with the whole response");
    assert_eq!(last.text(), said);
    let usage = last.usage.as_ref().unwrap();
    assert_eq!(stream.usage().map(|usage| usage.output_tokens), Some(usage.output_tokens));
    last
}

#[tokio::test]
async fn the_responses_api_is_spoken_whole_and_streamed() {
    let wire = Wire::new().await;
    for model in ["gpt-5.2", "grok-4.6", "house/gpt-5.2"] {
        for way in WAYS {
            let shown = format!("{model} {way:?}");
            let mut ask = ResponsesRequest::new(model, "Hello [[cached-tokens:3]]");
            ask.extra.insert("reasoning".into(), json!({"effort": "low"}));
            ask.extra.insert("metadata".into(), json!({"ticket": "42"}));
            let answer = response(wire.client(way), way, ask).await;
            assert_eq!(answer.text(), "You said: Hello [[cached-tokens:3]]", "{shown}");
            assert_eq!(answer.status, "completed", "{shown}");
            let (usage, seen) = (answer.usage.clone().unwrap(), wire.last().await);
            assert_eq!(seen.endpoint, Endpoint::Responses, "{shown}");
            assert_eq!(usage.input_tokens, seen.input_tokens, "{shown}");
            assert_eq!(usage.output_tokens, seen.output_tokens, "{shown}");
            assert_eq!(usage.cached_tokens(), 3, "{shown}");
            assert!(usage.reasoning_tokens() > 0, "{shown}");
            // A field that nobody here has a name for went there and came back.
            assert_eq!(answer.extra["metadata"], json!({"ticket": "42"}), "{shown}");

            let mut ask = ResponsesRequest::new(model, "Hello [[output-tokens:90]]");
            ask.max_output_tokens = Some(16);
            ask.extra.insert("reasoning".into(), json!({"effort": "none"}));
            let answer = response(wire.client(way), way, ask).await;
            assert_eq!(answer.status, "incomplete", "{shown}");
            assert_eq!(answer.extra["incomplete_details"]["reason"], "max_output_tokens", "{shown}");
        }
    }
    for vendor in [ANTHROPIC, GOOGLE] {
        let ask = ResponsesRequest::new(vendor.model, "Hello");
        let error = wire.client(Way::Whole).responses(ask).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
}

#[tokio::test]
async fn a_response_that_says_failed_is_a_failure() {
    let wire = Wire::new().await;
    for way in WAYS {
        for (code, kind, attempts) in [
            ("server_error", ErrorKind::Provider, 3),
            ("rate_limit_exceeded", ErrorKind::RateLimited, 3),
            // What the provider means by it is its policy.
            ("invalid_prompt", ErrorKind::ContentFilter, 1),
        ] {
            let client = builder(&wire.emulator, "")
                .setting("streaming.guard_whole_answers", (way != Way::Whole).to_string())
                .build()
                .unwrap();
            wire.emulator.clear_requests();
            fail(&wire.emulator, None, &format!("status-failed:{code}"));
            let ask = ResponsesRequest::new("gpt-5.2", "Hello");
            let error = match way {
                Way::Stream => client.responses_stream(ask).await.map(|_| ()).unwrap_err(),
                _ => client.responses(ask).await.map(|_| ()).unwrap_err(),
            };
            assert_eq!(error.kind(), kind, "{way:?} {code}: {error}");
            assert!(error.to_string().contains(code), "{error}");
            assert_eq!(wire.emulator.requests().len(), attempts, "{way:?} {code}");
            assert_nothing_held(&client).await;
        }
    }
}

#[tokio::test]
async fn a_server_of_ones_own_has_its_own_circuit_and_limits() {
    let emulator = emulator().await;
    let client = builder(&emulator, "").max_retries(1).build().unwrap();
    fail(&emulator, None, "server-error");
    for _ in 0..5 {
        client.chat(ChatRequest::new("house-1", [Message::user("Hi")])).await.unwrap_err();
    }
    heal(&emulator);
    let error = client.chat(ChatRequest::new("house-1", [Message::user("Hi")])).await.unwrap_err();
    assert_eq!((error.kind(), error.provider()), (ErrorKind::CircuitOpen, Some("house")));
    // The same server, but not the same circuit.
    let answer = client.chat(ChatRequest::new("gpt-5.2", [Message::user("Hi")])).await.unwrap();
    assert_eq!(answer.provider, "openai");
    let stats = serde_json::to_value(client.resilience_stats()).unwrap();
    assert_eq!(stats["circuit_breakers"]["house"]["state"], "open");
    assert_eq!(stats["circuit_breakers"]["openai"]["state"], "closed");
    assert_eq!(stats["circuit_breakers"]["openai"]["failure_count"], 0);
    let limits = |name: &str| {
        let limiter = &stats["rate_limiters"][name];
        let get = |key: &str| limiter[key].clone();
        (get("max_requests_per_minute"), get("max_tokens_per_minute"), get("requests_last_minute"))
    };
    assert_eq!(limits("house"), (json!(777_777), json!(99_999_999), json!(5)));
    assert_eq!(limits("openai"), (json!(null), json!(null), json!(1)));
}
