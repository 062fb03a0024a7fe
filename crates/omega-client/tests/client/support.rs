//! A scripted upstream, the wire texts of two vendors, and a log that can be read.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::Request;
use omega_client::{Builder, Environment, FileChoice, Sources, UnifiedLLMClient};
use omega_transport::{Body, Response, Sending, Transport, TransportError, TransportErrorKind};
use serde_json::{Value, json};
use tokio::time::Instant;

/// One request as the upstream saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub at: Instant,
    pub host: String,
    pub path: String,
    /// The key it came with, bare.
    pub key: Option<String>,
    pub body: Value,
}

/// One step of an answer's body.
#[derive(Clone, Debug)]
pub enum Step {
    Text(String),
    Wait(Duration),
    Break,
    Hang,
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub wait: Duration,
    /// `None`: the head never comes.
    pub status: Option<u16>,
    pub refused: Option<TransportErrorKind>,
    pub headers: Vec<(&'static str, String)>,
    pub steps: Vec<Step>,
}

impl Reply {
    pub fn new(status: u16, steps: impl IntoIterator<Item = Step>) -> Self {
        let kind = if status == 200 { "text/event-stream" } else { "application/json" };
        Self {
            wait: Duration::from_millis(100),
            status: Some(status),
            refused: None,
            headers: vec![("content-type", kind.to_owned())],
            steps: steps.into_iter().collect(),
        }
    }

    /// An error with this JSON body.
    pub fn error(status: u16, body: &Value) -> Self {
        Self::new(status, [Step::Text(body.to_string())])
    }

    /// A refused connection.
    pub fn refused() -> Self {
        Self { refused: Some(TransportErrorKind::Connect), ..Self::new(200, []) }
    }

    /// Accepts and never says a word.
    pub fn silence() -> Self {
        Self { status: None, ..Self::new(200, []) }
    }

    /// Answers with the head after this long.
    pub fn after(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

type Handler = dyn Fn(&Seen, usize) -> Reply + Send + Sync;

/// The upstream: a function from a request (and how many came before it) to an answer.
pub struct Upstream {
    handler: Box<Handler>,
    seen: Mutex<Vec<Seen>>,
}

impl Upstream {
    pub fn new(handler: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { handler: Box::new(handler), seen: Mutex::new(Vec::new()) })
    }

    /// Answers in this order; the last answer again and again.
    pub fn sequence(replies: impl IntoIterator<Item = Reply>) -> Arc<Self> {
        let replies: Vec<Reply> = replies.into_iter().collect();
        Self::new(move |_, at| replies[at.min(replies.len() - 1)].clone())
    }

    /// Answers by host: `openai`, `anthropic`, …, the first part of the host's name.
    pub fn by_provider(handler: impl Fn(&str, usize) -> Reply + Send + Sync + 'static) -> Arc<Self> {
        let counts: Mutex<std::collections::HashMap<String, usize>> = Mutex::default();
        Self::new(move |seen, _| {
            let name = provider_of(&seen.host).to_owned();
            let at = {
                let mut counts = counts.lock().unwrap();
                let count = counts.entry(name.clone()).or_default();
                *count += 1;
                *count - 1
            };
            handler(&name, at)
        })
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Requests so far.
    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// Requests to this provider so far.
    pub fn asked(&self, provider: &str) -> usize {
        self.seen().iter().filter(|seen| provider_of(&seen.host) == provider).count()
    }

    /// When each request came, since `start`, in seconds.
    pub fn times(&self, start: Instant) -> Vec<f64> {
        self.seen().iter().map(|seen| seen.at.duration_since(start).as_secs_f64()).collect()
    }
}

pub fn provider_of(host: &str) -> &str {
    match host {
        "api.openai.com" => "openai",
        "api.anthropic.com" => "anthropic",
        "generativelanguage.googleapis.com" => "google",
        "api.x.ai" => "grok",
        other => other,
    }
}

fn key_of(headers: &http::HeaderMap) -> Option<String> {
    let of = |name: &str| headers.get(name)?.to_str().ok();
    let bearer = of("authorization").and_then(|value| value.strip_prefix("Bearer "));
    bearer.or_else(|| of("x-api-key")).or_else(|| of("x-goog-api-key")).map(str::to_owned)
}

impl Transport for Upstream {
    fn send(&self, request: Request<Bytes>) -> Sending<'_> {
        let seen = Seen {
            at: Instant::now(),
            host: request.uri().host().unwrap_or_default().to_owned(),
            path: request.uri().path().to_owned(),
            key: key_of(request.headers()),
            body: serde_json::from_slice(request.body()).unwrap_or(Value::Null),
        };
        let at = {
            let mut all = self.seen.lock().unwrap();
            all.push(seen.clone());
            all.len() - 1
        };
        let reply = (self.handler)(&seen, at);
        Box::pin(async move {
            tokio::time::sleep(reply.wait).await;
            if let Some(kind) = reply.refused {
                return Err(TransportError::new(kind, "connection refused"));
            }
            let Some(status) = reply.status else { return std::future::pending().await };
            let mut head = http::Response::builder().status(status);
            for (name, value) in &reply.headers {
                head = head.header(*name, value);
            }
            let (head, ()) = head.body(()).expect("the scripted head is valid").into_parts();
            Ok(Response { head, body: body(reply.steps) })
        })
    }
}

fn body(steps: Vec<Step>) -> Body {
    let chunks = stream::unfold(VecDeque::from(steps), |mut steps| async move {
        match steps.pop_front()? {
            Step::Text(text) => Some((Some(Ok(Bytes::from(text))), steps)),
            Step::Wait(span) => {
                tokio::time::sleep(span).await;
                Some((None, steps))
            }
            Step::Break => {
                Some((Some(Err(TransportError::new(TransportErrorKind::Reset, "connection reset"))), steps))
            }
            Step::Hang => std::future::pending().await,
        }
    });
    Body::from_stream(chunks.filter_map(std::future::ready).boxed())
}

pub fn text(text: impl Into<String>) -> Step {
    Step::Text(text.into())
}

pub fn wait(seconds: f64) -> Step {
    Step::Wait(Duration::from_secs_f64(seconds))
}

fn event(value: &Value) -> String {
    format!("data: {value}\n\n")
}

/// OpenAI's wire text.
pub mod openai {
    use super::*;

    fn chunk(delta: &Value, finish: Option<&str>) -> String {
        event(&json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_790_000_000, "model": "gpt-5.2",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]
        }))
    }

    pub fn role() -> Step {
        text(chunk(&json!({"role": "assistant", "content": ""}), None))
    }

    pub fn content(said: &str) -> Step {
        text(chunk(&json!({"content": said}), None))
    }

    pub fn keep_alive() -> Step {
        text(": keep-alive\n\n")
    }

    pub fn finish() -> Step {
        text(chunk(&json!({}), Some("stop")))
    }

    pub fn usage(input: u64, output: u64) -> Step {
        text(event(&json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_790_000_000, "model": "gpt-5.2",
            "choices": [],
            "usage": {"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output}
        })))
    }

    pub fn done() -> Step {
        text("data: [DONE]\n\n")
    }

    /// A healthy streamed answer.
    pub fn answer(said: &str) -> Reply {
        Reply::new(200, [role(), content(said), finish(), usage(10, 5), done()])
    }

    pub fn error(status: u16, kind: &str, code: &str, message: &str) -> Reply {
        Reply::error(
            status,
            &json!({"error": {"message": message, "type": kind, "param": null, "code": code}}),
        )
    }

    pub fn server_error() -> Reply {
        error(500, "server_error", "internal_error", "The server had an error")
    }

    pub fn rate_limited() -> Reply {
        error(429, "requests", "rate_limit_exceeded", "Rate limit reached for gpt-5.2")
    }

    pub fn insufficient_quota() -> Reply {
        error(429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota")
    }
}

/// Anthropic's wire text.
pub mod anthropic {
    use super::*;

    fn named(name: &str, value: &Value) -> Step {
        text(format!("event: {name}\ndata: {value}\n\n"))
    }

    pub fn start() -> Step {
        named(
            "message_start",
            &json!({"type": "message_start", "message": {
                "id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": "claude-opus-5-5",
                "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 10, "output_tokens": 1}
            }}),
        )
    }

    pub fn block() -> Step {
        named(
            "content_block_start",
            &json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        )
    }

    pub fn ping() -> Step {
        named("ping", &json!({"type": "ping"}))
    }

    pub fn content(said: &str) -> Step {
        named(
            "content_block_delta",
            &json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": said}}),
        )
    }

    pub fn end() -> Vec<Step> {
        vec![
            named("content_block_stop", &json!({"type": "content_block_stop", "index": 0})),
            named(
                "message_delta",
                &json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null},
                    "usage": {"output_tokens": 5}}),
            ),
            named("message_stop", &json!({"type": "message_stop"})),
        ]
    }

    pub fn answer(said: &str) -> Reply {
        let mut steps = vec![start(), ping(), block(), content(said)];
        steps.extend(end());
        Reply::new(200, steps)
    }

    pub fn overloaded() -> Reply {
        Reply::error(
            529,
            &json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
        )
    }
}

/// A client over this upstream with keys for OpenAI and Anthropic, no file and no environment.
pub fn client(upstream: &Arc<Upstream>) -> UnifiedLLMClient {
    builder(upstream).build().expect("the client is valid")
}

pub fn builder(upstream: &Arc<Upstream>) -> Builder {
    bare(upstream).openai_api_key("sk-test-key-1").anthropic_api_key("sk-ant-test-key-2")
}

/// The same without keys.
pub fn bare(upstream: &Arc<Upstream>) -> Builder {
    let sources = Sources { file: FileChoice::None, environment: Environment::empty(), ..Sources::default() };
    UnifiedLLMClient::builder().sources(sources).transport(Arc::clone(upstream) as Arc<dyn Transport>).seed(7)
}

/// With this configuration file.
pub fn configured(upstream: &Arc<Upstream>, yaml: &str) -> Builder {
    builder(upstream).config_text("test.yaml", yaml)
}

/// Nothing is held: no permit, no place, no call.
pub fn assert_nothing_held(client: &UnifiedLLMClient) {
    let stats = client.resilience_stats();
    assert_eq!(stats.details.calls.in_flight, 0, "calls in flight");
    for (name, provider) in &stats.details.providers {
        assert_eq!(provider.permits_in_flight, 0, "permits of {name}");
        assert_eq!(provider.queued, 0, "places at {name}");
        assert_eq!(provider.probes_in_flight, 0, "probes of {name}");
        assert_eq!(stats.rate_limiters[name].concurrent_requests, 0, "slots of {name}");
    }
}

/// The lines logged on this thread while it lives.
pub struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    _guard: tracing::subscriber::DefaultGuard,
    /// While there is only one subscriber, `tracing` asks the thread that comes to a line first whether anybody
    /// listens, and keeps the answer for all threads. With a second one it asks them all.
    _second: tracing::Dispatch,
}

impl Log {
    pub fn capture() -> Self {
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let guard = tracing::subscriber::set_default(Recorder { lines: Arc::clone(&lines) });
        let second = tracing::Dispatch::new(Recorder { lines: Arc::default() });
        Self { lines, _guard: guard, _second: second }
    }

    /// Lines of the client's own target, as they are.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    pub fn has(&self, line: &str) -> bool {
        self.lines().iter().any(|known| known == line)
    }

    pub fn count(&self, line: &str) -> usize {
        self.lines().iter().filter(|known| *known == line).count()
    }
}

/// Records every event of every level and target, message and fields, and every span's fields.
struct Recorder {
    lines: Arc<Mutex<Vec<String>>>,
}

struct Fields(String);

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        use std::fmt::Write;
        if field.name() == "message" {
            write!(self.0, "{value:?}").unwrap();
        } else {
            write!(self.0, " {}={value:?}", field.name()).unwrap();
        }
    }
}

impl tracing::Subscriber for Recorder {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        let mut fields = Fields(String::new());
        span.record(&mut fields);
        self.lines.lock().unwrap().push(fields.0);
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        let mut fields = Fields(String::new());
        values.record(&mut fields);
        self.lines.lock().unwrap().push(fields.0);
    }

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        self.lines.lock().unwrap().push(fields.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
