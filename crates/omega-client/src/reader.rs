//! Reads one streamed answer: bytes in, items out, under the clocks, until the terminator proves it whole.
//!
//! Whoever reads (the driver for a whole answer, [`ChatStream`](crate::ChatStream) for a caller who reads along) goes
//! through [`Reader::poll_more`], so that silence, cuts and completeness are judged in one place.

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use omega_policy::{Timestamp, Usage};
use omega_protocol::{ChatChunk, ChatDecoder, ProviderError, ResponseEvent, ResponsesDecoder};
use omega_transport::{Body, TransportError, TransportErrorKind};

use crate::watch::{Fault, Watch};

/// An answer longer than this is given up: room for 200,000 tokens as one-token events of 300 bytes each, and far less
/// than fills a memory.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long the end of the body is awaited after the terminator, at most, so that an HTTP/1.1 connection can be used
/// again. It is nearly always in the same packet; a server that holds it back costs a new connection, not more time.
const LINGER: Duration = Duration::from_millis(10);
/// Bytes per token where only bytes are known. A round number: the provider's own usage replaces it where it comes.
const BYTES_PER_TOKEN: u64 = 4;

/// One kind of stream: what its decoder makes, and what the clocks and the limiter want to know of it.
pub(crate) trait Format: Send + 'static {
    type Item: Send;
    type Decoder: Send + ?Sized;

    fn push(
        decoder: &mut Self::Decoder,
        bytes: &Bytes,
        out: &mut Vec<Self::Item>,
    ) -> Result<(), ProviderError>;
    fn finish(decoder: &mut Self::Decoder, out: &mut Vec<Self::Item>) -> Result<(), ProviderError>;
    fn is_done(decoder: &Self::Decoder) -> bool;
    /// The bytes of the answer in an item; `None` if it carries none of the answer.
    fn content_bytes(item: &Self::Item) -> Option<usize>;
    /// The usage it reports.
    fn usage(item: &Self::Item) -> Option<Usage>;
}

/// Chat chunks.
pub(crate) struct Chat;

impl Format for Chat {
    type Item = ChatChunk;
    type Decoder = dyn ChatDecoder;

    fn push(
        decoder: &mut Self::Decoder,
        bytes: &Bytes,
        out: &mut Vec<ChatChunk>,
    ) -> Result<(), ProviderError> {
        decoder.push(bytes, out)
    }

    fn finish(decoder: &mut Self::Decoder, out: &mut Vec<ChatChunk>) -> Result<(), ProviderError> {
        decoder.finish(out)
    }

    fn is_done(decoder: &Self::Decoder) -> bool {
        decoder.is_done()
    }

    fn content_bytes(chunk: &ChatChunk) -> Option<usize> {
        chunk.content_bytes()
    }

    fn usage(chunk: &ChatChunk) -> Option<Usage> {
        chunk.usage.as_ref().map(Usage::from)
    }
}

/// Events of the Responses API.
pub(crate) struct Responses;

impl Format for Responses {
    type Item = ResponseEvent;
    type Decoder = dyn ResponsesDecoder;

    fn push(
        decoder: &mut Self::Decoder,
        bytes: &Bytes,
        out: &mut Vec<ResponseEvent>,
    ) -> Result<(), ProviderError> {
        decoder.push(bytes, out)
    }

    fn finish(decoder: &mut Self::Decoder, out: &mut Vec<ResponseEvent>) -> Result<(), ProviderError> {
        decoder.finish(out)
    }

    fn is_done(decoder: &Self::Decoder) -> bool {
        decoder.is_done()
    }

    fn content_bytes(event: &ResponseEvent) -> Option<usize> {
        event.has_content().then(|| event.data["delta"].as_str().map_or(0, str::len))
    }

    fn usage(event: &ResponseEvent) -> Option<Usage> {
        let usage = event.data.get("response")?.get("usage").filter(|usage| usage.is_object())?;
        let tokens = |value: &serde_json::Value| value.as_u64().unwrap_or(0);
        let input = tokens(&usage["input_tokens"]);
        Some(Usage {
            input_tokens: input,
            cached_input_tokens: tokens(&usage["input_tokens_details"]["cached_tokens"]).min(input),
            output_tokens: tokens(&usage["output_tokens"]),
        })
    }
}

/// What a piece of the body brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum More {
    /// Nothing of the answer: a role, a ping, usage.
    Preamble,
    /// Content; the first if `first`, and then when it came.
    Content { first: Option<Timestamp> },
    /// The terminator: the answer is whole.
    End { first: Option<Timestamp> },
}

/// One streamed answer on its way.
pub(crate) struct Reader<F: Format> {
    body: Body,
    decoder: Box<F::Decoder>,
    watch: Watch,
    headers: HeaderMap,
    bytes: usize,
    content_bytes: u64,
    /// The input as estimated before the call, until the provider says better.
    input_tokens: u64,
    usage: Option<Usage>,
    linger_until: Option<Timestamp>,
    /// When something came last.
    read_at: Timestamp,
}

impl<F: Format> Reader<F> {
    pub(crate) fn new(
        body: Body,
        decoder: Box<F::Decoder>,
        watch: Watch,
        headers: HeaderMap,
        input_tokens: u64,
    ) -> Self {
        let (bytes, content_bytes, usage, linger_until) = (0, 0, None, None);
        let read_at = watch.sent_at();
        Self {
            body,
            decoder,
            watch,
            headers,
            bytes,
            content_bytes,
            input_tokens,
            usage,
            linger_until,
            read_at,
        }
    }

    /// When something came last; before anything did, when it was asked for.
    pub(crate) fn read_at(&self) -> Timestamp {
        self.read_at
    }

    /// Reads on; items are appended to `out`, also those in front of a fault.
    pub(crate) fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<F::Item>,
    ) -> Poll<Result<More, Fault>> {
        let Poll::Ready(chunk) = self.body.poll_chunk(cx) else {
            return self.watch.poll_expired(cx).map(Err);
        };
        let known = out.len();
        let (decoded, ended) = match chunk {
            Some(Ok(bytes)) => {
                self.bytes += bytes.len();
                let decoded = if self.bytes > ANSWER_BYTES_MAX { Err(too_large()) } else { Ok(()) };
                (decoded.and_then(|()| F::push(&mut self.decoder, &bytes, out)), false)
            }
            Some(Err(error)) => (Err(broken(&error)), false),
            None => (F::finish(&mut self.decoder, out), true),
        };
        let now = self.watch.now();
        self.read_at = now;
        let first = self.take_stock(&out[known..], now);
        if let Err(error) = decoded {
            return Poll::Ready(Err(Fault::Provider(error)));
        }
        Poll::Ready(if ended || F::is_done(&self.decoder) {
            Ok(More::End { first: first.flatten() })
        } else if let Some(fault) = self.watch.expired(now) {
            Err(fault)
        } else {
            Ok(first.map_or(More::Preamble, |first| More::Content { first }))
        })
    }

    /// `None`: no content. `Some(None)`: content, not the first. `Some(Some(now))`: the first.
    fn take_stock(&mut self, items: &[F::Item], now: Timestamp) -> Option<Option<Timestamp>> {
        let mut content = false;
        for item in items {
            if let Some(bytes) = F::content_bytes(item) {
                content = true;
                self.content_bytes += bytes as u64;
            }
            if let Some(usage) = F::usage(item) {
                self.usage = Some(usage);
            }
        }
        content.then(|| self.watch.content(now).then_some(now))
    }

    /// [`Reader::poll_more`] for a driver.
    pub(crate) async fn more(&mut self, out: &mut Vec<F::Item>) -> Result<More, Fault> {
        std::future::poll_fn(|cx| self.poll_more(cx, out)).await
    }

    /// Waits a moment for the end of the body, whose connection can then be used again.
    pub(crate) fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until =
            *self.linger_until.get_or_insert_with(|| (self.watch.now() + LINGER).min(self.watch.deadline()));
        loop {
            match self.body.poll_chunk(cx) {
                // What comes after a terminator belongs to nobody.
                Poll::Ready(Some(Ok(_))) if self.watch.now() < until => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.watch.poll_until(until, cx),
            }
        }
    }

    /// [`Reader::poll_linger`] for a driver.
    pub(crate) async fn linger(&mut self) {
        std::future::poll_fn(|cx| self.poll_linger(cx)).await;
    }

    /// What the provider said it used.
    pub(crate) fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// What must have been used so far, as far as it was seen.
    pub(crate) fn seen(&self) -> Usage {
        let reported = self.usage.unwrap_or_default();
        Usage {
            input_tokens: if reported.input_tokens > 0 { reported.input_tokens } else { self.input_tokens },
            cached_input_tokens: reported.cached_input_tokens,
            output_tokens: reported.output_tokens.max(self.content_bytes.div_ceil(BYTES_PER_TOKEN)),
        }
    }

    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// The caller was away for `span`: what it did not ask for is not the provider's silence.
    pub(crate) fn excuse(&mut self, span: Duration) {
        self.watch.excuse(span);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.headers
    }
}

fn too_large() -> ProviderError {
    ProviderError::stream_broken(format!(
        "the answer is longer than {ANSWER_BYTES_MAX} bytes, the limit set for it"
    ))
}

/// A body that broke off after its head had come: the call was received and may have run, which makes it a broken
/// stream and not a refused connection.
pub(crate) fn broken(error: &TransportError) -> ProviderError {
    match error.kind() {
        TransportErrorKind::TooLarge => ProviderError::malformed(error.to_string()),
        _ => ProviderError::stream_broken(error.to_string()),
    }
}
