//! Connections: accepted in one place, served by workers with a runtime each.
//!
//! A worker's requests, their connections to providers and their timers stay on its one thread, so that nothing is handed
//! from core to core on the way of a request. What all workers share are the policies.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use omega_client::{Sources, UnifiedLLMClient};
use omega_config::GatewaySettings;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;

use crate::error::GatewayError;
use crate::routes;
use crate::served::Served;
use crate::state::{Shared, protected};
use crate::timed_io::{Patience, Phase, TimedIo};
use crate::workers::{Seat, Workers};

/// How long what was told to end now may take to say so to its callers.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Streams that one HTTP/2 connection of a caller may carry at once; nginx's default is 128 as well.
const STREAMS_MAX: u32 = 128;
/// How often a quiet HTTP/2 connection is asked whether its caller is still there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// A pause after an accept that failed for want of files or memory: trying at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections that may wait to be accepted; the kernel takes less if `net.core.somaxconn` says so. With the usual 128
/// a burst of callers overflows it, and whoever does not fit in tries again after a second.
const BACKLOG: u32 = 4_096;

/// How a gateway is started.
#[derive(Clone, Debug, Default)]
pub struct GatewayOptions {
    /// Where to listen, instead of the configured address. Port 0 takes any free one.
    pub listen: Option<SocketAddr>,
    /// Listen on an address that others can reach although there are no keys for callers.
    pub allow_anyone: bool,
    /// Threads that serve requests. Default: as many as there are processors.
    pub workers: Option<NonZeroUsize>,
    /// Where the configuration is read from again on a reload. `None`: it cannot be reloaded.
    pub sources: Option<Sources>,
    /// Watch the configuration's file and reload when it changes.
    pub watch: bool,
    /// Where spans go. `None`: nowhere.
    #[cfg(feature = "otel")]
    pub traces: Option<crate::Traces>,
}

/// A running gateway. Dropping it stops taking requests and ends those that run; [`Gateway::shutdown`] lets them end.
pub struct Gateway {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    workers: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// Starts to listen, on the runtime it is called from, and to serve, on threads of its own.
    ///
    /// # Errors
    /// The address cannot be listened on, or could be reached by anybody; a thread cannot be started.
    pub async fn start(client: UnifiedLLMClient, options: GatewayOptions) -> Result<Self, GatewayError> {
        let config = &client.configuration().config;
        let wanted = options.listen.unwrap_or(config.gateway.listen);
        // Before anybody can connect.
        protected(wanted, config, options.allow_anyone)?;
        let refused = |source| GatewayError::Listen { address: wanted, source };
        let listener = listen(wanted).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let file = client.configuration().file.clone();
        let shared = Arc::new(Shared::new(client, &options, address));
        let count =
            options.workers.or(std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
        let mut workers = Vec::with_capacity(count);
        let (mut senders, mut meters) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for at in 0..count {
            let (sender, connections) = mpsc::unbounded_channel();
            let shared = Arc::clone(&shared);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(GatewayError::Worker)?;
            meters.push(runtime.metrics());
            let thread = std::thread::Builder::new()
                .name(format!("omega-worker-{at}"))
                .spawn(move || runtime.block_on(work(shared, connections)))
                .map_err(GatewayError::Worker)?;
            workers.push(thread);
            senders.push(sender);
        }
        let tasks = TaskTracker::new();
        tasks.spawn(accept(listener, senders, Arc::new(Workers::new(meters)), Arc::clone(&shared)));
        if let Some(file) = file.filter(|_| options.watch) {
            tasks.spawn(crate::reload::watch(Arc::clone(&shared), file));
        }
        Ok(Self { shared, tasks, workers })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Requests being served.
    pub fn in_flight(&self) -> u64 {
        self.shared.in_flight()
    }

    /// Whether callers need keys.
    pub fn has_keys(&self) -> bool {
        !self.shared.current().keys.is_empty()
    }

    /// The client behind it: the one in force now, which a reload replaces.
    pub fn client(&self) -> UnifiedLLMClient {
        self.shared.current().client.clone()
    }

    /// Reads the configuration again. What is counted stays counted, and what runs goes on.
    ///
    /// - `why`: for the log.
    ///
    /// # Errors
    /// It cannot be read or used; then nothing has changed.
    pub async fn reload(&self, why: &str) -> Result<(), GatewayError> {
        crate::reload::now(&self.shared, why).await
    }

    /// Stops: takes no more requests, lets those that run end for as long as `gateway.drain_seconds` says, then ends
    /// them with an error that their protocol has words for.
    pub async fn shutdown(mut self) {
        let drain = self.shared.current().settings.drain;
        self.shared.stopping.give();
        let threads = std::mem::take(&mut self.workers);
        let mut joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                // A worker that panicked has said so.
                let _ = thread.join();
            }
        });
        if tokio::time::timeout(drain, &mut joined).await.is_err() {
            self.shared.abort.give();
            let _ = joined.await;
        }
        self.tasks.close();
        self.tasks.wait().await;
        #[cfg(feature = "otel")]
        if let Some(traces) = self.shared.traces.clone() {
            let _ = tokio::task::spawn_blocking(move || traces.shutdown()).await;
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.shared.stopping.give();
        self.shared.abort.give();
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("address", &self.shared.address).finish_non_exhaustive()
    }
}

/// Takes an address.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A gateway that is started again must not wait for its last connections to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A connection and its place at the worker that it is sent to.
type Arrival = (std::net::TcpStream, Seat);

/// Hands connections to the workers.
async fn accept(
    listener: TcpListener,
    senders: Vec<mpsc::UnboundedSender<Arrival>>,
    workers: Arc<Workers>,
    shared: Arc<Shared>,
) {
    loop {
        let accepted = tokio::select! {
            () = shared.stopping.given() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                // Whatever is wrong with one connection is wrong with that one.
                if let Ok(stream) = stream.into_std() {
                    let seat = workers.seat();
                    let _ = senders[seat.at()].send((stream, seat));
                }
            }
            Err(error) => {
                tracing::warn!("cannot take a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One worker's life.
async fn work(shared: Arc<Shared>, mut connections: mpsc::UnboundedReceiver<Arrival>) {
    let tasks = TaskTracker::new();
    let router = routes::router(Arc::clone(&shared));
    while let Some((stream, seat)) = connections.recv().await {
        if let Ok(stream) = TcpStream::from_std(stream) {
            let executor = Tracked(tasks.clone());
            tasks.spawn(connection(stream, seat, router.clone(), Arc::clone(&shared), executor));
        }
    }
    tasks.close();
    tokio::select! {
        () = tasks.wait() => {}
        () = last_words(&shared) => {}
    }
}

async fn last_words(shared: &Shared) {
    shared.abort.given().await;
    tokio::time::sleep(LAST_WORDS).await;
}

/// Serves one connection to its end.
async fn connection(stream: TcpStream, seat: Seat, router: Router, shared: Arc<Shared>, executor: Tracked) {
    // A short answer must not wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let current = shared.current();
    let GatewaySettings { header_timeout, write_timeout, max_header_bytes, .. } = current.settings;
    // A connection lives long, and must not keep a configuration that has been replaced.
    drop(current);
    let _counted = Counted::new(&shared);
    let phase = Phase::new();
    let patience = Patience { head: header_timeout, write: write_timeout };
    let io = TokioIo::new(TimedIo::new(stream, patience, phase.clone()));
    let head_max = usize::try_from(max_header_bytes).unwrap_or(usize::MAX);
    let mut builder = auto::Builder::new(executor);
    builder.http1().max_buf_size(head_max.max(READ_BUFFER_MIN)).keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(head_max).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    let service = service_fn(move |request: Request<Incoming>| {
        phase.serving(request.version());
        let served = Served::new(phase.clone());
        let is_last = request.version() == Version::HTTP_11 && seat.is_to_leave();
        let answering = router.clone().call(request.map(axum::body::Body::new));
        async move {
            answering.await.map(|mut response| {
                if is_last {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                response.map(|body| served.over(body))
            })
        }
    });
    let connection = builder.serve_connection(io, service);
    tokio::pin!(connection);
    let mut stopping = Some(shared.stopping.watch());
    std::future::poll_fn(|cx| {
        if stopping.as_mut().is_some_and(|stopping| stopping.poll(cx).is_ready()) {
            stopping = None;
            connection.as_mut().graceful_shutdown();
        }
        // How it ended is told by its requests; a peer that hangs up is no event.
        connection.as_mut().poll(cx).map(drop)
    })
    .await;
}

/// hyper takes no smaller buffer.
const READ_BUFFER_MIN: usize = 8_192;

/// A connection that is counted while it lives.
struct Counted<'s>(&'s Shared);

impl<'s> Counted<'s> {
    fn new(shared: &'s Shared) -> Self {
        shared.metrics.connections.inc();
        Self(shared)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.metrics.connections.dec();
    }
}

/// Tasks of one worker's connections (HTTP/2 has some of its own).
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

#[cfg(test)]
mod tests {
    use omega_client::{Config, Environment, FileChoice};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A connection that is served in this seat.
    async fn served(seat: Seat, shared: &Arc<Shared>) -> TcpStream {
        let listener = listen("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (caller, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (stream, _) = accepted.expect("a connection");
        let tasks = TaskTracker::new();
        let router = routes::router(Arc::clone(shared));
        tasks.spawn(connection(stream, seat, router, Arc::clone(shared), Tracked(tasks.clone())));
        caller.expect("connected")
    }

    #[tokio::test]
    async fn a_worker_with_too_much_to_do_ends_a_connection_with_its_answer() {
        let environment = Environment::from_pairs([("OPENAI_API_KEY", "k")]);
        let sources = Sources { file: FileChoice::None, environment, ..Sources::default() };
        let loaded = Config::load(&sources).expect("a configuration");
        let client = UnifiedLLMClient::builder().config(loaded).build().expect("a client");
        let shared = Arc::new(Shared::in_process(client));
        let workers = Workers::unmeasured(2);
        let seats = [workers.seat(), workers.seat()];
        workers.set_busy(0, 1_000);
        let mut heads = Vec::new();
        for seat in seats {
            assert_eq!(seat.at(), 0);
            let mut caller = served(seat, &shared).await;
            caller.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("room");
            let mut answer = String::new();
            while !answer.ends_with('}') {
                let mut piece = [0; 1_024];
                let length = caller.read(&mut piece).await.expect("an answer");
                assert!(length > 0, "{answer}");
                answer.push_str(std::str::from_utf8(&piece[..length]).expect("text"));
            }
            let is_last = answer.contains("connection: close\r\n");
            if is_last {
                assert_eq!(caller.read(&mut [0; 8]).await.expect("the end"), 0, "and it is closed");
            }
            heads.push((is_last, caller));
        }
        // Of two, one may go: then nobody has fewer.
        assert_eq!(heads.iter().map(|(is_last, _)| *is_last).collect::<Vec<_>>(), [true, false]);
    }

    #[tokio::test]
    async fn a_burst_of_connections_waits_for_its_turn() {
        let listener = listen("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let address = listener.local_addr().expect("an address");
        // Nobody accepts. What finds no room is not refused but ignored, and would wait for a second.
        let patience = Duration::from_millis(900);
        let connect = |_| std::net::TcpStream::connect_timeout(&address, patience);
        let connected: io::Result<Vec<_>> = (0..300).map(connect).collect();
        assert_eq!(connected.expect("room for all").len(), 300);
    }
}
