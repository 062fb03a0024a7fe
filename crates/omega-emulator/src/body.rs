//! A response body that follows a script: send this, wait, send that, break. Every healthy pace and every fault of a
//! body is such a script, so there is one place where bytes are handed out and one where their end is recorded.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::clock::monotonic;
use crate::record::Finished;
use crate::state::Ticket;

/// What a body does next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// Hands out bytes. `content`: whether they count as a content event.
    Send { bytes: Bytes, tokens: u32, content: bool },
    /// Waits, counted from the end of the last wait, so that delays do not add up.
    Wait(Duration),
    /// Breaks the connection (HTTP/2: the stream) once everything before is flushed.
    Cut,
    /// Never does anything again.
    Hang,
    /// Sends these bytes again and again, for ever, this far apart.
    Repeat { bytes: Bytes, every: Duration },
    /// Sends these bytes without pause for ever.
    Flood(Bytes),
}

impl Step {
    pub(crate) fn send(bytes: impl Into<Bytes>) -> Self {
        Self::Send { bytes: bytes.into(), tokens: 0, content: false }
    }
}

/// Lets the connection write what it was given before it is broken: the HTTP library flushes when the body pauses.
const FLUSH: Duration = Duration::from_millis(5);

/// The body.
pub(crate) struct ScriptBody {
    steps: VecDeque<Step>,
    length: Option<u64>,
    due: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whether the pause before a cut has begun.
    flushed: bool,
    ticket: Option<Ticket>,
}

/// The body breaks off on purpose.
#[derive(Debug, thiserror::Error)]
#[error("the connection is broken on purpose")]
pub(crate) struct Broken;

impl ScriptBody {
    /// - `length`: the exact length, where it is announced.
    /// - `ticket`: told when the body ends; `None` for requests nobody keeps a record of.
    pub(crate) fn new(steps: VecDeque<Step>, length: Option<u64>, ticket: Option<Ticket>) -> Self {
        Self { steps, length, due: monotonic(), sleep: None, flushed: false, ticket }
    }

    pub(crate) fn whole(bytes: Bytes, ticket: Option<Ticket>) -> Self {
        let length = Some(bytes.len() as u64);
        Self::new(VecDeque::from([Step::send(bytes)]), length, ticket)
    }

    fn end(&mut self, finished: Finished) {
        if let Some(ticket) = self.ticket.take() {
            ticket.end(finished);
        }
    }

    /// Starts a wait, counted from the end of the last one unless the client has fallen far behind since.
    fn wait(&mut self, span: Duration) {
        const CATCH_UP: Duration = Duration::from_millis(50);
        let now = monotonic();
        let from = if now.saturating_duration_since(self.due) > CATCH_UP { now } else { self.due };
        self.due = from + span;
        self.sleep = Some(Box::pin(tokio::time::sleep_until(self.due)));
    }

    fn send(
        &mut self,
        bytes: Bytes,
        tokens: u32,
        content: bool,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(ticket) = &mut self.ticket {
            ticket.sent(tokens, content);
        }
        // Recorded before the last bytes leave, so that whoever has the whole answer finds the record closed.
        if self.steps.is_empty() {
            self.end(Finished::Completed);
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

impl http_body::Body for ScriptBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(context));
                self.sleep = None;
            }
            match self.steps.pop_front() {
                None => {
                    self.end(Finished::Completed);
                    return Poll::Ready(None);
                }
                Some(Step::Send { bytes, .. }) if bytes.is_empty() => {}
                Some(Step::Send { bytes, tokens, content }) => return self.send(bytes, tokens, content),
                Some(Step::Wait(span)) if span.is_zero() => {}
                Some(Step::Wait(span)) => self.wait(span),
                Some(Step::Cut) if self.flushed => {
                    self.end(Finished::Cut);
                    return Poll::Ready(Some(Err(Broken)));
                }
                Some(Step::Cut) => {
                    self.flushed = true;
                    self.steps.push_front(Step::Cut);
                    self.due = monotonic();
                    self.wait(FLUSH);
                }
                // Only the client's leaving or the shutdown ends this; both drop the body.
                Some(Step::Hang) => {
                    self.steps.push_front(Step::Hang);
                    return Poll::Pending;
                }
                Some(Step::Repeat { bytes, every }) => {
                    self.steps.push_front(Step::Repeat { bytes: bytes.clone(), every });
                    self.steps.push_front(Step::Wait(every));
                    return self.send(bytes, 0, false);
                }
                Some(Step::Flood(bytes)) => {
                    self.steps.push_front(Step::Flood(bytes.clone()));
                    return self.send(bytes, 0, false);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty() && self.sleep.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
