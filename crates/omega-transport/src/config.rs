//! Every number the transport works with, with its default and the reason for it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::proxy::ProxySettings;

/// How an [`HttpTransport`](crate::HttpTransport) connects and what it keeps. [`Default`] suits the public providers.
#[derive(Clone)]
#[non_exhaustive]
pub struct TransportConfig {
    /// Time for one connection to become usable: name, TCP, proxy, TLS and HTTP/2 settings together. Default 10 s.
    pub connect_timeout: Duration,
    /// An unused connection is closed after this time. Default 90 s, the default of hyper-util 0.1.21's client.
    pub idle_timeout: Duration,
    /// Unused HTTP/1.1 connections kept per origin; the oldest beyond it are closed. Default 32.
    pub max_idle_per_origin: usize,
    /// Connections per origin, of any kind, or `None` for no limit (the default). With a limit, requests beyond it
    /// wait in [`OriginStats::waiting`](crate::OriginStats::waiting), first come first served.
    pub max_connections_per_origin: Option<usize>,
    /// A PEM file of certificate authorities to trust besides the platform's. Default none.
    pub ca_file: Option<PathBuf>,
    /// More authorities to trust, as PEM bytes; empty (the default) for none.
    pub ca_pem: Vec<u8>,
    /// Which proxy is used for which address. Default none.
    pub proxy: ProxySettings,
    /// When HTTP/2 is spoken. Default [`Http2::Auto`].
    pub http2: Http2,
    /// Streams used on one HTTP/2 connection even if the server allows more. Default 1,000: beyond that one lost
    /// packet holds up too many answers at once.
    pub max_streams_per_connection: usize,
    /// Send small writes at once (`TCP_NODELAY`). Default true.
    pub tcp_nodelay: bool,
    /// Time of silence before the system probes a TCP connection, `None` for never. Default 60 s, well under the
    /// minutes after which routers that translate addresses forget a silent connection.
    pub tcp_keepalive: Option<Duration>,
    /// Time of silence on a busy HTTP/2 connection before a ping is sent, `None` for never. Default 30 s.
    pub http2_ping_interval: Option<Duration>,
    /// A connection whose ping is unanswered for this time is closed. Default 20 s, hyper's default.
    pub http2_ping_timeout: Duration,
    /// Head start of the preferred address family before the other one is tried as well, `None` for one after the
    /// other. Default 300 ms, the default of hyper-util 0.1.21's connector.
    pub happy_eyeballs_timeout: Option<Duration>,
    /// Bytes a response head may have, status line and all headers together. Default 64 KiB; HTTP/1.1 heads may
    /// also have at most 100 header lines (hyper's limit).
    pub max_response_head_bytes: u32,
}

/// When HTTP/2 is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Http2 {
    /// Over TLS if the server chooses it (ALPN), HTTP/1.1 over plain TCP.
    #[default]
    Auto,
    /// Like `Auto` over TLS; over plain TCP always HTTP/2, for servers known to speak it.
    PriorKnowledge,
    /// Never: HTTP/1.1 only.
    Off,
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(90),
            max_idle_per_origin: 32,
            max_connections_per_origin: None,
            ca_file: None,
            ca_pem: Vec::new(),
            proxy: ProxySettings::none(),
            http2: Http2::Auto,
            max_streams_per_connection: 1_000,
            tcp_nodelay: true,
            tcp_keepalive: Some(Duration::from_secs(60)),
            http2_ping_interval: Some(Duration::from_secs(30)),
            http2_ping_timeout: Duration::from_secs(20),
            happy_eyeballs_timeout: Some(Duration::from_millis(300)),
            max_response_head_bytes: 64 * 1024,
        }
    }
}

impl fmt::Debug for TransportConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The PEM text is public but long; its length is what helps in a log.
        f.debug_struct("TransportConfig")
            .field("connect_timeout", &self.connect_timeout)
            .field("idle_timeout", &self.idle_timeout)
            .field("max_idle_per_origin", &self.max_idle_per_origin)
            .field("max_connections_per_origin", &self.max_connections_per_origin)
            .field("ca_file", &self.ca_file)
            .field("ca_pem_bytes", &self.ca_pem.len())
            .field("proxy", &self.proxy)
            .field("http2", &self.http2)
            .finish_non_exhaustive()
    }
}
