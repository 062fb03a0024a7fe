//! The gateway's own settings: where it listens, what it bounds, and who may call it while it has no keys.
//!
//! How it treats calls is what every other section says; only `omega serve` reads this one.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// How `omega serve` meets its callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewaySettings {
    /// Where it listens. Default 127.0.0.1:8080.
    pub listen: SocketAddr,
    /// The largest request body; a larger one is refused before it is read. 1 KiB to 1 GiB. Default 32 MiB, the most
    /// that a provider takes. Source: Anthropic Messages API, errors page (`request_too_large`, 32 MB).
    pub max_body_bytes: u64,
    /// The largest head of a request: its first line and headers together. 4 KiB to 1 MiB. Default 64 KiB, above which
    /// providers refuse headers as well.
    pub max_header_bytes: u64,
    /// How long a caller may take to send a request's head. Default 10 s.
    pub header_timeout: Duration,
    /// The longest pause between two pieces of a request's body. Default 30 s.
    pub body_timeout: Duration,
    /// How long a caller may read nothing of its answer before it is left. Default 60 s.
    pub write_timeout: Duration,
    /// Requests being served at once; more are answered 503 at once. At least 1. Default 10,000.
    pub max_requests: u64,
    /// How long requests may take to end after the gateway was told to stop. Zero: none. Default 30 s.
    pub drain: Duration,
    /// How often a streaming caller that waits for its turn is sent a keep-alive comment. Default `None`: never, since
    /// the first one commits the status 200 before the answer is known.
    pub queue_keep_alive: Option<Duration>,
    /// Use the provider key a caller sends, while no keys for callers are configured. Default off.
    pub pass_through_keys: bool,
    /// Names under which a gateway without keys may be addressed besides loopback's (`Host`), in lower case and without
    /// a port. Default none.
    pub allowed_hosts: Vec<String>,
    /// Web pages that may call it (`Origin`), in lower case: `https://chat.example.com`. Default none.
    pub allowed_origins: Vec<String>,
    /// Calls with the same beginning go to the same key or endpoint of a pool while it has room, so that the provider's
    /// cache of prompts is hit. Default on.
    pub sticky: bool,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            max_body_bytes: 32 * 1024 * 1024,
            max_header_bytes: 64 * 1024,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
            max_requests: 10_000,
            drain: Duration::from_secs(30),
            queue_keep_alive: None,
            pass_through_keys: false,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            sticky: true,
        }
    }
}
