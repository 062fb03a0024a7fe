//! A body that says when it is over, so that the connection knows that it is between two requests.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};

use crate::timed_io::Phase;

/// A request that is being served on a connection.
pub(crate) struct Served(Phase);

impl Served {
    pub(crate) fn new(phase: Phase) -> Self {
        Self(phase)
    }

    /// It is, until this body is.
    pub(crate) fn over<B>(self, body: B) -> Serving<B> {
        Serving { body, _served: self }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.0.served();
    }
}

/// A body whose end is the end of its request.
pub(crate) struct Serving<B> {
    body: B,
    _served: Served,
}

impl<B: Body + Unpin> Body for Serving<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
