//! The connections to one origin, and who gets which.
//!
//! A request takes a free place if there is one: a stream on an HTTP/2 connection below its limit, or an idle
//! HTTP/1.1 connection. Otherwise it queues, and the pool opens as many connections as the queue needs: one per
//! request for HTTP/1.1, one per stream limit for HTTP/2. Whatever frees a place (an answer read to its end, a new
//! connection, a raised limit) hands it to the first in the queue.
//!
//! Three rules keep this sound. A place is counted taken the moment it is given, under the lock, so no connection is
//! ever asked for more than it allows. After each change the queue is served before anyone else can look, so a free
//! place and a waiting request never coexist. And nothing whose `Drop` takes the lock is dropped while it is held:
//! that is what [`Effects`] is for.

mod claim;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::uri::Authority;
use http::{HeaderValue, Request, Uri, Version, header};
use hyper::client::conn::http2;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::connect::{Opened, is_https};
use crate::driver;
use crate::error::{TransportError, TransportErrorKind};
use crate::lease::{Http1Connection, Lease, RequestBody, Slot};
use crate::pool::{Shared, now};
use crate::proxy::Route;
use crate::stats::OriginStats;

pub(crate) use claim::Claim;
use claim::Waiting;

/// Streams a server is assumed to allow before any connection to it has said otherwise; only decides how many
/// connections are opened at once. "It is recommended that this value be no smaller than 100."
/// Source: RFC 9113 section 6.5.2.
const ASSUMED_STREAMS: usize = 100;

/// How long an HTTP/1.1 connection may take to become reusable after its answer was read: a server that answered
/// before taking the whole request may never take the rest. Judgement; normally it is microseconds.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection without a request for this long is looked at once more before it is used. Its peer may have closed
/// it, and a program that enters its runtime only for each call has let nobody notice.
const RESTED: Duration = Duration::from_millis(100);

/// One scheme, host and port, as seen from one runtime.
pub(crate) struct Origin {
    shared: Arc<Shared>,
    /// Where its connections are driven; all requests that use this origin run there too.
    runtime: Handle,
    /// Scheme, host and port, nothing else.
    target: Uri,
    peer: String,
    host: HeaderValue,
    route: Route,
    state: Mutex<State>,
}

struct State {
    /// HTTP/1.1 connections without a request, the one used last at the end.
    idle: Vec<Idle>,
    /// HTTP/2 connections that take new streams, oldest first.
    multiplexed: Vec<Multiplexed>,
    waiters: VecDeque<Waiter>,
    /// Connections being made, up to the handshake.
    connecting: usize,
    /// Open HTTP/1.1 connections, busy and idle.
    http1_open: usize,
    in_flight: usize,
    /// Requests one more connection is expected to serve.
    expected: usize,
    next_id: u64,
    closed: bool,
    /// What the last connection to end died of, if it did not end in peace.
    last_end: Option<TransportError>,
    opened_total: u64,
    connect_failures_total: u64,
    requests_total: u64,
    resent_total: u64,
}

struct Idle {
    connection: Http1Connection,
    since: Instant,
}

struct Multiplexed {
    id: u64,
    sender: http2::SendRequest<RequestBody>,
    in_flight: usize,
    limit: usize,
    /// Whether the server's settings have come; until then the limit is 1.
    settled: bool,
    idle_since: Instant,
}

struct Waiter {
    id: u64,
    place: oneshot::Sender<Result<Lease, TransportError>>,
}

/// What a change of state leads to once the lock is released.
#[derive(Default)]
struct Effects {
    connect: usize,
    discarded: Vec<Idle>,
}

/// What a driver learns when its idle timer fires.
pub(crate) enum IdleCheck {
    /// The connection was idle for too long and has left the pool.
    Expired,
    /// Ask again then.
    NotBefore(Instant),
}

impl Origin {
    /// The origin of `target`, an address of scheme and authority only.
    ///
    /// # Errors
    ///
    /// The host cannot be written in a header.
    pub fn new(shared: Arc<Shared>, runtime: Handle, target: Uri) -> Result<Arc<Self>, TransportError> {
        let authority = target.authority().map_or("", Authority::as_str);
        let host = HeaderValue::from_str(authority).map_err(|error| {
            TransportError::new(
                TransportErrorKind::Other,
                "the host of the address cannot be sent in a header",
            )
            .with_source(error)
        })?;
        let route = shared.proxy.route(&target);
        let target = with_port(&target);
        let peer = target.authority().map(ToString::to_string).unwrap_or_default();
        let expected = match shared.connector.known_protocol(&target, &route) {
            Some(false) => 1,
            Some(true) | None => ASSUMED_STREAMS.min(shared.max_streams_per_connection),
        };
        let state = State {
            idle: Vec::new(),
            multiplexed: Vec::new(),
            waiters: VecDeque::new(),
            connecting: 0,
            http1_open: 0,
            in_flight: 0,
            expected,
            next_id: 0,
            closed: false,
            last_end: None,
            opened_total: 0,
            connect_failures_total: 0,
            requests_total: 0,
            resent_total: 0,
        };
        Ok(Arc::new(Self { shared, runtime, target, peer, host, route, state: Mutex::new(state) }))
    }

    /// Host and port, for messages.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    pub async fn connect(&self, deadline: Instant) -> Result<Opened, TransportError> {
        self.shared.connector.connect(&self.target, &self.route, &self.peer, deadline).await
    }

    /// Writes into `request` what the protocol of the connection wants to see of `address`.
    pub fn address(&self, request: &mut Request<RequestBody>, address: &Uri, http2: bool) {
        if http2 {
            *request.version_mut() = Version::HTTP_2;
            *request.uri_mut() = address.clone();
            // HTTP/2 names the host in `:authority`.
            request.headers_mut().remove(header::HOST);
            return;
        }
        *request.version_mut() = Version::HTTP_11;
        request.headers_mut().entry(header::HOST).or_insert_with(|| self.host.clone());
        if let Route::Forward { authorization, .. } = &self.route {
            *request.uri_mut() = address.clone();
            if let Some(authorization) = authorization {
                request.headers_mut().insert(header::PROXY_AUTHORIZATION, authorization.clone());
            }
            return;
        }
        *request.uri_mut() =
            address.path_and_query().map_or_else(Uri::default, |path| Uri::from(path.clone()));
    }

    /// A place for one request, at once or after a wait in the queue.
    ///
    /// # Errors
    ///
    /// No connection could be made, or the transport was shut down.
    pub async fn checkout(self: &Arc<Self>) -> Result<Lease, TransportError> {
        self.lock().requests_total += 1;
        loop {
            let lease = match self.take_or_wait()? {
                Ok(lease) => lease,
                Err(mut waiting) => match (&mut waiting.place).await {
                    Ok(outcome) => return outcome,
                    Err(_) => return Err(self.gone("the connection pool was closed")),
                },
            };
            if !lease.is_rested() {
                return Ok(lease);
            }
            // The first yield lets the runtime look at its sockets, the second lets the driver act on what it saw.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            if lease.is_usable() {
                return Ok(lease);
            }
            // Each round ends one connection, so the loop ends with the last of them.
        }
    }

    fn take_or_wait(self: &Arc<Self>) -> Result<Result<Lease, Waiting>, TransportError> {
        let mut effects = Effects::default();
        let mut state = self.lock();
        if state.closed {
            return Err(self.gone("the transport was shut down"));
        }
        let outcome = match self.take_free(&mut state, &mut effects) {
            Some(lease) => Ok(lease),
            None => {
                let (sender, place) = oneshot::channel();
                let id = state.new_id();
                state.waiters.push_back(Waiter { id, place: sender });
                self.plan(&mut state, &mut effects);
                Err(Waiting { origin: self.clone(), id, place })
            }
        };
        drop(state);
        self.apply(effects);
        Ok(outcome)
    }

    /// Counts a request that is sent again, and gives up the idle connections: when the peer closed one of them,
    /// it has most likely closed those that were idle even longer.
    pub fn resend(self: &Arc<Self>) {
        let mut state = self.lock();
        state.resent_total += 1;
        let stale = std::mem::take(&mut state.idle);
        drop(state);
        drop(stale);
    }

    /// Why a request that never left was given back, if the connection said more than "closed".
    pub fn last_end(&self) -> Option<TransportError> {
        self.lock().last_end.clone()
    }

    /// Takes back an HTTP/1.1 connection whose answer was read to its end.
    pub fn park(self: &Arc<Self>, connection: Http1Connection) {
        if connection.sender.is_ready() {
            self.park_ready(connection);
            return;
        }
        // The request no longer counts; the connection is busy for the moment hyper needs to notice the end.
        self.lock().in_flight -= 1;
        if connection.sender.is_closed() {
            return;
        }
        let origin = self.clone();
        let waiting = async move {
            let mut connection = connection;
            let ready = tokio::time::timeout(READY_TIMEOUT, connection.sender.ready()).await;
            if matches!(ready, Ok(Ok(()))) {
                origin.lock().in_flight += 1;
                origin.park_ready(connection);
            }
        };
        self.shared.tracker.spawn_on(waiting, &self.runtime);
    }

    fn park_ready(self: &Arc<Self>, connection: Http1Connection) {
        let mut effects = Effects::default();
        let mut state = self.lock();
        state.in_flight -= 1;
        let idle = Idle { connection, since: now() };
        if state.closed {
            effects.discarded.push(idle);
        } else {
            state.idle.push(idle);
            self.serve(&mut state, &mut effects);
            if state.idle.len() > self.shared.max_idle_per_origin {
                effects.discarded.push(state.idle.remove(0));
            }
        }
        drop(state);
        self.apply(effects);
    }

    /// Takes back a place: an HTTP/2 stream, or an HTTP/1.1 connection that cannot be used again.
    pub fn release(self: &Arc<Self>, slot: Slot) {
        let mut effects = Effects::default();
        let mut state = self.lock();
        state.in_flight -= 1;
        if let Slot::Http2 { id, .. } = &slot
            && let Some(connection) = state.multiplexed.iter_mut().find(|connection| connection.id == *id)
        {
            connection.in_flight -= 1;
            if connection.in_flight == 0 {
                connection.idle_since = now();
            }
            self.serve(&mut state, &mut effects);
        }
        drop(state);
        drop(slot);
        self.apply(effects);
    }

    /// The server's limit of streams on connection `id`; false if the connection can never be used.
    pub fn stream_limit(self: &Arc<Self>, id: u64, limit: usize) -> bool {
        let mut effects = Effects::default();
        let mut state = self.lock();
        let limit = limit.min(self.shared.max_streams_per_connection);
        let Some(connection) = state.multiplexed.iter_mut().find(|connection| connection.id == id) else {
            return true;
        };
        if !connection.settled && limit == 0 {
            return false;
        }
        connection.settled = true;
        connection.limit = limit;
        if limit > 0 {
            state.expected = limit;
        }
        self.serve(&mut state, &mut effects);
        self.plan(&mut state, &mut effects);
        drop(state);
        self.apply(effects);
        true
    }

    /// Whether connection `id` has been idle for too long; if so, it has left the pool.
    pub fn check_idle(&self, id: u64) -> IdleCheck {
        let timeout = self.shared.idle_timeout;
        let now = now();
        let mut state = self.lock();
        let since = state.idle_since(id).unwrap_or(now);
        if now < since + timeout {
            return IdleCheck::NotBefore(since + timeout);
        }
        let expired = state.remove(id);
        drop(state);
        drop(expired);
        IdleCheck::Expired
    }

    /// Ends what is idle and lets what is busy end with its last answer; nothing new is given out.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let idle = std::mem::take(&mut state.idle);
        let multiplexed = std::mem::take(&mut state.multiplexed);
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        drop((idle, multiplexed, waiters));
    }

    /// Whether nothing is open, being opened or waiting.
    pub fn is_unused(&self) -> bool {
        let state = self.lock();
        state.connections() == 0 && state.in_flight == 0 && state.waiters.is_empty()
    }

    pub fn stats(&self) -> OriginStats {
        let state = self.lock();
        let scheme = if is_https(&self.target) { "https" } else { "http" };
        let idle_http2 = state.multiplexed.iter().filter(|connection| connection.in_flight == 0).count();
        let capacity = state.multiplexed.iter().map(|connection| connection.limit);
        OriginStats {
            origin: format!("{scheme}://{}", self.host.to_str().unwrap_or(&self.peer)),
            http1_connections: state.http1_open,
            http2_connections: state.multiplexed.len(),
            idle_connections: state.idle.len() + idle_http2,
            connecting: state.connecting,
            in_flight: state.in_flight,
            stream_capacity: capacity.fold(0, usize::saturating_add),
            waiting: state.waiters.len(),
            opened_total: state.opened_total,
            connect_failures_total: state.connect_failures_total,
            requests_total: state.requests_total,
            resent_total: state.resent_total,
        }
    }

    fn gone(&self, what: &str) -> TransportError {
        TransportError::new(TransportErrorKind::Cancelled, format!("no connection to {}: {what}", self.peer))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves counters, not broken memory; going on is better than failing every call.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A free place, if there is one. Prefers the oldest HTTP/2 connection, so that surplus ones fall idle and end.
    fn take_free(self: &Arc<Self>, state: &mut State, effects: &mut Effects) -> Option<Lease> {
        for connection in &mut state.multiplexed {
            if connection.in_flight < connection.limit && !connection.sender.is_closed() {
                let rested =
                    connection.in_flight == 0 && connection.settled && is_rested(connection.idle_since);
                connection.in_flight += 1;
                state.in_flight += 1;
                let slot = Slot::Http2 { id: connection.id, sender: connection.sender.clone() };
                return Some(Lease::new(self.clone(), slot, rested));
            }
        }
        if state.idle.is_empty() {
            return None;
        }
        let oldest = now().checked_sub(self.shared.idle_timeout);
        while let Some(idle) = state.idle.pop() {
            if oldest.is_none_or(|oldest| idle.since > oldest) && idle.connection.sender.is_ready() {
                state.in_flight += 1;
                let rested = is_rested(idle.since);
                return Some(Lease::new(self.clone(), Slot::Http1(idle.connection), rested));
            }
            effects.discarded.push(idle);
        }
        None
    }

    /// Hands free places to the queue, first come first served.
    fn serve(self: &Arc<Self>, state: &mut State, effects: &mut Effects) {
        while !state.waiters.is_empty() {
            let Some(lease) = self.take_free(state, effects) else { return };
            let Some(waiter) = state.waiters.pop_front() else { return };
            // A request dropped at this very moment: its place goes to the next one.
            if let Err(Ok(lease)) = waiter.place.send(Ok(lease)) {
                state.put_back(lease);
            }
        }
    }

    /// Decides how many connections to open for the queue.
    fn plan(&self, state: &mut State, effects: &mut Effects) {
        if state.closed {
            return;
        }
        let uncovered = state.waiters.len().saturating_sub(state.covered());
        let wanted = uncovered.div_ceil(state.expected);
        let room = match self.shared.max_connections_per_origin {
            Some(most) => most.max(1).saturating_sub(state.connections()),
            None => usize::MAX,
        };
        let connect = wanted.min(room);
        state.connecting += connect;
        effects.connect += connect;
    }

    fn apply(self: &Arc<Self>, effects: Effects) {
        drop(effects.discarded);
        for _ in 0..effects.connect {
            let claim = Claim::new(self.clone());
            // The task is the connection's whole life: it connects, then drives.
            self.shared.tracker.spawn_on(driver::run(self.clone(), claim), &self.runtime);
        }
    }

    /// Fails the requests for which no connection is being made any more.
    fn fail_uncovered(&self, state: &mut State, most: usize, error: &TransportError) {
        let uncovered = state.waiters.len().saturating_sub(state.covered());
        for waiter in state.waiters.drain(..uncovered.min(most)) {
            // Refused only if the request was dropped meanwhile.
            let _ = waiter.place.send(Err(error.clone()));
        }
    }

    /// Connection `id` has ended. `error` fails the requests that waited for a connection which never settled.
    fn ended(self: &Arc<Self>, id: u64, http2: bool, error: Option<&TransportError>) {
        let mut effects = Effects::default();
        let mut state = self.lock();
        let unsettled = state.multiplexed.iter().any(|connection| connection.id == id && !connection.settled);
        let removed = state.remove(id);
        state.last_end = error.cloned();
        if !http2 {
            state.http1_open -= 1;
        }
        if unsettled {
            state.connect_failures_total += 1;
            let most = state.expected;
            let error = error.cloned().unwrap_or_else(|| {
                let message = format!("{} closed the HTTP/2 connection before its settings came", self.peer);
                TransportError::new(TransportErrorKind::Closed, message).with_sent(false)
            });
            self.fail_uncovered(&mut state, most, &error);
        }
        self.plan(&mut state, &mut effects);
        drop(state);
        drop(removed);
        self.apply(effects);
    }
}

impl State {
    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Connections of any kind, being made or open.
    fn connections(&self) -> usize {
        self.connecting + self.http1_open + self.multiplexed.len()
    }

    /// Waiting requests that connections on their way are expected to serve.
    fn covered(&self) -> usize {
        let settling = self.multiplexed.iter().filter(|connection| !connection.settled).count();
        (self.connecting + settling).saturating_mul(self.expected)
    }

    fn idle_since(&self, id: u64) -> Option<Instant> {
        if let Some(idle) = self.idle.iter().find(|idle| idle.connection.id == id) {
            return Some(idle.since);
        }
        let connection = self.multiplexed.iter().find(|connection| connection.id == id)?;
        (connection.in_flight == 0).then_some(connection.idle_since)
    }

    /// Takes connection `id` out; what is returned is to be dropped after the lock.
    fn remove(&mut self, id: u64) -> (Option<Idle>, Option<Multiplexed>) {
        let idle = self.idle.iter().position(|idle| idle.connection.id == id);
        let multiplexed = self.multiplexed.iter().position(|connection| connection.id == id);
        (idle.map(|at| self.idle.remove(at)), multiplexed.map(|at| self.multiplexed.remove(at)))
    }

    /// Undoes `take_free` for a lease nobody took.
    fn put_back(&mut self, lease: Lease) {
        let Some(slot) = lease.into_slot() else { return };
        self.in_flight -= 1;
        match slot {
            Slot::Http1(connection) => self.idle.push(Idle { connection, since: now() }),
            Slot::Http2 { id, .. } => {
                if let Some(connection) = self.multiplexed.iter_mut().find(|connection| connection.id == id) {
                    connection.in_flight -= 1;
                }
            }
        }
    }
}

fn is_rested(since: Instant) -> bool {
    now().saturating_duration_since(since) >= RESTED
}

/// `target` with its port written out: connectors and proxies have defaults of their own.
fn with_port(target: &Uri) -> Uri {
    let port = target.port_u16().unwrap_or(if is_https(target) { 443 } else { 80 });
    let mut parts = target.clone().into_parts();
    parts.authority = format!("{}:{port}", target.host().unwrap_or_default()).parse().ok();
    Uri::from_parts(parts).unwrap_or_else(|_| target.clone())
}
