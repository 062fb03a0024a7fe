//! The right to use a connection for one request, returned whatever happens.
//!
//! A lease is a place on an HTTP/2 connection or a whole HTTP/1.1 connection. [`Lease::finish`] says the exchange is
//! complete; a lease dropped without it closes the HTTP/1.1 connection, while an HTTP/2 place is free either way,
//! because hyper resets the abandoned stream.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use tokio_util::sync::DropGuard;

use crate::origin::Origin;

pub(crate) type RequestBody = Full<Bytes>;

/// An HTTP/1.1 connection in nobody's or one request's hands. Dropping it ends the connection.
pub(crate) struct Http1Connection {
    pub id: u64,
    pub sender: http1::SendRequest<RequestBody>,
    /// Ends the driver task at once; without it an unread answer would be read on into the void.
    pub _end: DropGuard,
}

pub(crate) enum Slot {
    Http1(Http1Connection),
    Http2 { id: u64, sender: http2::SendRequest<RequestBody> },
}

/// The right to use one connection for one request.
pub(crate) struct Lease {
    origin: Arc<Origin>,
    /// Empty once the slot went back.
    slot: Option<Slot>,
    /// Whether the connection was without a request for a while, see `origin::RESTED`.
    rested: bool,
}

impl Lease {
    pub fn new(origin: Arc<Origin>, slot: Slot, rested: bool) -> Self {
        Self { origin, slot: Some(slot), rested }
    }

    pub fn is_rested(&self) -> bool {
        self.rested
    }

    /// Whether the connection still takes a request, as far as its driver has noticed.
    pub fn is_usable(&self) -> bool {
        match &self.slot {
            Some(Slot::Http1(connection)) => connection.sender.is_ready(),
            Some(Slot::Http2 { sender, .. }) => !sender.is_closed(),
            None => false,
        }
    }

    /// Host and port, for messages.
    pub fn peer(&self) -> &str {
        self.origin.peer()
    }

    pub fn is_http2(&self) -> bool {
        matches!(self.slot, Some(Slot::Http2 { .. }))
    }

    pub async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        match self.slot.as_mut().expect("the slot leaves only with the lease") {
            Slot::Http1(connection) => connection.sender.try_send_request(request).await,
            Slot::Http2 { sender, .. } => sender.try_send_request(request).await,
        }
    }

    /// The exchange is complete: the connection can serve the next request.
    pub fn finish(mut self) {
        match self.slot.take() {
            Some(Slot::Http1(connection)) => self.origin.park(connection),
            Some(slot) => self.origin.release(slot),
            None => {}
        }
    }

    /// Takes the slot out, for the pool that made the lease and found nobody to take it.
    pub fn into_slot(mut self) -> Option<Slot> {
        self.slot.take()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.origin.release(slot);
        }
    }
}
