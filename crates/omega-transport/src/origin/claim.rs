//! What holds a place in an origin's books, and gives it back by being dropped: a request in the queue, a connection
//! being made, an open connection.
//!
//! Tasks end in more ways than one can list (an error, a dropped future, a runtime shut down), so none of these
//! relies on a last line of code being reached.

use std::sync::Arc;

use hyper::client::conn::http2;
use tokio::sync::oneshot;

use super::{ASSUMED_STREAMS, Effects, Idle, Multiplexed, Origin};
use crate::error::TransportError;
use crate::lease::{Http1Connection, Lease, RequestBody};
use crate::pool::now;

/// A request in the queue. Dropped while waiting, it leaves the queue; a place it was given meanwhile goes back.
pub(super) struct Waiting {
    pub origin: Arc<Origin>,
    pub id: u64,
    pub place: oneshot::Receiver<Result<Lease, TransportError>>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.origin.lock();
        let waiter = state.waiters.iter().position(|waiter| waiter.id == self.id);
        let waiter = waiter.and_then(|at| state.waiters.remove(at));
        drop(state);
        drop(waiter);
    }
}

/// A connection being made. Ends in [`http1`](Self::http1), [`http2`](Self::http2) or [`fail`](Self::fail);
/// dropped without any, its task was thrown away with its runtime.
pub(crate) struct Claim {
    origin: Option<Arc<Origin>>,
}

impl Claim {
    /// For a connection already counted in `connecting`.
    pub(super) fn new(origin: Arc<Origin>) -> Self {
        Self { origin: Some(origin) }
    }

    pub fn fail(mut self, error: TransportError) {
        if let Some(origin) = self.origin.take() {
            Self::failed(&origin, &error);
        }
    }

    fn failed(origin: &Arc<Origin>, error: &TransportError) {
        tracing::debug!(peer = origin.peer(), %error, "connection attempt failed");
        let mut effects = Effects::default();
        let mut state = origin.lock();
        state.connecting -= 1;
        state.connect_failures_total += 1;
        let most = state.expected;
        origin.fail_uncovered(&mut state, most, error);
        origin.plan(&mut state, &mut effects);
        drop(state);
        origin.apply(effects);
    }

    /// The connection speaks HTTP/1.1 and is ready for a request.
    pub fn http1(mut self, connection: impl FnOnce(u64) -> Http1Connection) -> (u64, Registered) {
        let origin = self.origin.take().expect("a claim ends once");
        let mut effects = Effects::default();
        let mut state = origin.lock();
        let id = state.new_id();
        state.connecting -= 1;
        state.http1_open += 1;
        state.opened_total += 1;
        // Now the protocol is known: one request a connection, and the rest of the queue needs its own.
        state.expected = 1;
        let idle = Idle { connection: connection(id), since: now() };
        if state.closed {
            effects.discarded.push(idle);
        } else {
            state.idle.push(idle);
            origin.serve(&mut state, &mut effects);
            origin.plan(&mut state, &mut effects);
        }
        drop(state);
        origin.apply(effects);
        (id, Registered { origin, id, http2: false, error: None })
    }

    /// The connection speaks HTTP/2; until its settings come it takes one stream.
    pub fn http2(mut self, sender: http2::SendRequest<RequestBody>) -> (u64, Registered) {
        let origin = self.origin.take().expect("a claim ends once");
        let mut effects = Effects::default();
        let mut state = origin.lock();
        let id = state.new_id();
        state.connecting -= 1;
        state.opened_total += 1;
        if state.expected == 1 {
            // An earlier connection spoke HTTP/1.1.
            state.expected = ASSUMED_STREAMS.min(origin.shared.max_streams_per_connection);
        }
        if !state.closed {
            let entry = Multiplexed { id, sender, in_flight: 0, limit: 1, settled: false, idle_since: now() };
            state.multiplexed.push(entry);
            origin.serve(&mut state, &mut effects);
        }
        drop(state);
        origin.apply(effects);
        (id, Registered { origin, id, http2: true, error: None })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(origin) = self.origin.take() {
            let error = origin.gone("the runtime that was connecting has ended");
            Self::failed(&origin, &error);
        }
    }
}

/// An open connection's entry in the pool; dropping it, for whatever reason, removes the entry.
pub(crate) struct Registered {
    origin: Arc<Origin>,
    id: u64,
    http2: bool,
    error: Option<TransportError>,
}

impl Registered {
    /// Removes the entry now, with the error the connection ended with.
    pub fn remove(&mut self, error: Option<TransportError>) {
        self.error = error;
        self.origin.ended(self.id, self.http2, self.error.as_ref());
        self.id = 0;
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // Ids begin at 1; 0 marks an entry already removed.
        if self.id != 0 {
            self.origin.ended(self.id, self.http2, self.error.as_ref());
        }
    }
}
