//! Why a gateway cannot be started or reloaded.

use std::net::SocketAddr;

/// Why a gateway cannot be started or reloaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// The configuration cannot be read. What runs goes on as it was.
    #[error(transparent)]
    Config(#[from] omega_config::ConfigError),
    /// The configuration cannot be used. What runs goes on as it was.
    #[error(transparent)]
    Client(#[from] omega_client::Error),
    /// There is nothing to read the configuration from again.
    #[error("this gateway was started without a source for its configuration, so there is nothing to reload")]
    NoSources,
    /// The address is taken, or is not one of this machine's.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Anybody who can reach it could spend the quota.
    #[error(
        "{address} can be reached from other machines and there are no keys for callers; make one with `omega keys new` and \
         name it under `keys` in the configuration, listen on 127.0.0.1, or start with --allow-anyone if something in front \
         of the gateway checks who calls"
    )]
    Unprotected {
        /// Where it was to listen, or listens.
        address: SocketAddr,
    },
    /// Traces cannot be sent as the environment says.
    #[cfg(feature = "otel")]
    #[error("traces cannot be sent: {0}; see the variables OTEL_EXPORTER_OTLP_*")]
    Traces(String),
    /// A thread could not be started.
    #[error("cannot start a worker: {0}")]
    Worker(std::io::Error),
}
