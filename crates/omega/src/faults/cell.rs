//! One meeting of a client and a fault.

use std::time::Duration;

use anyhow::{Context, ensure};
use omega_client::{ChatCall, Error, ErrorKind, UnifiedLLMClient};
use omega_config::{Config, StreamClocks};
use omega_emulator::{Emulator, Fault, FaultSpec, Provider, RequestRecord, Rule};
use omega_protocol::{ChatRequest, FinishReason, Message};
use secrecy::SecretString;

use super::{DEADLINE, Settings};
use crate::clock::Stopwatch;

/// The emulator runs ten times faster, so that a fault of seconds takes tenths.
pub(super) const TIME_SCALE: f64 = 10.0;

/// What every cell asks. The answer is an echo, cut at 24 tokens: long enough for every fault that strikes after a few
/// events, and the same words every time.
const PROMPT: &str = "Say this back to me, please: the quick brown fox jumps over the lazy dog, \
     and the lazy dog does not mind at all, because it is asleep. [[output-tokens:24]] [[reasoning-tokens:0]]";

/// How the answer was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Whole.
    Chat,
    /// As a stream.
    Stream,
}

impl Call {
    /// `chat` or `stream`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Stream => "stream",
        }
    }
}

/// One meeting and what came of it.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The fault, with its parameter.
    pub fault: FaultSpec,
    /// How the answer was asked for.
    pub call: Call,
    /// Whether there was another target.
    pub has_fallback: bool,
    /// How it ended.
    pub ending: Ending,
    /// How long it took, in real time.
    pub elapsed: Duration,
    /// What the failing provider saw: (arrival, end), in real seconds, in order.
    pub asked: Vec<(f64, Option<f64>)>,
    /// How often the other target was asked.
    pub asked_elsewhere: usize,
    /// The name of the failing provider.
    pub provider: Provider,
    /// The name of the other one.
    pub other: Provider,
    pub(super) models: [String; 2],
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Answered.
    Answered {
        /// By whom.
        by: String,
        /// The provider's reason to stop, `stop` for an ordinary end.
        finish: String,
        /// Whether the text is what a healthy provider says to the same prompt.
        is_whole: bool,
    },
    /// An error.
    Failed {
        /// What kind.
        kind: ErrorKind,
        /// Its HTTP status.
        status: Option<u16>,
        /// Its words.
        message: String,
        /// Characters that had reached the caller before it.
        delivered: usize,
    },
}

impl Cell {
    /// Takes from the journal what belongs to this cell: its models are nobody else's.
    pub(super) fn with_journal(mut self, journal: &[RequestRecord]) -> Self {
        let [own, other] = &self.models;
        let real = |trace_s: f64| trace_s / TIME_SCALE;
        self.asked = journal
            .iter()
            .filter(|record| record.model == *own)
            .map(|record| (real(record.at), record.finished_at.map(real)))
            .collect();
        self.asked_elsewhere = journal.iter().filter(|record| record.model == *other).count();
        self
    }
}

/// A meeting that has not happened yet.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    fault: FaultSpec,
    call: Call,
    has_fallback: bool,
    provider: Provider,
    other: Provider,
    models: [String; 2],
}

impl Planned {
    /// The emulator's rule: this model of this provider, and no other, fails in this way.
    pub(super) fn rule(&self) -> Rule {
        let mut rule = Rule::new(self.fault.clone());
        rule.provider = Some(self.provider);
        rule.model = Some(self.models[0].clone());
        rule
    }
}

/// Every fault, four times.
pub(super) fn plans(settings: &Settings) -> Vec<Planned> {
    let provider = settings.provider;
    let other = other(provider);
    let mut plans = Vec::new();
    for fault in &settings.faults {
        for call in [Call::Chat, Call::Stream] {
            for has_fallback in [false, true] {
                let number = plans.len();
                let models = [provider, other].map(|provider| format!("{}-cell{number}", family(provider)));
                plans.push(Planned { fault: spec(*fault), call, has_fallback, provider, other, models });
            }
        }
    }
    plans
}

/// The fault with a parameter that fits the clocks here: a hint is a whole second or more (`retry-after` knows no
/// less), silence is longer than every clock, a huge body is large and still quick.
fn spec(fault: Fault) -> FaultSpec {
    let parameter = match fault {
        Fault::RateLimited | Fault::SlowDown | Fault::Unavailable | Fault::Overloaded => Some("10"),
        Fault::RateLimitedMs => Some("4"),
        Fault::RateLimitedDate => Some("20"),
        Fault::SlowHeaders | Fault::SlowFirstToken => Some("60"),
        Fault::HugeBody => Some("4"),
        _ => None,
    };
    FaultSpec { parameter: parameter.map(String::from), ..FaultSpec::new(fault) }
}

fn other(provider: Provider) -> Provider {
    if provider == Provider::Anthropic { Provider::OpenAi } else { Provider::Anthropic }
}

/// The beginning of a model's name, by which a client knows whose it is.
fn family(provider: Provider) -> &'static str {
    match provider {
        Provider::OpenAi => "gpt-5.2",
        Provider::Anthropic => "claude-sonnet-5",
        Provider::Google => "gemini-3-flash",
        Provider::Grok => "grok-4",
    }
}

/// The specification's policies with short clocks. A silent provider costs a second here.
fn config(emulator: &Emulator) -> Config {
    let mut config = Config::default();
    config.timeout = DEADLINE;
    config.failover_wait = Duration::from_millis(500);
    config.backoff.base_delay = Duration::from_millis(50);
    config.backoff.max_delay = Duration::from_millis(400);
    let clocks = StreamClocks {
        first_byte: Duration::from_secs(1),
        first_content: Duration::from_millis(1_200),
        reasoning_first_content: Duration::from_millis(1_200),
        gap: Duration::from_secs(1),
        ..StreamClocks::default()
    };
    config.streaming = clocks.clone();
    for settings in config.providers_mut() {
        settings.base_url = Some(emulator.base_url(&settings.name));
        settings.api_key = Some(SecretString::from("demonstration"));
        settings.streaming = clocks.clone();
    }
    config
}

fn client(
    emulator: &Emulator,
    models: &[String; 2],
    has_fallback: bool,
    seed: u64,
) -> anyhow::Result<UnifiedLLMClient> {
    let mut config = config(emulator);
    config.model.clone_from(&models[0]);
    config.fallbacks = has_fallback.then(|| models[1].clone()).into_iter().collect();
    UnifiedLLMClient::builder().config(config).seed(seed).build().context("the client cannot be built")
}

/// What healthy providers say: the failing one's words and the other's, to compare with.
#[derive(Clone, Debug)]
pub(super) struct Whole([String; 2]);

/// Asks both providers while they are well.
pub(super) async fn healthy(emulator: &Emulator, settings: &Settings) -> anyhow::Result<Whole> {
    let models =
        [settings.provider, other(settings.provider)].map(|provider| format!("{}-healthy", family(provider)));
    let client = client(emulator, &models, false, settings.seed)?;
    let mut texts = Vec::new();
    for model in &models {
        let request = ChatRequest::new(model.as_str(), [Message::user(PROMPT)]);
        let answer = client.chat(request).await.context("a healthy provider must answer")?;
        ensure!(!answer.text().is_empty(), "a healthy provider must say something");
        texts.push(answer.text().to_owned());
    }
    let texts: [String; 2] = texts.try_into().expect("two models were asked");
    Ok(Whole(texts))
}

/// Makes the call and notes how it ends.
pub(super) async fn meet(
    planned: Planned,
    emulator: &Emulator,
    whole: &Whole,
    seed: u64,
) -> anyhow::Result<Cell> {
    let Planned { fault, call, has_fallback, provider, other, models } = planned;
    let client = client(emulator, &models, has_fallback, seed)?;
    let request = ChatCall::new(ChatRequest::new("", [Message::user(PROMPT)]));
    let watch = Stopwatch::start();
    let ending = match call {
        Call::Chat => as_whole(&client, request, provider, whole).await,
        Call::Stream => as_stream(&client, request, provider, whole).await,
    };
    let elapsed = watch.elapsed();
    Ok(Cell {
        fault,
        call,
        has_fallback,
        ending,
        elapsed,
        asked: Vec::new(),
        asked_elsewhere: 0,
        provider,
        other,
        models,
    })
}

async fn as_whole(client: &UnifiedLLMClient, call: ChatCall, provider: Provider, whole: &Whole) -> Ending {
    match client.chat(call).await {
        Ok(answer) => answered(&answer.provider, answer.finish_reason(), answer.text(), provider, whole),
        Err(error) => failed(&error, 0),
    }
}

async fn as_stream(client: &UnifiedLLMClient, call: ChatCall, provider: Provider, whole: &Whole) -> Ending {
    let mut stream = match client.chat_stream(call).await {
        Ok(stream) => stream,
        Err(error) => return failed(&error, 0),
    };
    let mut text = String::new();
    let mut finish = None;
    while let Some(chunk) = stream.next().await {
        match chunk {
            Ok(chunk) => {
                text.push_str(chunk.text());
                if let Some(reason) = chunk.choices.first().and_then(|choice| choice.finish_reason.clone()) {
                    finish = Some(reason);
                }
            }
            Err(error) => return failed(&error, text.chars().count()),
        }
    }
    answered(stream.provider(), finish, &text, provider, whole)
}

fn answered(by: &str, finish: Option<FinishReason>, text: &str, provider: Provider, whole: &Whole) -> Ending {
    let expected = if by == provider.name() { &whole.0[0] } else { &whole.0[1] };
    let word = serde_json::to_value(&finish).ok().and_then(|word| word.as_str().map(String::from));
    Ending::Answered {
        by: by.to_owned(),
        finish: word.unwrap_or_else(|| String::from("none")),
        is_whole: text == expected,
    }
}

fn failed(error: &Error, delivered: usize) -> Ending {
    Ending::Failed { kind: error.kind(), status: error.status(), message: error.to_string(), delivered }
}
