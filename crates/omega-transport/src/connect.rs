//! From an address to a byte stream that a driver can speak HTTP on: name, TCP, proxy, TLS, all within one time
//! limit. Each step has its own error kind, so that "the name does not exist" and "the certificate is unknown" are
//! never the same message.

use std::error::Error as StdError;
use std::fmt;
use std::future::{Future, Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use crate::config::{Http2, TransportConfig};
use crate::error::{TransportError, TransportErrorKind, find, root_cause};
use crate::proxy::Route;
use crate::tls::Tls;

/// A connected byte stream of any make: TCP, TLS over it, or either through a proxy.
pub(crate) struct BoxIo(Box<dyn Io>);

trait Io: Read + Write + Send + Unpin {}
impl<T: Read + Write + Send + Unpin> Io for T {}

impl BoxIo {
    fn new(io: impl Read + Write + Send + Unpin + 'static) -> Self {
        Self(Box::new(io))
    }
}

impl Read for BoxIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for BoxIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
}

/// A byte stream and the protocol both ends agreed on.
pub(crate) struct Opened {
    pub io: BoxIo,
    pub http2: bool,
}

/// Opens connections. One per transport.
pub(crate) struct Connector {
    tcp: HttpConnector<Resolver>,
    /// Kept as a result: a transport that only speaks to plain addresses works without any certificates.
    tls: Result<Tls, TransportError>,
    http2: Http2,
    timeout: Duration,
}

/// One connection attempt: where to, how long, and what to call the peer in messages.
#[derive(Clone, Copy)]
struct Attempt<'a> {
    peer: &'a str,
    deadline: Instant,
    timeout: Duration,
}

impl Connector {
    /// # Errors
    ///
    /// The certificates in `ca_file` or `ca_pem` cannot be used.
    pub fn new(config: &TransportConfig) -> Result<Self, TransportError> {
        let extra = crate::tls::extra_roots(config)?;
        let mut tcp = HttpConnector::new_with_resolver(Resolver(GaiResolver::new()));
        tcp.enforce_http(false);
        tcp.set_nodelay(config.tcp_nodelay);
        tcp.set_keepalive(config.tcp_keepalive);
        tcp.set_happy_eyeballs_timeout(config.happy_eyeballs_timeout);
        // Divided over the addresses of a name, so that a dead first address leaves time for the second.
        tcp.set_connect_timeout(Some(config.connect_timeout));
        Ok(Self { tcp, tls: Tls::new(config, extra), http2: config.http2, timeout: config.connect_timeout })
    }

    /// The moment by which an attempt that begins now must have succeeded.
    pub fn deadline(&self) -> Instant {
        crate::pool::now() + self.timeout
    }

    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whether the protocol towards `target` is settled before anything is connected, and which it is.
    pub fn known_protocol(&self, target: &Uri, route: &Route) -> Option<bool> {
        match (self.http2, is_https(target)) {
            (Http2::Off, _) => Some(false),
            (Http2::PriorKnowledge, false) => Some(!matches!(route, Route::Forward { .. })),
            (Http2::Auto, false) => Some(false),
            (Http2::Auto | Http2::PriorKnowledge, true) => None,
        }
    }

    /// Connects to `target` (scheme, host and port written out) by way of `route`.
    pub async fn connect(
        &self,
        target: &Uri,
        route: &Route,
        peer: &str,
        deadline: Instant,
    ) -> Result<Opened, TransportError> {
        let attempt = Attempt { peer, deadline, timeout: self.timeout };
        let io = match route {
            Route::Direct => self.tcp(target, attempt).await?,
            Route::Forward { proxy, .. } => self.to_proxy(proxy, attempt).await?,
            Route::Tunnel { proxy, authorization } => {
                let io = self.to_proxy(proxy, attempt).await?;
                tunnel(io, proxy, authorization.clone(), target, attempt).await?
            }
            Route::Socks { proxy, credentials } => {
                let io = self.to_proxy(proxy, attempt).await?;
                socks(io, proxy, credentials.clone(), target, attempt).await?
            }
        };
        if !is_https(target) {
            return Ok(Opened { io, http2: self.known_protocol(target, route) == Some(true) });
        }
        let tls = self.tls.as_ref().map_err(Clone::clone)?;
        let stream = handshake(io, &tls.server, target, attempt).await?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Opened { io: BoxIo::new(TokioIo::new(stream)), http2 })
    }

    async fn tcp(&self, target: &Uri, attempt: Attempt<'_>) -> Result<BoxIo, TransportError> {
        let connecting = self.tcp.clone().call(target.clone());
        match attempt.within("the TCP connection", connecting).await? {
            Ok(io) => Ok(BoxIo::new(io)),
            Err(error) => Err(attempt.tcp_failed(error)),
        }
    }

    async fn to_proxy(&self, proxy: &Uri, attempt: Attempt<'_>) -> Result<BoxIo, TransportError> {
        let failed = |error: TransportError| {
            let message = format!("the proxy {} cannot be reached: {error}", authority(proxy));
            TransportError::new(TransportErrorKind::Proxy, message).with_source(error)
        };
        let name = authority(proxy);
        let towards = Attempt { peer: &name, ..attempt };
        let io = self.tcp(proxy, towards).await.map_err(failed)?;
        if !is_https(proxy) {
            return Ok(io);
        }
        let tls = self.tls.as_ref().map_err(Clone::clone)?;
        let stream = handshake(io, &tls.proxy, proxy, towards).await.map_err(failed)?;
        Ok(BoxIo::new(TokioIo::new(stream)))
    }
}

impl Attempt<'_> {
    /// Waits for `step`, but not past the attempt's deadline.
    async fn within<F: Future>(&self, step: &str, future: F) -> Result<F::Output, TransportError> {
        tokio::time::timeout_at(self.deadline, future).await.map_err(|_| {
            let message =
                format!("no connection to {} within {:?}, waiting for {step}", self.peer, self.timeout);
            TransportError::new(TransportErrorKind::Connect, message).timed_out()
        })
    }

    fn tcp_failed(&self, error: impl StdError + Send + Sync + 'static) -> TransportError {
        if let Some(ResolveError(cause)) = find::<ResolveError>(&error) {
            let message = format!("the name of {} cannot be resolved: {cause}", self.peer);
            return TransportError::new(TransportErrorKind::Dns, message).with_source(error);
        }
        let timed_out = find::<io::Error>(&error).is_some_and(|io| io.kind() == io::ErrorKind::TimedOut);
        let message = format!("no connection to {}: {}", self.peer, root_cause(&error));
        let built = TransportError::new(TransportErrorKind::Connect, message).with_source(error);
        if timed_out { built.timed_out() } else { built }
    }
}

async fn handshake(
    io: BoxIo,
    config: &Arc<rustls::ClientConfig>,
    server: &Uri,
    attempt: Attempt<'_>,
) -> Result<tokio_rustls::client::TlsStream<TokioIo<BoxIo>>, TransportError> {
    let failed = |cause: &dyn fmt::Display| {
        TransportError::new(
            TransportErrorKind::Tls,
            format!("the TLS handshake with {} failed: {cause}", attempt.peer),
        )
    };
    let host = bare_host(server);
    let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(&error).with_source(error))?;
    let connecting = TlsConnector::from(config.clone()).connect(name, TokioIo::new(io));
    let outcome = attempt.within("the TLS handshake", connecting).await?;
    outcome.map_err(|error| failed(&root_cause(&error)).with_source(error))
}

async fn tunnel(
    io: BoxIo,
    proxy: &Uri,
    authorization: Option<HeaderValue>,
    target: &Uri,
    attempt: Attempt<'_>,
) -> Result<BoxIo, TransportError> {
    let mut tunnel = Tunnel::new(proxy.clone(), Connected(Some(io)));
    if let Some(authorization) = authorization {
        tunnel = tunnel.with_auth(authorization);
    }
    let outcome = attempt.within("the proxy to open a tunnel", tunnel.call(target.clone())).await?;
    outcome.map_err(|error| refused_by(proxy, attempt, error))
}

async fn socks(
    io: BoxIo,
    proxy: &Uri,
    credentials: Option<(String, String)>,
    target: &Uri,
    attempt: Attempt<'_>,
) -> Result<BoxIo, TransportError> {
    let mut socks = SocksV5::new(proxy.clone(), Connected(Some(io)));
    if let Some((user, password)) = credentials {
        socks = socks.with_auth(user, password);
    }
    let outcome = attempt.within("the proxy to open a tunnel", socks.call(target.clone())).await?;
    outcome.map_err(|error| refused_by(proxy, attempt, error))
}

fn refused_by(
    proxy: &Uri,
    attempt: Attempt<'_>,
    error: impl StdError + Send + Sync + 'static,
) -> TransportError {
    let proxy = authority(proxy);
    let message = format!("the proxy {proxy} opened no tunnel to {}: {}", attempt.peer, root_cause(&error));
    TransportError::new(TransportErrorKind::Proxy, message).with_source(error)
}

pub(crate) fn is_https(uri: &Uri) -> bool {
    uri.scheme() == Some(&http::uri::Scheme::HTTPS)
}

/// The host of `uri` as TLS names it: an IPv6 address without its brackets.
fn bare_host(uri: &Uri) -> &str {
    uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
}

fn authority(uri: &Uri) -> String {
    uri.authority().map(ToString::to_string).unwrap_or_default()
}

/// hyper-util's tunnels want to connect by themselves; this hands them what is connected already, so that an
/// unreachable proxy and a refused tunnel stay two errors.
struct Connected(Option<BoxIo>);

impl Service<Uri> for Connected {
    type Response = BoxIo;
    type Error = io::Error;
    type Future = Ready<Result<BoxIo, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
    }
}

/// The system's resolver, with its failures marked as such: the connector above reports all failures alike.
#[derive(Clone)]
struct Resolver(GaiResolver);

#[derive(Debug)]
struct ResolveError(io::Error);

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "name resolution failed: {}", self.0)
    }
}

impl StdError for ResolveError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

type Resolving =
    Pin<Box<dyn Future<Output = Result<<GaiResolver as Service<Name>>::Response, ResolveError>> + Send>>;

impl Service<Name> for Resolver {
    type Response = <GaiResolver as Service<Name>>::Response;
    type Error = ResolveError;
    type Future = Resolving;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ResolveError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Resolving {
        let resolving = self.0.call(name);
        Box::pin(async move { resolving.await.map_err(ResolveError) })
    }
}
