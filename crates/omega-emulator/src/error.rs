//! What can go wrong while an emulator is configured or started.

use std::net::SocketAddr;

/// Why an emulator could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmulatorError {
    /// The address is taken, or not ours. Choose another, or port 0 for any free one.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A certificate could not be made or loaded.
    #[error("cannot prepare TLS: {0}")]
    Tls(String),
    /// A configuration or scenario file does not parse; the text names line and column.
    #[error("{0}")]
    Parse(String),
    /// A value parses but makes no sense; the text names it.
    #[error("{0}")]
    Invalid(String),
}
