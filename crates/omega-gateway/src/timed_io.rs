//! A connection that gives up on a peer who sends or takes nothing for too long.
//!
//! A caller that never finishes its request's head, or stops reading its answer, would otherwise hold a connection, a
//! permit and a connection to the provider for ever. One timer per connection, armed for the next thing that could be
//! late and moved only when it fires: a busy connection never touches it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::clock::timer_now;

/// How long a connection may stay open between two requests. Longer than the official SDKs keep theirs (`httpx` forgets
/// a connection after 5 s, `undici` after 4 s), so that it is nearly always the caller who closes, and no request meets
/// a closing door.
const IDLE: Duration = Duration::from_secs(120);

/// What is said to a caller whose head does not come.
const TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\n\
content-length: 121\r\n\r\n{\"error\":{\"message\":\"the head of the request did not come in time\",\"type\":\"invalid_request_error\",\"code\":\"slow_request\"}}";

/// How long the peer may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For a request's head, from its first byte or from the connection's beginning.
    pub(crate) head: Duration,
    /// To take anything of an answer.
    pub(crate) write: Duration,
}

/// What a connection is waiting for; shared with whoever serves its requests.
#[derive(Clone, Debug)]
pub(crate) struct Phase(Arc<AtomicU8>);

/// Between two requests.
const BETWEEN: u8 = 0;
/// A head is on its way.
const HEAD: u8 = 1;
/// A request is served: what is late now is bounded elsewhere.
const SERVING: u8 = 2;
/// Many requests at once (HTTP/2): there is no one head to wait for.
const MANY: u8 = 3;

impl Phase {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicU8::new(HEAD)))
    }

    /// A head has come.
    pub(crate) fn serving(&self, version: http::Version) {
        let phase = if version >= http::Version::HTTP_2 { MANY } else { SERVING };
        self.0.store(phase, Ordering::Relaxed);
    }

    /// The answer was written.
    pub(crate) fn served(&self) {
        let _ = self.0.compare_exchange(SERVING, BETWEEN, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
}

/// See the module.
pub(crate) struct TimedIo<T> {
    inner: T,
    patience: Patience,
    phase: Phase,
    /// Since when the peer owes what the phase says.
    since: Instant,
    seen: u8,
    /// Since when a write is pending.
    stuck: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<T> TimedIo<T> {
    pub(crate) fn new(inner: T, patience: Patience, phase: Phase) -> Self {
        Self { inner, patience, phase, since: timer_now(), seen: HEAD, stuck: None, timer: None }
    }

    /// When the peer is too late to send, if it owes anything.
    fn read_deadline(&mut self) -> Option<Instant> {
        let phase = self.phase.get();
        if phase != self.seen {
            self.seen = phase;
            self.since = timer_now();
        }
        match phase {
            BETWEEN => Some(self.since + IDLE),
            HEAD => Some(self.since + self.patience.head),
            _ => None,
        }
    }

    /// Bytes came: if they begin a head, it is owed from now on.
    fn heard(&mut self) {
        if self.phase.get() == BETWEEN {
            self.phase.0.store(HEAD, Ordering::Relaxed);
            self.seen = HEAD;
            self.since = timer_now();
        }
    }

    /// Whether `deadline` has passed; if not, the task is woken then.
    fn is_late(&mut self, cx: &mut Context<'_>, deadline: Instant) -> bool {
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        // Armed for something earlier: it fires for nothing, and is armed anew then.
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if timer_now() >= deadline {
                return true;
            }
            timer.as_mut().reset(deadline);
        }
        false
    }

    fn watch_write<R>(&mut self, cx: &mut Context<'_>, wrote: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if wrote.is_ready() {
            self.stuck = None;
            return wrote;
        }
        let since = *self.stuck.get_or_insert_with(timer_now);
        let deadline = since + self.patience.write;
        match self.is_late(cx, deadline) {
            true => Poll::Ready(Err(late("the caller has read nothing of its answer for too long"))),
            false => Poll::Pending,
        }
    }
}

fn late(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, text)
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for TimedIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.inner).poll_read(cx, buffer) {
            Poll::Ready(read) => {
                if buffer.filled().len() > before {
                    self.heard();
                }
                Poll::Ready(read)
            }
            Poll::Pending => {
                let Some(deadline) = self.read_deadline() else { return Poll::Pending };
                if !self.is_late(cx, deadline) {
                    return Poll::Pending;
                }
                if self.seen == HEAD {
                    // Best effort: a peer this slow may have left.
                    let _ = Pin::new(&mut self.inner).poll_write(cx, TOO_SLOW);
                }
                Poll::Ready(Err(late("the caller has sent nothing for too long")))
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for TimedIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.watch_write(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write_vectored(cx, bytes);
        self.watch_write(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.watch_write(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const PATIENCE: Patience = Patience { head: Duration::from_secs(10), write: Duration::from_secs(60) };

    #[test]
    fn the_length_of_the_answer_to_a_slow_head_is_right() {
        let text = std::str::from_utf8(TOO_SLOW).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{} bytes", body.len());
        serde_json::from_str::<serde_json::Value>(body).expect("JSON");
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_come_is_answered_and_ended() {
        let (mut caller, server) = duplex(1_024);
        let mut io = TimedIo::new(server, PATIENCE, Phase::new());
        caller.write_all(b"POST / HT").await.expect("room");
        let mut buffer = [0; 64];
        assert_eq!(io.read(&mut buffer).await.expect("bytes"), 9);
        let began = timer_now();
        let error = io.read(&mut buffer).await.expect_err("too slow");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!((timer_now() - began).as_secs(), 10);
        let said = caller.read(&mut buffer).await.expect("an answer");
        assert!(buffer[..said].starts_with(b"HTTP/1.1 408 "));
    }

    #[tokio::test(start_paused = true)]
    async fn between_requests_there_is_more_time_and_while_one_is_served_all_of_it() {
        let (_caller, server) = duplex(1_024);
        let phase = Phase::new();
        let mut io = TimedIo::new(server, PATIENCE, phase.clone());
        phase.serving(http::Version::HTTP_11);
        let mut buffer = [0; 64];
        let hour = Duration::from_secs(3_600);
        assert!(tokio::time::timeout(hour, io.read(&mut buffer)).await.is_err(), "nothing is owed");
        phase.served();
        let began = timer_now();
        io.read(&mut buffer).await.expect_err("idle for too long");
        assert_eq!((timer_now() - began).as_secs(), IDLE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_reads_nothing_is_left() {
        let (_caller, server) = duplex(8);
        let mut io = TimedIo::new(server, PATIENCE, Phase::new());
        let began = timer_now();
        let error = io.write_all(&[0; 64]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!((timer_now() - began).as_secs(), 60);
    }
}
