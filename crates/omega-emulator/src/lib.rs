//! Four LLM providers, pretended over real HTTP: OpenAI, Anthropic, Google (Gemini) and xAI (Grok).
//!
//! The emulator is an independent reading of the vendors' protocols. It checks requests as the real services do,
//! answers with text derived from the request and usage that adds up, enforces quotas, takes its time, and fails in
//! every way of a catalogue of [`Fault`]s: chosen by a request header, by a suffix of the model's name, or by a
//! [`Scenario`] over time. It shares no code with the client it is used to test.
//!
//! ```no_run
//! # async fn example() -> Result<(), omega_emulator::EmulatorError> {
//! use omega_emulator::{Emulator, EmulatorConfig};
//!
//! let emulator = Emulator::start(EmulatorConfig::default()).await?;
//! println!("OPENAI_BASE_URL={}", emulator.base_url("openai"));
//! // … call it with any client …
//! assert!(emulator.requests().is_empty());
//! emulator.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! The rooms: `server` accepts connections, `service` walks one request through its stages, `protocol` and `wire`
//! speak the vendors' languages, `answer` decides what to say, `quota` what is allowed, `fault`, `replies` and
//! `delivery` how to fail, `record` what to remember, `control` what may be asked and changed while it runs.

mod answer;
mod body;
mod clock;
mod config;
mod control;
mod credential;
mod delivery;
mod error;
mod fault;
mod fields;
mod limits;
mod problem;
mod protocol;
mod provider;
mod quota;
mod record;
mod replies;
mod scenario;
mod schema;
mod server;
mod service;
mod state;
mod text;
mod tls;
mod wire;

pub use config::{EmulatorConfig, Latency, ProviderSettings, Providers, Tls};
pub use error::EmulatorError;
pub use fault::{Fault, FaultParseError, FaultSpec, Parameter};
pub use provider::{Endpoint, Provider};
pub use quota::{ChargeRule, Quota, QuotaScope};
pub use record::{Finished, RequestRecord, SeenHeaders};
pub use scenario::{Rule, Scenario};
pub use server::Emulator;
