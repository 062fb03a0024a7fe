//! Emulated providers, clients that call them over real HTTP, and the vendors that the tests walk through.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use omega_client::{
    Builder, ChatCall, ChatResponse, Environment, Error, FileChoice, Sources, UnifiedLLMClient,
};
use omega_emulator::{Emulator, EmulatorConfig, Finished, RequestRecord, Rule, Scenario};
use omega_protocol::ChatAccumulator;
use omega_transport::{HttpTransport, Sending, Transport, TransportConfig};
use serde_json::Value;

/// One provider as the client knows it.
#[derive(Clone, Copy, Debug)]
pub struct Vendor {
    pub name: &'static str,
    /// What the emulator calls it.
    pub emulated: &'static str,
    /// A model that answers without reasoning first.
    pub model: &'static str,
    /// A model that reasons when asked to.
    pub reasoning_model: &'static str,
    pub key: &'static str,
}

/// The four built-in providers, and a server of one's own that speaks like OpenAI.
pub const VENDORS: [Vendor; 5] = [
    Vendor {
        name: "openai",
        emulated: "openai",
        model: "gpt-5.2",
        reasoning_model: "gpt-5.2",
        key: "sk-KEYOPENAI",
    },
    Vendor {
        name: "anthropic",
        emulated: "anthropic",
        model: "claude-opus-5-5",
        reasoning_model: "claude-opus-5-5",
        key: "sk-ant-KEYANTHROPIC",
    },
    Vendor {
        name: "google",
        emulated: "google",
        model: "gemini-3.5-flash",
        reasoning_model: "gemini-3.5-flash",
        key: "AIzaKEYGOOGLE",
    },
    Vendor {
        name: "grok",
        emulated: "grok",
        model: "grok-4-fast-non-reasoning",
        reasoning_model: "grok-4.6",
        key: "xai-KEYGROK",
    },
    Vendor {
        name: "house",
        emulated: "openai",
        model: "house-1",
        reasoning_model: "house/gpt-5.2",
        key: "sk-KEYHOUSE",
    },
];

pub const OPENAI: Vendor = VENDORS[0];
pub const ANTHROPIC: Vendor = VENDORS[1];
pub const GOOGLE: Vendor = VENDORS[2];

/// How long anything here may take before the test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Emulated providers that accept the keys of [`VENDORS`] only.
pub fn config() -> EmulatorConfig {
    let mut config = EmulatorConfig::default();
    config.providers.openai.keys = vec![OPENAI.key.into(), VENDORS[4].key.into()];
    config.providers.anthropic.keys = vec![ANTHROPIC.key.into()];
    config.providers.google.keys = vec![GOOGLE.key.into()];
    config.providers.grok.keys = vec![VENDORS[3].key.into()];
    config
}

pub async fn emulator() -> Emulator {
    Emulator::start(config()).await.unwrap()
}

/// A client of this emulator with every key, short backoffs and, at the built-in providers, no limits: in real time
/// the default ones would only make the tests slow.
pub fn builder(emulator: &Emulator, yaml: &str) -> Builder {
    let house = emulator.base_url("openai");
    let free = "{max_requests_per_minute: unlimited, max_tokens_per_minute: unlimited, max_concurrent_requests: unlimited}";
    let file = format!(
        "providers:
  house: {{protocol: openai, base_url: '{house}', api_key_env: HOUSE_KEY, models: ['house-*']}}
  anthropic: {{api_version: '2023-06-01'}}
rate_limiting:
  openai: {free}
  anthropic: {free}
  google: {free}
  grok: {free}
  house: {{max_requests_per_minute: 777777, max_tokens_per_minute: 99999999}}
{yaml}"
    );
    let sources = Sources {
        file: FileChoice::Text { name: "test.yaml".into(), yaml: file },
        environment: Environment::from_pairs([("HOUSE_KEY", VENDORS[4].key)]),
        ..Sources::default()
    };
    let mut builder =
        UnifiedLLMClient::builder().sources(sources).seed(7).setting("backoff.base_delay", "0.01");
    for vendor in &VENDORS[..4] {
        builder =
            builder.api_key(vendor.name, vendor.key).base_url(vendor.name, emulator.base_url(vendor.name));
    }
    builder
}

pub fn client(emulator: &Emulator) -> UnifiedLLMClient {
    builder(emulator, "").build().unwrap()
}

/// The three ways of one chat call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A whole answer, asked for as a stream so that the clocks guard it.
    Guarded,
    /// A whole answer, asked for as such.
    Whole,
    Stream,
}

pub const WAYS: [Way; 3] = [Way::Guarded, Way::Whole, Way::Stream];

/// One emulator, and a client for each way.
pub struct Wire {
    pub emulator: Emulator,
    guarded: UnifiedLLMClient,
    whole: UnifiedLLMClient,
}

impl Wire {
    pub async fn new() -> Self {
        Self::with(config(), "").await
    }

    pub async fn with(config: EmulatorConfig, yaml: &str) -> Self {
        let emulator = Emulator::start(config).await.unwrap();
        let built = |guard: &str| {
            builder(&emulator, yaml).setting("streaming.guard_whole_answers", guard).build().unwrap()
        };
        Self { guarded: built("true"), whole: built("false"), emulator }
    }

    pub fn client(&self, way: Way) -> &UnifiedLLMClient {
        if way == Way::Whole { &self.whole } else { &self.guarded }
    }

    pub async fn ask(&self, way: Way, call: impl Into<ChatCall>) -> Result<Heard, Error> {
        heard(self.client(way), way, call).await
    }

    /// The last request the emulator saw, once it has ended.
    pub async fn last(&self) -> RequestRecord {
        settled(&self.emulator).await.pop().expect("there was a request")
    }
}

/// An answer, however it came.
#[derive(Debug)]
pub struct Heard {
    pub response: ChatResponse,
    pub provider: String,
    pub model: String,
    pub attempts: usize,
}

pub async fn heard(client: &UnifiedLLMClient, way: Way, call: impl Into<ChatCall>) -> Result<Heard, Error> {
    if way != Way::Stream {
        let answer = client.chat(call).await?;
        let attempts = answer.attempts.len();
        return Ok(Heard {
            provider: answer.provider,
            model: answer.model,
            attempts,
            response: answer.response,
        });
    }
    let mut stream = client.chat_stream(call).await?;
    let mut answer = ChatAccumulator::new();
    while let Some(chunk) = stream.next().await {
        answer.push(&chunk?);
    }
    let response = answer.finish();
    // What the stream says of its cost is what its last chunks said.
    let usage = response.usage.as_ref().map(|usage| (usage.prompt_tokens, usage.completion_tokens));
    assert_eq!(stream.usage().map(|usage| (usage.input_tokens, usage.output_tokens)), usage);
    Ok(Heard {
        provider: stream.provider().to_owned(),
        model: stream.model().to_owned(),
        attempts: stream.attempts().len(),
        response,
    })
}

/// Waits, bounded, until something is so.
pub async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// All requests the emulator saw, once none is in progress.
pub async fn settled(emulator: &Emulator) -> Vec<RequestRecord> {
    eventually("every request has ended", || {
        let records = emulator.requests();
        records.iter().all(|record| record.finished != Finished::InProgress).then_some(records)
    })
    .await
}

/// Requests that reached this emulated provider.
pub fn asked(emulator: &Emulator, provider: &str) -> usize {
    emulator.requests().iter().filter(|record| record.provider.name() == provider).count()
}

/// A rule for this fault that always fires.
pub fn rule(fault: &str) -> Rule {
    Rule::new(fault.parse::<omega_emulator::FaultSpec>().unwrap())
}

/// From now on this fault everywhere, or at one provider.
pub fn fail(emulator: &Emulator, provider: Option<&str>, fault: &str) {
    let provider = provider.map(|name| omega_emulator::Provider::from_name(name).unwrap());
    play(emulator, Rule { provider, ..rule(fault) });
}

/// From now on this rule.
pub fn play(emulator: &Emulator, rule: Rule) {
    emulator.set_scenario(Scenario { rules: vec![rule], ..Scenario::default() });
}

pub fn heal(emulator: &Emulator) {
    emulator.set_scenario(Scenario::default());
}

/// Real HTTP, with a look at what is sent.
pub struct Recorder {
    inner: HttpTransport,
    sent: Mutex<Vec<Sent>>,
}

#[derive(Clone, Debug)]
pub struct Sent {
    pub path: String,
    pub body: Value,
}

impl Recorder {
    pub fn new() -> Arc<Self> {
        let inner = HttpTransport::new(TransportConfig::default()).unwrap();
        Arc::new(Self { inner, sent: Mutex::default() })
    }

    pub fn last(&self) -> Sent {
        self.sent.lock().unwrap().last().cloned().expect("something was sent")
    }
}

impl Transport for Recorder {
    fn send(&self, request: Request<Bytes>) -> Sending<'_> {
        let body = serde_json::from_slice(request.body()).unwrap_or(Value::Null);
        self.sent.lock().unwrap().push(Sent { path: request.uri().path().to_owned(), body });
        self.inner.send(request)
    }
}

/// Nothing is held: no permit, no place, no call, no connection in use.
pub async fn assert_nothing_held(client: &UnifiedLLMClient) {
    let stats = client.resilience_stats();
    assert_eq!(stats.details.calls.in_flight, 0, "calls in flight");
    for (name, provider) in &stats.details.providers {
        assert_eq!(provider.permits_in_flight, 0, "permits of {name}");
        assert_eq!(provider.queued, 0, "places at {name}");
        assert_eq!(provider.probes_in_flight, 0, "probes of {name}");
        assert_eq!(stats.rate_limiters[name].concurrent_requests, 0, "slots of {name}");
    }
    // Connections are given back by tasks of the transport.
    eventually("no connection is in use", || {
        let pool = client.pool_stats().unwrap();
        (pool.in_flight() == 0 && pool.waiting() == 0).then_some(())
    })
    .await;
}
