//! Streams in the caller's hands: pieces as they come, a clear error in the place of a missing end.
//!
//! A stream owns its permit. It settles at the terminator, at a break, or, dropped before either, as a caller who
//! went away: no verdict, charged for what was seen.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use omega_policy::{Call, FailureKind, Timestamp, Usage};
use omega_protocol::{ChatChunk, ResponseEvent};
use secrecy::SecretString;

use crate::answer::{Attempt, AttemptOutcome};
use crate::client::Inner;
use crate::driver::{Served, failed_outcome};
use crate::exchange::{Begun, with_seen};
use crate::reader::{Chat, Format, More, Reader, Responses};
use crate::registry::Target;
use crate::scope::Held;
use crate::telemetry;
use crate::watch::{Fault, seconds};
use crate::{Error, ErrorKind};

/// A chat answer as it is written.
///
/// Its first content has come already: whatever failed before it was retried or failed over unseen. The last item is
/// either the end of a whole answer or an error; a stream that was cut never just ends.
///
/// Dropping it cancels the call.
#[must_use = "a stream does nothing unless it is read"]
pub struct ChatStream(Flow<Chat>);

/// A response of OpenAI's Responses API as it is written. See [`ChatStream`].
#[must_use = "a stream does nothing unless it is read"]
pub struct ResponsesStream(Flow<Responses>);

macro_rules! stream {
    ($stream:ident, $format:ty, $item:ty) => {
        impl $stream {
            pub(crate) fn new(client: Arc<Inner>, served: Served<Begun<$format>>) -> Self {
                Self(Flow::new(client, served))
            }

            /// The provider that serves it.
            pub fn provider(&self) -> &str {
                &self.0.target.member.name
            }

            /// The model asked for there, without a `provider/` in front.
            pub fn model(&self) -> &str {
                &self.0.target.model
            }

            /// Everything that was tried, in order; the last one is this stream.
            pub fn attempts(&self) -> &[Attempt] {
                &self.0.attempts
            }

            /// How long the call waited for quota before it began.
            pub fn queued(&self) -> Duration {
                self.0.queued
            }

            /// What it cost: known once the provider has said so, which is at the end.
            pub fn usage(&self) -> Option<Usage> {
                self.0.usage()
            }

            /// The provider's id of the request, for its support.
            pub fn request_id(&self) -> Option<&str> {
                self.0.request_id()
            }

            /// The next piece; `None` after the end.
            pub async fn next(&mut self) -> Option<Result<$item, Error>> {
                std::future::poll_fn(|cx| self.0.poll_item(cx)).await
            }
        }

        impl Stream for $stream {
            type Item = Result<$item, Error>;

            fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
                self.get_mut().0.poll_item(cx)
            }
        }

        impl fmt::Debug for $stream {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($stream))
                    .field("provider", &self.provider())
                    .field("model", &self.model())
                    .field("usage", &self.usage())
                    .finish_non_exhaustive()
            }
        }
    };
}

stream!(ChatStream, Chat, ChatChunk);
stream!(ResponsesStream, Responses, ResponseEvent);

/// A stream with everything it owes.
pub(crate) struct Flow<F: Format> {
    client: Arc<Inner>,
    reader: Reader<F>,
    items: VecDeque<F::Item>,
    scratch: Vec<F::Item>,
    state: State,
    target: Target,
    attempts: Vec<Attempt>,
    max_attempts: u32,
    queued: Duration,
    /// Since when the caller has had pieces to read. A caller that takes its time over them must not make the
    /// provider look silent.
    away_since: Option<Timestamp>,
    /// The key that the caller brought: it must not be shown.
    own_key: Option<SecretString>,
}

// Nothing in it is pinned: the body and the timers are boxed.
impl<F: Format> Unpin for Flow<F> {}

enum State {
    /// More is to come; the permit is out.
    Flowing(Box<(Held, Call)>),
    /// Whole; the connection's end is awaited for a moment.
    Ending,
    /// Broken: the error is the last item.
    Broken(Option<Error>),
    /// Read to its end.
    Done,
}

impl<F: Format> Flow<F> {
    pub(crate) fn new(client: Arc<Inner>, served: Served<Begun<F>>) -> Self {
        let Served { answer: Begun { reader, items }, target, attempts, max_attempts, queued, open } = served;
        let state = open.map_or(State::Ending, |open| State::Flowing(Box::new(open)));
        let (items, scratch, away_since) = (items.into(), Vec::new(), Some(reader.watch().now()));
        let own_key = None;
        Self {
            client,
            reader,
            items,
            scratch,
            state,
            target,
            attempts,
            max_attempts,
            queued,
            away_since,
            own_key,
        }
    }

    /// Hides this key, whatever the provider says.
    pub(crate) fn hide(&mut self, own_key: Option<SecretString>) {
        self.own_key = own_key;
    }

    /// The next piece; an error is the last one.
    pub(crate) fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<F::Item, Error>>> {
        loop {
            if let Some(item) = self.items.pop_front() {
                self.away_since.get_or_insert(self.reader.read_at());
                return Poll::Ready(Some(Ok(item)));
            }
            match &mut self.state {
                State::Flowing(_) => ready!(self.poll_flow(cx)),
                State::Ending => {
                    ready!(self.reader.poll_linger(cx));
                    self.state = State::Done;
                }
                State::Broken(error) => {
                    let error = error.take();
                    self.state = State::Done;
                    return Poll::Ready(error.map(Err));
                }
                State::Done => return Poll::Ready(None),
            }
        }
    }

    pub(crate) fn usage(&self) -> Option<Usage> {
        self.reader.usage()
    }

    pub(crate) fn read_at(&self) -> Timestamp {
        self.reader.read_at()
    }

    /// The provider's id of the request.
    pub(crate) fn request_id(&self) -> Option<&str> {
        self.target.member.provider().request_id(self.reader.headers())
    }

    /// What has become of the attempt that this is.
    pub(crate) fn last_attempt(&self) -> Option<&Attempt> {
        self.attempts.last()
    }

    /// Reads on, and settles with the layers as soon as the end is known, however slowly the caller reads.
    fn poll_flow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(since) = self.away_since.take() {
            let now = self.reader.watch().now();
            self.reader.excuse(now.saturating_since(since));
        }
        let more = ready!(self.reader.poll_more(cx, &mut self.scratch));
        self.items.extend(self.scratch.drain(..));
        let State::Flowing(open) = &mut self.state else { return Poll::Ready(()) };
        let (held, call) = &mut **open;
        held.saw(self.reader.seen());
        let first = match &more {
            Ok(More::Content { first } | More::End { first }) => *first,
            _ => None,
        };
        if let Some(now) = first {
            let elapsed = now.saturating_since(self.reader.watch().sent_at());
            // Only a stream whose preamble was too long to be held back has its first content here; whether it
            // reasons first is not known any more, and hardly matters then.
            held.first_token(call.model, false, elapsed, now);
        }
        match more {
            Ok(More::Preamble | More::Content { .. }) => {}
            Ok(More::End { .. }) => {
                if let State::Flowing(open) = std::mem::replace(&mut self.state, State::Ending) {
                    let (held, mut call) = *open;
                    self.client.succeed(held, &mut call, self.reader.usage());
                }
            }
            Err(fault) => self.broke(fault),
        }
        Poll::Ready(())
    }

    fn broke(&mut self, fault: Fault) {
        let State::Flowing(open) = std::mem::replace(&mut self.state, State::Broken(None)) else { return };
        let (held, mut call) = *open;
        let (name, model) = (&*self.target.member.name, &self.target.model);
        let (error, outcome) = match with_seen(fault, &self.reader) {
            Fault::Provider(mut said) => {
                self.target.member.redact(&mut said, self.own_key.as_ref());
                said.request_id = said.request_id.or_else(|| {
                    let provider = self.target.member.provider();
                    provider.request_id(self.reader.headers()).map(str::to_owned)
                });
                telemetry::attempt_failed(call.attempts + 1, self.max_attempts, &said);
                let mut failure = said.failure.clone();
                // Part of it was delivered, so it is never sent again: nor may it take a retry from the budget.
                failure.should_retry = Some(false);
                self.client.fail(held, &mut call, failure);
                let outcome = failed_outcome(&said);
                (Error::provider_said(name, model, said).into_broken_stream(), outcome)
            }
            Fault::Deadline { .. } => {
                // Nobody's failure; the permit goes back with what was seen.
                drop(held);
                let message = format!(
                    "{name}: the call's deadline passed in the middle of the stream, {} s after it was sent",
                    seconds(self.reader.watch().now().saturating_since(self.reader.watch().sent_at()))
                );
                telemetry::attempt_out_of_time(call.attempts + 1, self.max_attempts, &message);
                let outcome = AttemptOutcome::Failed {
                    kind: FailureKind::StreamBroken,
                    status: None,
                    code: None,
                    message: message.clone(),
                };
                (Error::new(ErrorKind::Deadline, message).at(name, model), outcome)
            }
        };
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.outcome = outcome;
        }
        self.state = State::Broken(Some(error.with_attempts(self.attempts.clone())));
    }
}
