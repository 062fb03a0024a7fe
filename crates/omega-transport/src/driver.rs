//! The task behind each connection: opens it, moves its bytes, and takes it out of the pool when it ends.
//!
//! A driver lives on the runtime that opened the connection. If that runtime goes away, the driver is dropped, and
//! dropping it removes the connection from the pool like any other end.
//!
//! For HTTP/2, hyper hands the connection itself to an executor and keeps a second future that feeds it requests.
//! Both are polled here, in one task: only the first sees SETTINGS and GOAWAY arrive, only the second can tell what
//! they said, and a pool that learns it one request late has already put that request on a connection without room.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioTimer;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;

use crate::connect::{BoxIo, Opened};
use crate::error::{TransportError, TransportErrorKind};
use crate::lease::{Http1Connection, RequestBody};
use crate::origin::{Claim, IdleCheck, Origin};

/// What h2 is told to assume before the server's SETTINGS frame has come: a number no server sends, so that the
/// arrival of the frame can be seen as a change. Nothing relies on it as a limit; until then the pool puts a single
/// stream on the connection.
const STREAMS_BEFORE_SETTINGS: usize = 98_989_797;

/// Opens one connection for `origin` and drives it to its end.
pub(crate) async fn run(origin: Arc<Origin>, claim: Claim) {
    let closing = origin.shared().closing.clone();
    let deadline = origin.shared().connector.deadline();
    let connecting = origin.connect(deadline);
    let opened = tokio::select! {
        opened = connecting => opened,
        () = closing.cancelled() => return claim.fail(shut_down(&origin)),
    };
    match opened {
        Err(error) => claim.fail(error),
        Ok(Opened { io, http2: false }) => drive_http1(&origin, claim, io).await,
        Ok(Opened { io, http2: true }) => drive_http2(&origin, claim, io, deadline).await,
    }
}

fn shut_down(origin: &Origin) -> TransportError {
    TransportError::new(
        TransportErrorKind::Cancelled,
        format!("the transport was shut down while connecting to {}", origin.peer()),
    )
}

async fn drive_http1(origin: &Arc<Origin>, claim: Claim, io: BoxIo) {
    let mut builder = http1::Builder::new();
    builder.max_header_size(origin.shared().max_response_head_bytes as usize);
    let handshake = builder.handshake::<_, RequestBody>(io).await;
    let (sender, mut connection) = match handshake {
        Ok(pair) => pair,
        Err(error) => return claim.fail(TransportError::from_hyper(error, origin.peer()).with_sent(false)),
    };
    // hyper's sender reports "ready" only after the connection has been polled once.
    let first = poll_fn(|cx| Poll::Ready(Pin::new(&mut connection).poll(cx))).await;
    if first.is_ready() || !sender.is_ready() {
        return claim.fail(closed_at_once(origin));
    }
    let end = origin.shared().abort.child_token();
    let mut watch = Watch::new(&end, origin);
    let (id, _registered) = claim.http1(|id| Http1Connection { id, sender, _end: end.clone().drop_guard() });
    poll_fn(|cx| {
        if let Poll::Ready(outcome) = Pin::new(&mut connection).poll(cx) {
            if let Err(error) = outcome {
                tracing::debug!(peer = origin.peer(), %error, "HTTP/1.1 connection ended");
            }
            return Poll::Ready(());
        }
        watch.poll(cx, origin, id)
    })
    .await;
}

fn closed_at_once(origin: &Origin) -> TransportError {
    TransportError::new(
        TransportErrorKind::Closed,
        format!("{} closed the connection right after accepting it", origin.peer()),
    )
    .with_sent(false)
}

async fn drive_http2(origin: &Arc<Origin>, claim: Claim, io: BoxIo, settings_by: Instant) {
    let shared = origin.shared();
    let executor = Executor::new(shared.tracker.clone());
    let mut builder = http2::Builder::new(executor.clone());
    builder
        .timer(TokioTimer::new())
        .initial_max_send_streams(STREAMS_BEFORE_SETTINGS)
        .max_header_list_size(shared.max_response_head_bytes)
        .keep_alive_interval(shared.http2_ping_interval)
        .keep_alive_timeout(shared.http2_ping_timeout);
    let handshake = tokio::time::timeout_at(settings_by, builder.handshake::<_, RequestBody>(io)).await;
    let (sender, mut dispatch) = match handshake {
        Ok(Ok(pair)) => pair,
        Ok(Err(error)) => {
            return claim.fail(TransportError::from_hyper(error, origin.peer()).with_sent(false));
        }
        Err(_) => return claim.fail(no_settings(origin)),
    };
    let mut connection = executor.connection();
    let end = shared.abort.child_token();
    let mut watch = Watch::new(&end, origin);
    let (id, mut registered) = claim.http2(sender);
    let mut settings_timeout = pin!(sleep_until(settings_by));
    let mut limit = STREAMS_BEFORE_SETTINGS;

    let outcome = poll_fn(|cx| {
        // The connection first: what it reads decides whether the dispatcher may go on.
        let ended = connection.as_mut().is_some_and(|connection| connection.as_mut().poll(cx).is_ready());
        if ended {
            connection = None;
        }
        if let Poll::Ready(outcome) = Pin::new(&mut dispatch).poll(cx) {
            let error = outcome.err().map(|error| TransportError::from_hyper(error, origin.peer()));
            return Poll::Ready(End::NoMoreStreams(error));
        }
        if ended {
            return Poll::Ready(End::NoMoreStreams(None));
        }
        let now = dispatch.current_max_send_streams();
        if now != limit {
            limit = now;
            if !origin.stream_limit(id, limit) {
                return Poll::Ready(End::Unusable(no_streams(origin)));
            }
        }
        if limit == STREAMS_BEFORE_SETTINGS && settings_timeout.as_mut().poll(cx).is_ready() {
            return Poll::Ready(End::Unusable(no_settings(origin)));
        }
        watch.poll(cx, origin, id).map(|()| End::NoMoreStreams(None))
    })
    .await;
    let (error, connection) = match outcome {
        End::NoMoreStreams(error) => (error, connection),
        End::Unusable(error) => (Some(error), None),
    };
    if let Some(error) = &error {
        tracing::debug!(peer = origin.peer(), %error, "HTTP/2 connection ended");
    }
    registered.remove(error);
    drop(dispatch);
    // After GOAWAY, or once idle: no new streams, but those under way are carried to their end.
    if let Some(connection) = connection {
        tokio::select! {
            () = connection => {}
            () = end.cancelled() => {}
        }
    }
}

/// Why an HTTP/2 connection takes no more streams.
enum End {
    /// It is closing: streams under way may still come to their end.
    NoMoreStreams(Option<TransportError>),
    /// It never became usable.
    Unusable(TransportError),
}

fn no_settings(origin: &Origin) -> TransportError {
    let message = format!(
        "{} sent no HTTP/2 settings within {:?}; if it speaks only HTTP/1.1, do not force HTTP/2",
        origin.peer(),
        origin.shared().connector.timeout()
    );
    TransportError::new(TransportErrorKind::Protocol, message).with_sent(false).timed_out()
}

fn no_streams(origin: &Origin) -> TransportError {
    let message = format!("{} allows no streams on a new HTTP/2 connection", origin.peer());
    TransportError::new(TransportErrorKind::Protocol, message).with_sent(false)
}

/// Ends a driver when the pool says so or when its connection has been idle for too long.
struct Watch<'a> {
    end: &'a CancellationToken,
    cancelled: Pin<Box<WaitForCancellationFuture<'a>>>,
    idle: Pin<Box<Sleep>>,
    /// Who is woken by both: while it is the same task, as it nearly always is, a look at each is enough.
    waker: Option<Waker>,
}

impl<'a> Watch<'a> {
    fn new(end: &'a CancellationToken, origin: &Origin) -> Self {
        let idle = sleep_until(crate::pool::now() + origin.shared().idle_timeout);
        Self { end, cancelled: Box::pin(end.cancelled()), idle: Box::pin(idle), waker: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>, origin: &Origin, id: u64) -> Poll<()> {
        let is_known = self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if is_known && !self.idle.is_elapsed() && !self.end.is_cancelled() {
            return Poll::Pending;
        }
        if !is_known {
            self.waker = Some(cx.waker().clone());
        }
        if self.cancelled.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        while self.idle.as_mut().poll(cx).is_ready() {
            match origin.check_idle(id) {
                IdleCheck::Expired => return Poll::Ready(()),
                IdleCheck::NotBefore(moment) => self.idle.as_mut().reset(moment),
            }
        }
        Poll::Pending
    }
}

type BoxTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Spawns hyper's HTTP/2 futures on the tracked task set, except the connection itself: that is what hyper gives
/// away during the handshake, and the driver above polls it.
#[derive(Clone)]
struct Executor {
    tracker: TaskTracker,
    held: Arc<Mutex<Held>>,
}

enum Held {
    Nothing,
    Connection(BoxTask),
    HandedOver,
}

impl Executor {
    fn new(tracker: TaskTracker) -> Self {
        Self { tracker, held: Arc::new(Mutex::new(Held::Nothing)) }
    }

    /// The connection's future, once; from now on everything is spawned.
    fn connection(&self) -> Option<BoxTask> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *held, Held::HandedOver) {
            Held::Connection(task) => Some(task),
            Held::Nothing | Held::HandedOver => None,
        }
    }
}

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            if matches!(*held, Held::Nothing) {
                *held = Held::Connection(Box::pin(future));
                return;
            }
        }
        self.tracker.spawn(future);
    }
}
