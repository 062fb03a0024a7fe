//! The listener and its connections: TCP_NODELAY, HTTP/1.1 and HTTP/2 told apart by their first bytes (or by ALPN
//! under TLS), and the power to reset a connection instead of closing it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::EmulatorConfig;
use crate::error::EmulatorError;
use crate::fault::Fault;
use crate::provider::Provider;
use crate::quota::Quota;
use crate::record::RequestRecord;
use crate::scenario::Scenario;
use crate::service;
use crate::state::State;
use crate::tls;

/// Four pretended providers on one address. Dropping it ends every connection and task.
pub struct Emulator {
    state: Arc<State>,
    address: SocketAddr,
    ca_pem: Option<String>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl std::fmt::Debug for Emulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Emulator").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Emulator {
    /// Listens and serves until dropped or shut down. Needs a tokio runtime with IO and time.
    ///
    /// # Errors
    /// [`EmulatorError::Invalid`] for a configuration that makes no sense, [`EmulatorError::Listen`] if the address
    /// is not free, [`EmulatorError::Tls`] if no certificate could be made.
    pub async fn start(config: EmulatorConfig) -> Result<Self, EmulatorError> {
        config.check()?;
        let wrong = |source| EmulatorError::Listen { address: config.listen, source };
        let listener = listen(config.listen).map_err(wrong)?;
        let address = listener.local_addr().map_err(wrong)?;
        let (acceptor, ca_pem) = match &config.tls {
            Some(settings) => {
                let (acceptor, ca_pem) = tls::acceptor(settings)?;
                (Some(acceptor), Some(ca_pem))
            }
            None => (None, None),
        };
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let state = Arc::new(State::new(config, stop.clone()));
        tasks.spawn(accept(listener, acceptor, Arc::clone(&state), tasks.clone()));
        Ok(Self { state, address, ca_pem, tasks, stop })
    }

    /// Where it listens, with the port that was chosen.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`, or `https` under TLS.
    pub fn url(&self) -> String {
        let scheme = if self.ca_pem.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// What a client or SDK of this provider takes as base URL. OpenAI's and xAI's include the version segment,
    /// Anthropic's and Google's do not. An unknown name yields the bare address, which serves unprefixed paths.
    pub fn base_url(&self, provider: &str) -> String {
        let url = self.url();
        match Provider::from_name(provider) {
            Some(provider @ (Provider::OpenAi | Provider::Grok)) => format!("{url}/{provider}/v1"),
            Some(provider) => format!("{url}/{provider}"),
            None => url,
        }
    }

    /// Every request so far, in the order of arrival.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.state.requests()
    }

    /// Forgets all requests.
    pub fn clear_requests(&self) {
        self.state.clear_requests();
    }

    /// Seconds of trace time since the start: the clock of scenario rules and records.
    pub fn trace_seconds(&self) -> f64 {
        self.state.clock.trace_now()
    }

    /// Replaces the scenario; its counts begin anew, trace time goes on. The values are taken as they are:
    /// [`Scenario::parse`] is what checks them.
    pub fn set_scenario(&self, scenario: Scenario) {
        self.state.set_scenario(scenario);
    }

    /// Replaces a provider's quota; its buckets start full.
    pub fn set_quota(&self, provider: Provider, quota: Quota) {
        self.state.set_quota(provider, quota);
    }

    /// The certificate of the test authority, for a client's trust store. `None` without TLS.
    pub fn ca_pem(&self) -> Option<String> {
        self.ca_pem.clone()
    }

    /// The fault catalogue, for programs that print it.
    pub fn faults() -> &'static [Fault] {
        Fault::ALL
    }

    /// Ends every connection and waits until all tasks are gone.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.stop.cancel();
        self.tasks.close();
    }
}

/// Connections that may wait to be accepted. With the usual 128 a burst of clients would wait for a second, which no
/// scenario asked for.
const BACKLOG: u32 = 4_096;

/// Takes an address.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, state: Arc<State>, tasks: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            () = state.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (state, acceptor) = (Arc::clone(&state), acceptor.clone());
                let executor = Tracked { tasks: tasks.clone(), stop: state.stop.clone() };
                tasks.spawn(async move {
                    let stop = state.stop.clone();
                    // Dropping the connection drops its requests; their tickets record that.
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = connection(stream, acceptor, executor, state) => {}
                    }
                });
            }
            Err(error) => {
                // Usually too many open files: others must close first.
                tracing::warn!(%error, "emulator: cannot accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, acceptor: Option<TlsAcceptor>, executor: Tracked, state: Arc<State>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "emulator: TCP_NODELAY");
    }
    let reset = Reset::default();
    let socket = Socket { stream, reset: reset.clone() };
    match acceptor {
        None => serve(socket, reset, executor, state).await,
        Some(acceptor) => match acceptor.accept(socket).await {
            Ok(socket) => serve(socket, reset, executor, state).await,
            Err(error) => tracing::debug!(%error, "emulator: TLS handshake"),
        },
    }
}

/// Runs the tasks of HTTP/2 streams where they are counted and stopped.
#[derive(Clone)]
struct Tracked {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                _ = future => {}
            }
        });
    }
}

async fn serve<S>(socket: S, reset: Reset, executor: Tracked, state: Arc<State>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = auto::Builder::new(executor);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None);
    // Cancelled streams are part of the trade here: a client that drops many calls at once must not be cut off.
    builder.http2().max_pending_accept_reset_streams(100_000).max_local_error_reset_streams(100_000);
    if let Some(streams) = state.config.http2_max_concurrent_streams {
        builder.http2().max_concurrent_streams(streams);
    }
    let service = service_fn(move |request: Request<Incoming>| {
        service::respond(Arc::clone(&state), reset.clone(), request)
    });
    if let Err(error) = builder.serve_connection(TokioIo::new(socket), service).await {
        tracing::trace!(%error, "emulator: connection ended");
    }
}

/// Whether a connection is to be reset (RST) when it closes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reset(Arc<AtomicBool>);

impl Reset {
    pub(crate) fn demand(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A TCP stream that can be closed with a reset.
struct Socket {
    stream: TcpStream,
    reset: Reset,
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Closing with a linger time of zero discards what is unsent and sends RST instead of FIN.
        if self.reset.0.load(Ordering::Relaxed)
            && let Err(error) = self.stream.set_zero_linger()
        {
            tracing::debug!(%error, "emulator: SO_LINGER");
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.reset.0.load(Ordering::Relaxed) {
            // A polite FIN would come before the reset; leave it to the drop.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
