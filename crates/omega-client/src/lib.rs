//! Calls language models of several providers through one client that stays inside their quotas and alive through
//! their failures.
//!
//! [`UnifiedLLMClient`] puts three layers around every call: a rate limiter that waits its turn instead of drawing
//! 429s, a circuit breaker that leaves a provider alone while it is down, and retries with backoff; then fallbacks to
//! other models, one deadline over everything, and clocks that catch a silent stream. A truncated answer is never
//! presented as success.
//!
//! ```no_run
//! # async fn example() -> Result<(), omega_client::Error> {
//! use omega_client::{ChatCall, ChatRequest, Message, UnifiedLLMClient};
//!
//! // Keys come from the environment (OPENAI_API_KEY, ANTHROPIC_API_KEY, …), settings from config/resilience.yaml.
//! let client = UnifiedLLMClient::builder().fallbacks(["claude-opus-5-5"]).build()?;
//!
//! let request = ChatRequest::new("gpt-5.2", [Message::user("Why is the sky blue?")]).max_tokens(300);
//! let answer = client.chat(ChatCall::new(request).timeout(std::time::Duration::from_secs(30))).await?;
//! println!("{} says: {}", answer.provider, answer.text());
//!
//! println!("{}", serde_json::to_string_pretty(&client.resilience_stats()).expect("statistics are plain data"));
//! # Ok(())
//! # }
//! ```
//!
//! What lives here: the loop (`driver`), the shared pipelines (`scope`), the clocks (`watch`, `reader`), statistics and
//! the wording of logs (`telemetry`). What may not: wire formats, state machines, sockets.

mod answer;
mod asked;
mod builder;
mod call;
mod circuit;
mod client;
mod clock;
mod driver;
mod error;
mod events;
mod exchange;
mod gate;
mod hedge_budget;
mod reader;
mod refusal;
mod registry;
mod relay;
mod reload;
mod scope;
mod send;
mod stats;
mod store;
mod streams;
mod sync;
mod telemetry;
mod tenants;
mod watch;

pub use answer::{Answer, Attempt, AttemptOutcome};
pub use builder::{Builder, Given};
pub use call::{Call, ChatCall, EmbeddingsCall, ResponsesCall};
pub use circuit::{Circuit, CircuitPass};
pub use client::UnifiedLLMClient;
pub use clock::{Clock, SystemClock};
pub use error::{Error, ErrorKind, Origin};
pub use events::{ClientEvent, Events, EventsError, TransitionEvent};
pub use gate::{Gate, GateLimits, Pass};
pub use relay::{Counted, RelayEmbeddings, RelayRequest, RelayStream, Relayed, RelayedAnswer};
pub use stats::{
    CallDetails, CircuitBreakerStats, Details, PoolDetails, ProviderDetails, RateLimiterStats,
    ResilienceStats, SharedDetails,
};
pub use store::{FleetReport, SharedStore, StoreError, WireGrant, WireRequest};
pub use streams::{ChatStream, ResponsesStream};
pub use telemetry::LOG_TARGET;

// What a caller needs to write a request and read an answer, so that one crate in `Cargo.toml` is enough.
pub use omega_config::{Config, Environment, FileChoice, Loaded, Sources};
pub use omega_policy::{
    Backoff, BreakerConfig as BreakerSettings, BreakerState, Chance, FailureKind, FailureRate, Holder,
    Jitter, Ledger, Priority, Usage as TokenUsage,
};
pub use omega_protocol::{
    CallerError, CallerProtocol, ChatChunk, ChatRequest, ChatResponse, Content, ContentPart,
    EmbeddingsRequest, EmbeddingsResponse, FinishReason, Message, ReasoningEffort, RequestError,
    ResponseEvent, ResponseFormat, ResponsesRequest, ResponsesResponse, Role, Streaming, Tool, ToolChoice,
    Usage,
};
pub use omega_transport::{PoolStats, Transport, TransportConfig};

/// The README's examples are compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
