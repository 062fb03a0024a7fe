//! The gateway: any OpenAI, Anthropic or Gemini client, protected by changing one URL.
//!
//! A request comes in through [`Gateway`] (`server.rs`: connections; `timed_io.rs`: their bounds), is let in (`door.rs`:
//! keys, `Host` and `Origin`), read (`intake.rs`), passed on (`relay.rs`: through `omega-client`, which holds every
//! layer), and answered (`answer.rs`, `body.rs`) in the protocol in which it was asked; then it is told of (`visit.rs`,
//! `metrics.rs`, `access.rs`, `traces.rs` with the feature `otel`).
//! [`InProcess`] is the same without connections. What lives here: HTTP towards callers. What may not: policies, wire formats of providers,
//! sockets towards them.

mod access;
mod answer;
mod body;
mod clock;
mod count;
mod cross_origin;
mod door;
mod embeddings;
mod error;
mod in_process;
mod intake;
mod keys;
mod metrics;
mod models;
mod process;
mod relay;
mod reload;
mod routes;
mod served;
mod server;
mod signal;
mod state;
mod status;
mod timed_io;
#[cfg(feature = "otel")]
mod traces;
mod visit;
mod workers;

pub use error::GatewayError;
pub use in_process::{BrokenOff, InProcess, InProcessAnswer};
pub use keys::{KeySecret, new_key};
pub use server::{Gateway, GatewayOptions};
#[cfg(feature = "otel")]
pub use traces::Traces;

/// The target of access lines: `OMEGA_LOG=omega_gateway::access=info`.
pub const ACCESS_TARGET: &str = "omega_gateway::access";
