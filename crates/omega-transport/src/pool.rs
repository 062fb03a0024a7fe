//! [`HttpTransport`]: finds the origin of a request, takes a place on one of its connections, sends.
//!
//! Each origin has its connections once per Tokio runtime: a connection is driven by the runtime that opened it, and
//! a request handed to a connection whose runtime stands still would stand still with it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Uri};
use http_body_util::Full;
use tokio::runtime::{Handle, Id};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::body::Body;
use crate::config::TransportConfig;
use crate::connect::Connector;
use crate::error::{TransportError, TransportErrorKind};
use crate::origin::Origin;
use crate::proxy::ProxySettings;
use crate::stats::PoolStats;
use crate::{Response, Sending, Transport};

/// How often a request that never left is sent again by itself: once. A second refusal is the caller's to judge.
const RESENDS: u32 = 1;

/// Origins remembered at most; beyond it, those without a connection are forgotten. Far above the number of
/// providers anyone configures, and a bound if addresses come from outside.
const ORIGINS: usize = 1_024;

/// Sends requests over pooled HTTP/1.1 and HTTP/2 connections.
///
/// - A request waits for a place only while a connection is being made for it, or if
///   [`TransportConfig::max_connections_per_origin`] forbids one more.
/// - A request whose connection closed before anything was written is sent again, once.
/// - Dropping the transport closes idle connections at once and busy ones with their last answer;
///   [`shutdown`](Self::shutdown) ends them all.
/// - A connection begun for a request that is then dropped is finished and kept for the next one.
/// - It is used from within a Tokio runtime with time and I/O enabled, and may be used from several: each has its
///   own connections, driven by its own tasks. When a runtime ends, its connections end and leave the pool.
pub struct HttpTransport {
    shared: Arc<Shared>,
    origins: RwLock<HashMap<Key, Arc<Origin>>>,
}

/// What every origin and driver needs.
pub(crate) struct Shared {
    pub connector: Connector,
    pub proxy: ProxySettings,
    pub idle_timeout: Duration,
    pub max_idle_per_origin: usize,
    pub max_connections_per_origin: Option<usize>,
    pub max_streams_per_connection: usize,
    pub max_response_head_bytes: u32,
    pub http2_ping_interval: Option<Duration>,
    pub http2_ping_timeout: Duration,
    pub tracker: TaskTracker,
    /// No more connections are made.
    pub closing: CancellationToken,
    /// Every connection ends now.
    pub abort: CancellationToken,
}

/// An authority compares without regard to case, and clones by counting a reference.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    runtime: Id,
    https: bool,
    authority: Authority,
}

impl HttpTransport {
    /// A transport without any connection yet.
    ///
    /// # Errors
    ///
    /// `ca_file` or `ca_pem` cannot be used; the message names the file and what is wrong with it.
    pub fn new(config: TransportConfig) -> Result<Self, TransportError> {
        let shared = Shared {
            connector: Connector::new(&config)?,
            proxy: config.proxy,
            idle_timeout: config.idle_timeout,
            max_idle_per_origin: config.max_idle_per_origin,
            max_connections_per_origin: config.max_connections_per_origin,
            max_streams_per_connection: config.max_streams_per_connection.max(1),
            max_response_head_bytes: config.max_response_head_bytes,
            http2_ping_interval: config.http2_ping_interval,
            http2_ping_timeout: config.http2_ping_timeout,
            tracker: TaskTracker::new(),
            closing: CancellationToken::new(),
            abort: CancellationToken::new(),
        };
        Ok(Self { shared: Arc::new(shared), origins: RwLock::new(HashMap::new()) })
    }

    /// What the pool holds now.
    pub fn stats(&self) -> PoolStats {
        let mut stats = PoolStats::default();
        for origin in self.origins.read().unwrap_or_else(PoisonError::into_inner).values() {
            stats.add(origin.stats());
        }
        stats
    }

    /// Ends every connection, also those with an answer under way, and waits until their tasks are gone.
    ///
    /// Requests under way fail; later ones are refused with [`TransportErrorKind::Cancelled`].
    pub async fn shutdown(&self) {
        self.close();
        self.shared.abort.cancel();
        self.shared.tracker.wait().await;
    }

    fn close(&self) {
        self.shared.closing.cancel();
        self.shared.tracker.close();
        for origin in self.origins.read().unwrap_or_else(PoisonError::into_inner).values() {
            origin.close();
        }
    }

    async fn exchange(&self, request: Request<Bytes>) -> Result<Response, TransportError> {
        let origin = self.origin(&request)?;
        let mut request = request.map(Full::new);
        let address = with_path(request.uri());
        let mut resends = 0;
        loop {
            let mut lease = origin.checkout().await?;
            origin.address(&mut request, &address, lease.is_http2());
            let mut error = match lease.send(request).await {
                Ok(response) => {
                    let (head, incoming) = response.into_parts();
                    return Ok(Response { head, body: Body::from_wire(incoming, lease) });
                }
                Err(error) => error,
            };
            match error.take_message() {
                Some(unsent) if resends < RESENDS => {
                    drop(lease);
                    tracing::debug!(
                        peer = origin.peer(),
                        "connection closed before the request left; sending again"
                    );
                    origin.resend();
                    resends += 1;
                    request = unsent;
                }
                Some(_) => {
                    // hyper only says that the request came back; the connection knows why.
                    let failed = origin.last_end();
                    let failed = failed
                        .unwrap_or_else(|| TransportError::from_hyper(error.into_error(), origin.peer()));
                    return Err(failed.with_sent(false));
                }
                None => return Err(TransportError::from_hyper(error.into_error(), origin.peer())),
            }
        }
    }

    /// The origin `request` goes to, as seen from the current runtime.
    fn origin(&self, request: &Request<Bytes>) -> Result<Arc<Origin>, TransportError> {
        let runtime = Handle::try_current().map_err(|error| {
            unsendable("requests are sent from within a Tokio runtime").with_source(error)
        })?;
        if request.method() == Method::CONNECT {
            return Err(unsendable("tunnels are opened by the transport itself, not by requests"));
        }
        let (https, authority) = destination(request.uri())?;
        let key = Key { runtime: runtime.id(), https, authority };
        if let Some(origin) = self.origins.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(origin.clone());
        }
        let mut origins = self.origins.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(origin) = origins.get(&key) {
            return Ok(origin.clone());
        }
        if origins.len() >= ORIGINS {
            // A request between finding its origin and using it holds a second reference.
            origins.retain(|_, origin| Arc::strong_count(origin) > 1 || !origin.is_unused());
        }
        let origin = Origin::new(self.shared.clone(), runtime, base(https, &key.authority)?)?;
        if self.shared.closing.is_cancelled() {
            origin.close();
        }
        origins.insert(key, origin.clone());
        Ok(origin)
    }
}

impl Transport for HttpTransport {
    fn send(&self, request: Request<Bytes>) -> Sending<'_> {
        Box::pin(self.exchange(request))
    }
}

impl Drop for HttpTransport {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTransport").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// Scheme and authority of `address`; a default port is left out, so that both spellings are one origin.
fn destination(address: &Uri) -> Result<(bool, Authority), TransportError> {
    let https = match address.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        Some(other) => return Err(unsendable(format!("the scheme {other} is not known; use https or http"))),
        None => return Err(unsendable("the address is not absolute; it needs https:// and a host")),
    };
    let authority = address.authority().ok_or_else(|| unsendable("the address has no host"))?;
    if authority.host().is_empty() {
        return Err(unsendable("the address has no host"));
    }
    if authority.as_str().contains('@') {
        return Err(unsendable("the address holds a user name or password; send credentials in a header"));
    }
    let default = if https { 443 } else { 80 };
    if authority.port_u16() != Some(default) {
        return Ok((https, authority.clone()));
    }
    let bare =
        authority.host().parse().map_err(|error| unsendable("the host is malformed").with_source(error))?;
    Ok((https, bare))
}

/// `address` with a path, which HTTP wants even if it is only the root.
fn with_path(address: &Uri) -> Uri {
    if address.path_and_query().is_some_and(|path| !path.path().is_empty()) {
        return address.clone();
    }
    let mut parts = address.clone().into_parts();
    let query = address.query().map(|query| format!("/?{query}"));
    parts.path_and_query = match query {
        Some(path) => path.parse().ok(),
        None => Some(PathAndQuery::from_static("/")),
    };
    Uri::from_parts(parts).unwrap_or_else(|_| address.clone())
}

fn base(https: bool, authority: &Authority) -> Result<Uri, TransportError> {
    Uri::builder()
        .scheme(if https { Scheme::HTTPS } else { Scheme::HTTP })
        .authority(authority.clone())
        .path_and_query("/")
        .build()
        .map_err(|error| unsendable("the address is malformed").with_source(error))
}

fn unsendable(message: impl Into<String>) -> TransportError {
    TransportError::new(TransportErrorKind::Other, message)
}

/// The age of idle connections and the end of connect attempts are the transport's own affair; no policy ever sees
/// these moments.
#[expect(
    clippy::disallowed_methods,
    reason = "the transport times its own sockets; no decision depends on it"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
