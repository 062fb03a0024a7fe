//! What the pool holds at one moment, for people who ask why a request waits.

/// The state of every origin the transport has connections or waiting requests for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// One entry per origin, sorted by its name.
    pub origins: Vec<OriginStats>,
}

/// The connections to one origin (scheme, host and port).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OriginStats {
    /// Scheme, host and port, for instance `https://api.openai.com`.
    pub origin: String,
    /// Open HTTP/1.1 connections, busy and idle.
    pub http1_connections: usize,
    /// Open HTTP/2 connections that take new streams.
    pub http2_connections: usize,
    /// Open connections of both kinds without a request.
    pub idle_connections: usize,
    /// Connections being made.
    pub connecting: usize,
    /// Requests on their way or with an answer not yet read to its end, over both protocols.
    pub in_flight: usize,
    /// Streams the open HTTP/2 connections allow together, as far as the server has said.
    pub stream_capacity: usize,
    /// Requests waiting for a connection.
    pub waiting: usize,
    /// Connections opened since the start.
    pub opened_total: u64,
    /// Attempts to connect that failed since the start.
    pub connect_failures_total: u64,
    /// Requests since the start; one that is sent again counts again.
    pub requests_total: u64,
    /// Requests sent a second time because the connection closed before anything was written, since the start.
    pub resent_total: u64,
}

impl PoolStats {
    /// Requests in flight over all origins.
    pub fn in_flight(&self) -> usize {
        self.origins.iter().map(|origin| origin.in_flight).sum()
    }

    /// Requests waiting for a connection over all origins.
    pub fn waiting(&self) -> usize {
        self.origins.iter().map(|origin| origin.waiting).sum()
    }

    /// Open connections over all origins.
    pub fn connections(&self) -> usize {
        self.origins.iter().map(|origin| origin.http1_connections + origin.http2_connections).sum()
    }

    /// Adds `other` (the same origin, seen from another runtime) to the list, which stays sorted.
    pub(crate) fn add(&mut self, other: OriginStats) {
        match self.origins.binary_search_by(|known| known.origin.cmp(&other.origin)) {
            Ok(at) => self.origins[at].merge(&other),
            Err(at) => self.origins.insert(at, other),
        }
    }
}

impl OriginStats {
    fn merge(&mut self, other: &Self) {
        self.http1_connections += other.http1_connections;
        self.http2_connections += other.http2_connections;
        self.idle_connections += other.idle_connections;
        self.connecting += other.connecting;
        self.in_flight += other.in_flight;
        self.stream_capacity = self.stream_capacity.saturating_add(other.stream_capacity);
        self.waiting += other.waiting;
        self.opened_total += other.opened_total;
        self.connect_failures_total += other.connect_failures_total;
        self.requests_total += other.requests_total;
        self.resent_total += other.resent_total;
    }
}
