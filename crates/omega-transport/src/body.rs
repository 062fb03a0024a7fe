//! The body of an answer, chunk by chunk, exactly as the chunks came from the wire.
//!
//! A body holds on to its connection. Read to its end, it gives the connection back; dropped before, it resets the
//! HTTP/2 stream or closes the HTTP/1.1 connection, because nobody knows how much of the old answer is still to come.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use http_body::Body as _;
use hyper::body::Incoming;

use crate::error::{TransportError, TransportErrorKind};
use crate::lease::Lease;

/// The body of an answer. After the end or an error it yields nothing more.
pub struct Body {
    source: Source,
}

enum Source {
    Done,
    Full(Bytes),
    Wire(Wire),
    Script(Pin<Box<dyn Stream<Item = Result<Bytes, TransportError>> + Send>>),
}

struct Wire {
    incoming: Incoming,
    lease: Lease,
}

impl Body {
    /// A body without a byte.
    pub fn empty() -> Self {
        Self { source: Source::Done }
    }

    /// A body of one chunk.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self { source: Source::Full(bytes.into()) }
    }

    /// A body of the given chunks, for scripted transports. An error ends it.
    pub fn from_chunks<I>(chunks: I) -> Self
    where
        I: IntoIterator<Item = Result<Bytes, TransportError>>,
        I::IntoIter: Send + 'static,
    {
        Self::from_stream(stream::iter(chunks))
    }

    /// A body of the chunks of `stream`, for scripted transports that pause between chunks. An error ends it.
    pub fn from_stream(stream: impl Stream<Item = Result<Bytes, TransportError>> + Send + 'static) -> Self {
        Self { source: Source::Script(Box::pin(stream)) }
    }

    /// What `lease`'s connection is about to deliver.
    pub(crate) fn from_wire(incoming: Incoming, lease: Lease) -> Self {
        if incoming.is_end_stream() {
            lease.finish();
            return Self::empty();
        }
        Self { source: Source::Wire(Wire { incoming, lease }) }
    }

    /// The next chunk as soon as it is there; `None` after the last one. Chunks are never empty.
    ///
    /// Cancel-safe: dropping the future loses no bytes.
    pub async fn chunk(&mut self) -> Option<Result<Bytes, TransportError>> {
        std::future::poll_fn(|cx| self.poll_chunk(cx)).await
    }

    /// [`chunk`](Self::chunk) for hand-written futures and streams.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, TransportError>>> {
        loop {
            let item = match &mut self.source {
                Source::Done => return Poll::Ready(None),
                Source::Full(bytes) => {
                    let bytes = std::mem::take(bytes);
                    self.source = Source::Done;
                    Some(Ok(bytes))
                }
                Source::Script(stream) => ready!(stream.poll_next_unpin(cx)),
                Source::Wire(wire) => ready!(wire.poll_chunk(cx)),
            };
            match item {
                Some(Ok(bytes)) if bytes.is_empty() => {}
                Some(Ok(bytes)) => {
                    self.finish_if_ended();
                    return Poll::Ready(Some(Ok(bytes)));
                }
                Some(Err(error)) => {
                    self.source = Source::Done;
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    self.finish();
                    return Poll::Ready(None);
                }
            }
        }
    }

    /// The rest of the body in one piece, if it has at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// The error of the chunk that failed, or [`TransportErrorKind::TooLarge`] as soon as the body is known to be
    /// longer than `limit`; the rest is then given up.
    pub async fn collect(&mut self, limit: usize) -> Result<Bytes, TransportError> {
        if self.least_remaining() > limit as u64 {
            return Err(self.too_large(limit));
        }
        let Some(first) = self.chunk().await.transpose()? else { return Ok(Bytes::new()) };
        if first.len() > limit {
            return Err(self.too_large(limit));
        }
        let Some(second) = self.chunk().await.transpose()? else { return Ok(first) };
        let known = usize::try_from(self.least_remaining()).unwrap_or(limit);
        let mut whole =
            BytesMut::with_capacity((first.len() + second.len()).saturating_add(known).min(limit));
        whole.extend_from_slice(&first);
        let mut next = Some(second);
        while let Some(chunk) = next {
            if whole.len() + chunk.len() > limit {
                return Err(self.too_large(limit));
            }
            whole.extend_from_slice(&chunk);
            next = self.chunk().await.transpose()?;
        }
        Ok(whole.freeze())
    }

    /// Bytes that must still come, as far as the answer's head has promised.
    fn least_remaining(&self) -> u64 {
        match &self.source {
            Source::Wire(wire) => wire.incoming.size_hint().lower(),
            Source::Full(bytes) => bytes.len() as u64,
            Source::Done | Source::Script(_) => 0,
        }
    }

    fn too_large(&mut self, limit: usize) -> TransportError {
        self.source = Source::Done;
        let message = format!("the answer is longer than {limit} bytes, the limit set for it");
        TransportError::new(TransportErrorKind::TooLarge, message)
    }

    /// Gives the connection back with the last byte: many callers never ask for the end that follows it.
    fn finish_if_ended(&mut self) {
        if matches!(&self.source, Source::Wire(wire) if wire.incoming.is_end_stream()) {
            self.finish();
        }
    }

    fn finish(&mut self) {
        if let Source::Wire(wire) = std::mem::replace(&mut self.source, Source::Done) {
            wire.lease.finish();
        }
    }
}

impl Wire {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, TransportError>>> {
        loop {
            let frame = match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    let error = TransportError::from_hyper(error, self.lease.peer());
                    // Whatever the frame that broke the body says, its head had already come.
                    return Poll::Ready(Some(Err(error.with_sent(true))));
                }
            };
            // Trailers carry nothing any of the providers speaks of.
            if let Ok(bytes) = frame.into_data() {
                return Poll::Ready(Some(Ok(bytes)));
            }
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        // Readers of event streams stop at the provider's terminator. If the end of the body has arrived by then,
        // the connection is as good as one read to its end; a look costs nothing and never waits.
        if let Source::Wire(mut wire) = std::mem::replace(&mut self.source, Source::Done) {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            if matches!(wire.poll_chunk(&mut cx), Poll::Ready(None)) {
                wire.lease.finish();
            }
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::full(bytes)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.source {
            Source::Done => "done",
            Source::Full(_) => "full",
            Source::Wire(_) => "wire",
            Source::Script(_) => "script",
        };
        f.debug_tuple("Body").field(&state).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(parts: &[&'static str]) -> Body {
        let parts: Vec<_> = parts.iter().map(|part| Ok(Bytes::from_static(part.as_bytes()))).collect();
        Body::from_chunks(parts)
    }

    #[tokio::test]
    async fn chunks_come_in_order_without_empty_ones() {
        let mut body = chunks(&["one", "", "two"]);
        assert_eq!(body.chunk().await.expect("a chunk").expect("bytes"), "one");
        assert_eq!(body.chunk().await.expect("a chunk").expect("bytes"), "two");
        assert!(body.chunk().await.is_none());
        assert!(body.chunk().await.is_none());
    }

    #[tokio::test]
    async fn collect_takes_exactly_the_limit_and_refuses_one_byte_more() {
        assert_eq!(chunks(&["abc", "def"]).collect(6).await.expect("six bytes"), "abcdef");
        let error = chunks(&["abc", "def"]).collect(5).await.expect_err("too long");
        assert_eq!(error.kind(), TransportErrorKind::TooLarge);
        assert_eq!(Body::full("abc").collect(3).await.expect("three bytes"), "abc");
        assert_eq!(
            Body::full("abc").collect(2).await.expect_err("too long").kind(),
            TransportErrorKind::TooLarge
        );
        assert!(Body::empty().collect(0).await.expect("nothing").is_empty());
    }

    #[tokio::test]
    async fn an_error_ends_the_body() {
        let broken = TransportError::new(TransportErrorKind::Reset, "reset");
        let mut body = Body::from_chunks([Ok(Bytes::from_static(b"a")), Err(broken), Ok(Bytes::new())]);
        assert!(body.chunk().await.expect("a chunk").is_ok());
        assert!(body.chunk().await.expect("an error").is_err());
        assert!(body.chunk().await.is_none());
    }
}
