//! Configures OMEGA: defaults, then `config/resilience.yaml`, then `OMEGA_*` variables, then arguments.
//!
//! Every setting is one row of one table (`keys`): its path, range, meaning, default, variable names, and how it
//! is written into a [`Config`]. The file, the environment, the arguments, the JSON Schema, `explain` and the
//! documentation are all read off that table, so they cannot disagree.

mod arguments;
mod callers;
mod config;
mod credentials;
mod environment;
mod error;
mod explain;
mod file;
mod gateway;
mod keys;
mod layers;
mod load;
mod nearest;
mod preset;
mod provider;
#[cfg(test)]
mod reference;
mod rules;
mod schema;
mod state;
#[cfg(test)]
mod tests;
mod tree;
mod value;
mod variables;
mod yaml;

pub use arguments::Arguments;
pub use callers::{CallerKey, HASH_SCHEME};
pub use config::{
    Config, Estimates, HedgingSettings, OnStreamBreak, ProxySettings, StreamClocks, TlsSettings, Tokenizer,
};
pub use environment::Environment;
pub use error::{ConfigError, Problem};
pub use explain::{check_json, explain_json, render_check, render_explain};
pub use file::FileChoice;
pub use gateway::GatewaySettings;
pub use layers::Origin;
pub use load::{Loaded, Setting, Sources};
pub use omega_protocol::Dialect;
pub use preset::Preset;
pub use provider::{ProviderSettings, Tier};
pub use schema::schema;
pub use state::{State, StoreAddress};
