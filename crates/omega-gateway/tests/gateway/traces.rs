//! Spans as a collector gets them, over real OTLP.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use omega_emulator::EmulatorConfig;
use omega_gateway::{GatewayOptions, Traces};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;

use crate::house::{House, QUICK, chat, streamed_chat};

type Collected = Arc<Mutex<Vec<ExportTraceServiceRequest>>>;

async fn collector() -> (String, Collected) {
    let collected = Collected::default();
    let take = |State(collected): State<Collected>, body: Bytes| async move {
        let request = ExportTraceServiceRequest::decode(body).expect("protobuf");
        collected.lock().expect("nobody panicked").push(request);
    };
    let router = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&collected));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}/v1/traces", listener.local_addr().expect("an address"));
    tokio_util::task::TaskTracker::new().spawn(async move { axum::serve(listener, router).await });
    (endpoint, collected)
}

fn text(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.clone()?.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(truth)) => truth.to_string(),
        _ => String::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_a_span_and_each_attempt_one_below_it() {
    let (endpoint, collected) = collector().await;
    let traces = Traces::otlp(Some(&endpoint)).expect("an exporter");
    let options = GatewayOptions { traces: Some(traces), ..GatewayOptions::default() };
    let yaml = format!("{QUICK}fallbacks: [claude-haiku-4-5]\n");
    let house = House::with(EmulatorConfig::default(), &yaml, options).await;
    house.scenario("rules: [{provider: openai, fault: server-error, first: 2}]");
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let secret = "a prompt that nobody else may read";
    let answer =
        house.post_as("/v1/chat/completions", &[("traceparent", parent)], chat("gpt-5.2", secret)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = house.post("/v1/chat/completions", streamed_chat("gpt-5.2", secret)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    house.settled().await;
    // Stopping sends what is still here.
    house.gateway.shutdown().await;

    let collected = collected.lock().expect("nobody panicked");
    let resources = collected.iter().flat_map(|request| &request.resource_spans);
    let spans: Vec<&Span> =
        resources.flat_map(|resource| &resource.scope_spans).flat_map(|scope| &scope.spans).collect();
    let requests: Vec<&&Span> = spans.iter().filter(|span| span.kind == SpanKind::Server as i32).collect();
    assert_eq!(requests.len(), 2);
    let first = requests.iter().find(|span| !span.parent_span_id.is_empty()).expect("the caller's trace");
    assert_eq!(
        first.trace_id,
        [0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36]
    );
    assert_eq!(first.parent_span_id, [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]);
    assert_eq!(first.name, "chat gpt-5.2");
    assert_eq!(text(first, "gen_ai.provider.name"), "anthropic");
    assert_eq!(text(first, "http.response.status_code"), "200");
    assert!(!text(first, "gen_ai.usage.input_tokens").is_empty());

    let attempts: Vec<&&Span> = spans.iter().filter(|span| span.parent_span_id == first.span_id).collect();
    let outcomes: Vec<String> = attempts.iter().map(|span| text(span, "omega.attempt.outcome")).collect();
    assert_eq!(outcomes, ["failed", "failed", "answered"]);
    for (at, attempt) in attempts.iter().enumerate() {
        assert_eq!((attempt.kind, &attempt.trace_id), (SpanKind::Client as i32, &first.trace_id));
        let within = attempt.start_time_unix_nano >= first.start_time_unix_nano
            && attempt.end_time_unix_nano >= attempt.start_time_unix_nano
            && attempt.end_time_unix_nano <= first.end_time_unix_nano;
        assert!(within, "attempt {at}: {attempt:?} in {first:?}");
    }
    assert_eq!(text(attempts[0], "http.response.status_code"), "500");
    assert_eq!(text(attempts[0], "gen_ai.provider.name"), "openai");
    assert_eq!(text(attempts[2], "gen_ai.request.model"), "claude-haiku-4-5");

    let second = requests.iter().find(|span| span.parent_span_id.is_empty()).expect("a trace of its own");
    assert_eq!(text(second, "gen_ai.request.stream"), "true");
    assert_eq!(spans.iter().filter(|span| span.parent_span_id == second.span_id).count(), 1);
    assert!(!format!("{spans:?}").contains(secret), "no prompt in any span");
}
