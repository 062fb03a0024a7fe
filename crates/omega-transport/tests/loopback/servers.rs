//! Servers the tests talk to: hyper over plain TCP or TLS, and raw sockets for misbehaviour no library offers.

use std::convert::Infallible;
use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use omega_transport::{Http2, HttpTransport, Transport, TransportConfig, TransportError};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub type ServerBody = UnsyncBoxBody<Bytes, Infallible>;
pub type Answer = Pin<Box<dyn Future<Output = Response<ServerBody>> + Send>>;
type Handler = Arc<dyn Fn(Request<Incoming>) -> Answer + Send + Sync>;

/// Long enough for a loaded machine; reached only when something hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub enum Speaks {
    Http1,
    /// Over plain TCP, with this limit of streams (`None`: no limit announced).
    Http2(Option<u32>),
    /// Over TLS, what the certificate's owner prefers.
    Tls {
        acceptor: TlsAcceptor,
        streams: u32,
    },
}

/// A hyper server; dropping it ends all its connections.
pub struct Server {
    pub address: SocketAddr,
    pub accepted: Arc<AtomicUsize>,
    goaway: CancellationToken,
    stop: CancellationToken,
    open: Arc<Mutex<Vec<CancellationToken>>>,
    tasks: TaskTracker,
    connections: TaskTracker,
}

impl Server {
    pub async fn start<F>(
        speaks: Speaks,
        handler: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response<ServerBody>> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |request| Box::pin(handler(request)));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let server = Self {
            address: listener.local_addr().expect("an address"),
            accepted: Arc::default(),
            goaway: CancellationToken::new(),
            stop: CancellationToken::new(),
            open: Arc::default(),
            tasks: TaskTracker::new(),
            connections: TaskTracker::new(),
        };
        let (accepted, goaway, stop) = (server.accepted.clone(), server.goaway.clone(), server.stop.clone());
        let (open, connections) = (server.open.clone(), server.connections.clone());
        let accepting = async move {
            while let Ok((tcp, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                let serving = serve(tcp, speaks.clone(), handler.clone(), goaway.clone());
                let end = stop.child_token();
                open.lock().expect("no panic").push(end.clone());
                connections.spawn(async move { end.run_until_cancelled(serving).await });
            }
        };
        let stop = server.stop.clone();
        server.tasks.spawn(async move { stop.run_until_cancelled(accepting).await });
        server
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn https(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }

    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Closes the connections of this moment, and returns when they are closed.
    pub async fn hang_up(&self) {
        for connection in self.open.lock().expect("no panic").drain(..) {
            connection.cancel();
        }
        self.connections.close();
        within(self.connections.wait()).await;
    }

    /// Tells the connections of this moment that no new requests are wanted (HTTP/2: GOAWAY).
    pub fn say_goodbye(&self) {
        self.goaway.cancel();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(tcp: TcpStream, speaks: Speaks, handler: Handler, goaway: CancellationToken) {
    let service = service_fn(move |request| {
        let answer = handler(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let streams = match speaks {
        Speaks::Http1 => {
            let _ = http1::Builder::new().serve_connection(TokioIo::new(tcp), service).await;
            return;
        }
        Speaks::Http2(streams) => streams,
        Speaks::Tls { acceptor, streams } => {
            let Ok(tls) = acceptor.accept(tcp).await else { return };
            if tls.get_ref().1.alpn_protocol() != Some(b"h2") {
                let _ = http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
                return;
            }
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.max_concurrent_streams(streams);
            let _ = builder.serve_connection(TokioIo::new(tls), service).await;
            return;
        }
    };
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.max_concurrent_streams(streams);
    let connection = builder.serve_connection(TokioIo::new(tcp), service);
    tokio::pin!(connection);
    // A connection made after the goodbye is a new life.
    if goaway.is_cancelled() {
        let _ = connection.await;
        return;
    }
    tokio::select! {
        _ = connection.as_mut() => return,
        () = goaway.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

pub fn text(body: impl Into<Bytes>) -> Response<ServerBody> {
    Response::new(Full::new(body.into()).boxed_unsync())
}

/// A body of the chunks of `stream`.
pub fn streamed(stream: impl Stream<Item = &'static str> + Send + 'static) -> Response<ServerBody> {
    let frames = stream.map(|chunk| Ok::<_, Infallible>(Frame::data(Bytes::from_static(chunk.as_bytes()))));
    Response::new(StreamBody::new(Box::pin(frames)).boxed_unsync())
}

/// A body that sends `first` and then nothing, for ever.
pub fn endless(first: &'static str) -> Response<ServerBody> {
    streamed(stream::iter([first]).chain(stream::pending()))
}

/// A server on a thread of its own, speaking bytes: `serve` gets each connection with its number, from 0.
pub struct RawServer {
    pub address: SocketAddr,
}

impl RawServer {
    pub fn start(serve: impl Fn(usize, StdStream) + Send + Sync + 'static) -> Self {
        let listener = StdListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let serve = Arc::new(serve);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let Ok(stream) = stream else { return };
                let serve = serve.clone();
                std::thread::spawn(move || serve(number, stream));
            }
        });
        Self { address }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// Reads up to the blank line that ends a head (bodies of the tests' requests are empty).
pub fn read_head(stream: &mut StdStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

pub fn write(stream: &mut StdStream, bytes: &str) {
    let _ = stream.write_all(bytes.as_bytes());
    let _ = stream.flush();
}

/// Blocks until the peer has closed its side.
pub fn wait_for_close(stream: &mut StdStream) {
    let mut sink = [0; 1024];
    while matches!(stream.read(&mut sink), Ok(n) if n > 0) {}
}

pub fn transport(change: impl FnOnce(&mut TransportConfig)) -> HttpTransport {
    let mut config = TransportConfig::default();
    change(&mut config);
    HttpTransport::new(config).expect("a valid configuration")
}

pub fn http2_transport(change: impl FnOnce(&mut TransportConfig)) -> HttpTransport {
    transport(|config| {
        config.http2 = Http2::PriorKnowledge;
        change(config);
    })
}

pub fn get(url: &str) -> Request<Bytes> {
    Request::get(url).body(Bytes::new()).expect("a request")
}

/// Sends and reads the whole answer as text.
pub async fn fetch(transport: &HttpTransport, url: &str) -> Result<String, TransportError> {
    let mut response = transport.send(get(url)).await?;
    let body = response.body.collect(1024 * 1024).await?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// Sends and gives the error this must lead to.
pub async fn failure(transport: &HttpTransport, url: &str) -> TransportError {
    let outcome = within(fetch(transport, url)).await;
    outcome.expect_err("the exchange must fail")
}

pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("hangs")
}

/// Waits until `condition` holds; the state asked for must come by itself.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never happened: {what}"));
}
