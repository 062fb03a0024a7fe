//! A gateway in front of an emulator, both real, and a caller that speaks plain HTTP.

use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use omega_client::{Config, Environment, FileChoice, Sources, UnifiedLLMClient};
use omega_emulator::{Emulator, EmulatorConfig, RequestRecord, Scenario};
use omega_gateway::{Gateway, GatewayError, GatewayOptions};
use omega_transport::{Body, HttpTransport, Transport as _, TransportConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longer than anything here takes; a test that waits for it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Limits out of the way, backoffs short: what is tested here is the gateway.
pub(crate) const QUICK: &str = "
resilience: {max_retries: 2}
backoff: {base_delay: 0.01, max_delay: 0.05}
rate_limiting:
  openai: {max_requests_per_minute: 1000000, max_tokens_per_minute: 1000000000, max_concurrent_requests: 10000}
  anthropic: {max_requests_per_minute: 1000000, max_tokens_per_minute: 1000000000, max_concurrent_requests: 10000}
  google: {max_requests_per_minute: 1000000, max_tokens_per_minute: 1000000000, max_concurrent_requests: 10000}
  grok: {max_requests_per_minute: 1000000, max_tokens_per_minute: 1000000000, max_concurrent_requests: 10000}
";

pub(crate) struct House {
    pub(crate) emulator: Emulator,
    pub(crate) gateway: Gateway,
    transport: HttpTransport,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Whether the body ended as it should.
    pub(crate) is_whole: bool,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// What an OpenAI stream says, and whether it says that it is whole.
    pub(crate) fn streamed(&self) -> (String, bool) {
        let mut said = String::new();
        for data in self.text().lines().filter_map(|line| line.strip_prefix("data: ")) {
            if data == "[DONE]" {
                return (said, true);
            }
            let chunk: Value = serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"));
            said.push_str(chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
        }
        (said, false)
    }
}

/// The configuration as a test writes it, with the emulator's addresses in it.
pub(crate) fn sources(emulator: &Emulator, yaml: &str) -> Sources {
    let keys =
        ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "XAI_API_KEY"].map(|name| (name, "k"));
    let urls = ["openai", "anthropic", "google", "grok"]
        .map(|name| (format!("OMEGA_PROVIDERS_{}_BASE_URL", name.to_uppercase()), emulator.base_url(name)));
    let pairs = keys.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).chain(urls);
    Sources {
        file: FileChoice::Text { name: "test.yaml".into(), yaml: yaml.into() },
        environment: Environment::from_pairs(pairs),
        ..Sources::default()
    }
}

pub(crate) fn client(sources: &Sources) -> UnifiedLLMClient {
    let loaded = Config::load(sources).unwrap_or_else(|error| panic!("{error}"));
    UnifiedLLMClient::builder().config(loaded).build().expect("a client")
}

impl House {
    /// - `yaml`: beside [`QUICK`]; no key may stand in both.
    pub(crate) async fn new(yaml: &str) -> Self {
        Self::with(EmulatorConfig::default(), &format!("{QUICK}{yaml}"), GatewayOptions::default()).await
    }

    pub(crate) async fn with(config: EmulatorConfig, yaml: &str, options: GatewayOptions) -> Self {
        let emulator = Emulator::start(config).await.expect("an emulator");
        let sources = options.sources.clone().unwrap_or_else(|| sources(&emulator, yaml));
        let gateway = start(&sources, options).await.unwrap_or_else(|error| panic!("{error}"));
        let transport = HttpTransport::new(TransportConfig::default()).expect("a transport");
        Self { emulator, gateway, transport }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway.address())
    }

    /// Fails as the scenario says from now on.
    pub(crate) fn scenario(&self, yaml: &str) {
        self.emulator.set_scenario(Scenario::parse(yaml).expect("a scenario"));
    }

    /// What the providers have seen.
    pub(crate) fn seen(&self) -> Vec<RequestRecord> {
        self.emulator.requests()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(self.url(path)), Bytes::new()).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.post_as(path, &[], body).await
    }

    /// With headers beside the type of the body.
    pub(crate) async fn post_as(&self, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
        let mut request = Request::post(self.url(path)).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request, body.to_string().into()).await
    }

    async fn send(&self, request: http::request::Builder, body: Bytes) -> Answer {
        let request = request.body(body).expect("a request");
        let answering = async {
            let mut response = self.transport.send(request).await.expect("an answer");
            let (body, is_whole) = read(&mut response.body).await;
            Answer { status: response.head.status, headers: response.head.headers, body, is_whole }
        };
        tokio::time::timeout(PATIENCE, answering).await.expect("an answer in time")
    }

    /// Begins a stream and gives back its body to be read piece by piece.
    pub(crate) async fn stream(&self, path: &str, body: Value) -> (StatusCode, Body) {
        let request = Request::post(self.url(path)).header("content-type", "application/json");
        let request = request.body(body.to_string().into()).expect("a request");
        let response = self.transport.send(request).await.expect("an answer");
        (response.head.status, response.body)
    }

    /// Sends bytes as they are and reads until the gateway closes, or says nothing for a while.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.gateway.address()).await.expect("a connection");
        // It may have been refused before all of it was taken.
        let _ = stream.write_all(bytes).await;
        let mut said = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await;
        String::from_utf8_lossy(&said).into_owned()
    }

    /// Waits until nothing is under way any more, here and at the providers.
    pub(crate) async fn settled(&self) {
        let idle = || {
            let stats = self.gateway.client().resilience_stats();
            let held: u64 = stats.details.providers.values().map(|of| of.permits_in_flight + of.queued).sum();
            held == 0 && self.gateway.in_flight() == 0
        };
        let waiting = async {
            while !idle() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("everything is given back");
    }
}

pub(crate) async fn start(sources: &Sources, options: GatewayOptions) -> Result<Gateway, GatewayError> {
    let listen = options.listen.or_else(|| "127.0.0.1:0".parse().ok());
    let workers = options.workers.or(NonZeroUsize::new(1));
    Gateway::start(client(sources), GatewayOptions { listen, workers, ..options }).await
}

async fn read(body: &mut Body) -> (Bytes, bool) {
    let mut all = Vec::new();
    loop {
        match body.chunk().await {
            Some(Ok(chunk)) => all.extend_from_slice(&chunk),
            Some(Err(_)) => return (all.into(), false),
            None => return (all.into(), true),
        }
    }
}

/// A chat request.
pub(crate) fn chat(model: &str, text: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": text}]})
}

/// The same as a stream.
pub(crate) fn streamed_chat(model: &str, text: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": text}], "stream": true})
}

/// A chat request as it goes over a raw connection.
pub(crate) fn posted(body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let length = body.len();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}
