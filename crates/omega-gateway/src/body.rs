//! A streamed answer on its way out: bytes as they come, comments while nothing comes yet, and an honest end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::Frame;
use omega_client::{Error, Pass, RelayStream, Relayed};
use tokio::time::Sleep;

use crate::metrics::CallMetrics;
use crate::relay::Calling;
use crate::signal::Watching;
use crate::visit::Visit;

/// How a stream is framed.
#[derive(Clone, Debug)]
pub(crate) enum Framing {
    /// Server-sent events.
    Events,
    /// One JSON array, as Gemini streams without `alt=sse`.
    Array {
        /// Something stands in it already.
        begun: bool,
    },
}

impl Framing {
    pub(crate) fn array() -> Self {
        Self::Array { begun: false }
    }

    pub(crate) fn content_type(&self) -> &'static str {
        match self {
            Self::Events => "text/event-stream",
            Self::Array { .. } => "application/json",
        }
    }

    /// The same events in this framing. Each piece consists of whole events.
    fn framed(&mut self, events: Bytes) -> Bytes {
        let Self::Array { begun } = self else { return events };
        let mut out = BytesMut::with_capacity(events.len());
        let mut in_event = false;
        for line in events.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                in_event = false;
            }
            let Some(data) = line.strip_prefix(b"data:") else { continue };
            if !in_event {
                out.extend_from_slice(if *begun { b",\r\n" } else { b"[" });
            }
            (in_event, *begun) = (true, true);
            out.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
        }
        out.freeze()
    }

    /// What keeps a connection alive without meaning anything.
    fn keep_alive(&self) -> &'static [u8] {
        match self {
            Self::Events => b": waiting for a turn\n\n",
            Self::Array { .. } => b"\n",
        }
    }

    /// What comes after the last event.
    fn end(&self) -> &'static [u8] {
        match self {
            Self::Events => b"",
            Self::Array { begun: true } => b"]",
            Self::Array { begun: false } => b"[]",
        }
    }
}

/// See the module. Dropped half-way, it cancels the call, and the visit is told as a caller that went away.
pub(crate) struct StreamBody {
    state: State,
    framing: Framing,
    /// The gateway's own end.
    aborted: Watching,
    visit: Option<Visit>,
    pass: Option<Pass>,
}

enum State {
    /// The call has not begun to be answered.
    Waiting {
        calling: Calling,
        every: Duration,
        pause: Pin<Box<Sleep>>,
    },
    Flowing(Box<Flowing>),
    /// The answer came whole after all, or an error did.
    Rest(Bytes),
    /// The framing's end is owed.
    Closing,
    Done,
}

struct Flowing {
    stream: RelayStream,
    metrics: std::sync::Arc<CallMetrics>,
    last: Option<Duration>,
}

impl StreamBody {
    /// A stream that has begun.
    pub(crate) fn flowing(
        stream: RelayStream,
        framing: Framing,
        mut visit: Visit,
        pass: Option<Pass>,
    ) -> Self {
        let flowing = Flowing::new(stream, &mut visit);
        Self::new(State::Flowing(Box::new(flowing)), framing, visit, pass)
    }

    /// A stream whose caller hears from us every so often while it waits.
    pub(crate) fn waiting(
        calling: Calling,
        every: Duration,
        framing: Framing,
        visit: Visit,
        pass: Option<Pass>,
    ) -> Self {
        // The first is due at once: it is what commits the answer.
        let pause = Box::pin(tokio::time::sleep(Duration::ZERO));
        Self::new(State::Waiting { calling, every, pause }, framing, visit, pass)
    }

    fn new(state: State, framing: Framing, visit: Visit, pass: Option<Pass>) -> Self {
        let aborted = visit.shared.abort.watch();
        Self { state, framing, aborted, visit: Some(visit), pass }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            match &mut self.state {
                State::Waiting { calling, every, pause } => {
                    if let Poll::Ready(relayed) = calling.as_mut().poll(cx) {
                        self.began(relayed);
                        continue;
                    }
                    ready!(pause.as_mut().poll(cx));
                    let next = crate::clock::timer_now() + *every;
                    pause.as_mut().reset(next);
                    return Poll::Ready(Some(Bytes::from_static(self.framing.keep_alive())));
                }
                State::Flowing(flowing) => {
                    if let Poll::Ready(next) = flowing.stream.poll_bytes(cx) {
                        match next {
                            Some(bytes) => {
                                flowing.note();
                                return Poll::Ready(Some(self.framing.framed(bytes)));
                            }
                            None => self.ended(),
                        }
                        continue;
                    }
                    ready!(self.aborted.poll(cx));
                    flowing.stream.give_up("the gateway is being stopped");
                }
                State::Rest(bytes) => {
                    let bytes = std::mem::take(bytes);
                    self.state = State::Closing;
                    return Poll::Ready(Some(self.framing.framed(bytes)));
                }
                State::Closing => {
                    self.state = State::Done;
                    match self.framing.end() {
                        b"" => {}
                        end => return Poll::Ready(Some(Bytes::from_static(end))),
                    }
                }
                State::Done => return Poll::Ready(None),
            }
        }
    }

    /// The call of a caller that waited has begun to be answered, or failed.
    fn began(&mut self, relayed: Result<Relayed, Error>) {
        let Some(visit) = &mut self.visit else { return };
        self.state = match relayed {
            Ok(Relayed::Stream(stream)) => State::Flowing(Box::new(Flowing::new(stream, visit))),
            // Only what was asked for whole comes whole.
            Ok(Relayed::Whole(answer)) => {
                visit.served_by(&answer.provider, &answer.model, &answer.attempts, answer.queued);
                visit.record.usage = answer.usage;
                self.over();
                State::Rest(answer.body)
            }
            Err(error) => {
                visit.failed(&error);
                let mut out = Vec::new();
                let format = visit.kind.protocol().format();
                format
                    .stream_writer(&omega_client::ChatRequest::default())
                    .fail(&error.for_caller(&visit.id), &mut out);
                self.over();
                State::Rest(out.into())
            }
        };
    }

    fn ended(&mut self) {
        if let (State::Flowing(flowing), Some(visit)) = (&self.state, &mut self.visit) {
            flowing.tell(visit);
        }
        self.over();
        self.state = State::Closing;
    }

    /// The call is over: what is owed to the caller's limits is settled, and the visit told.
    fn over(&mut self) {
        let Some(visit) = self.visit.take() else { return };
        if let Some(pass) = self.pass.take() {
            pass.settle(visit.record.usage);
        }
        visit.finish(StatusCode::OK);
    }
}

impl Flowing {
    fn new(stream: RelayStream, visit: &mut Visit) -> Self {
        visit.served_by(stream.provider(), stream.model(), stream.attempts(), stream.queued());
        visit.first_content();
        let metrics = visit.metrics();
        Self { stream: stream.named(visit.id.clone()), metrics, last: None }
    }

    /// Something came.
    fn note(&mut self) {
        let now = self.stream.heard();
        if let (Some(last), Some(now)) = (std::mem::replace(&mut self.last, now), now) {
            self.metrics.gap(now.saturating_sub(last));
        }
    }

    /// What is to be told of it.
    fn tell(&self, visit: &mut Visit) {
        let stream = &self.stream;
        visit.served_by(stream.provider(), stream.model(), stream.attempts(), stream.queued());
        let record = &mut visit.record;
        record.usage = stream.usage();
        record.continued = stream.continued();
        record.error = stream.error().map(|error| (error.kind().code(), error.to_string()));
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        if let (State::Flowing(flowing), Some(visit)) = (&self.state, &mut self.visit) {
            flowing.tell(visit);
        }
    }
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        loop {
            match ready!(this.poll(cx)) {
                // A chunk of nothing would end a chunked body.
                Some(bytes) if bytes.is_empty() => {}
                Some(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                None => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_become_the_elements_of_one_array() {
        let mut framing = Framing::array();
        let mut out = Vec::new();
        for piece in
            ["data: {\"a\":1}\r\n\r\n", ": comment\n\n", "data: {\"b\":\ndata: 2}\n\ndata:{\"c\":3}\n\n"]
        {
            out.extend_from_slice(&framing.framed(Bytes::from_static(piece.as_bytes())));
        }
        out.extend_from_slice(framing.end());
        let read: serde_json::Value = serde_json::from_slice(&out).expect("an array");
        assert_eq!(read, serde_json::json!([{"a": 1}, {"b": 2}, {"c": 3}]));
    }

    #[test]
    fn an_array_without_elements_is_still_one() {
        assert_eq!(Framing::array().end(), b"[]");
    }

    #[test]
    fn events_stay_as_they_are() {
        let event = Bytes::from_static(b"data: 1\n\n");
        assert_eq!(Framing::Events.framed(event.clone()).as_ptr(), event.as_ptr());
    }
}
