//! A relayed stream in the caller's hands: bytes of its own protocol, from whoever answers.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use omega_policy::{Timestamp, Usage};
use omega_protocol::{ChatRequest, StreamOptions, StreamWriter};
use secrecy::SecretString;

use super::recovery::{Recovery, Splice, Terms, left};
use super::{Core, Frame, Frames};
use crate::answer::Attempt;
use crate::client::Inner;
use crate::driver::Served;
use crate::error::Error;
use crate::exchange::Begun;
use crate::registry::Target;
use crate::streams::Flow;
use crate::telemetry;

/// A relayed stream as it is written.
///
/// Its first content has come already. It ends with its protocol's terminator, or with the event its protocol's clients
/// raise as an error: never like a whole answer that it is not. Dropping it cancels the call.
#[must_use = "a stream does nothing unless it is read"]
pub struct RelayStream {
    client: Arc<Inner>,
    state: State,
    /// The frames carry bytes for the caller, and not chunks to translate.
    passes: bool,
    writer: Box<dyn StreamWriter>,
    recovery: Option<Box<Recovery>>,
    splice: Splice,
    provider: String,
    model: String,
    attempts: Vec<Attempt>,
    queued: Duration,
    usage: Option<Usage>,
    request_id: Option<String>,
    /// The key that the caller brought: it must not be shown.
    own_key: Option<SecretString>,
    /// Under which id the caller finds this call in the log.
    id: String,
    /// Why it broke first, while somebody goes on.
    broken: Option<Error>,
    error: Option<Error>,
    continued: u32,
}

enum State {
    Flowing(Box<Flow<Frames>>),
    GoingOn(GoingOn),
    /// This is the last of it.
    Last(Bytes),
    Done,
}

/// What became of asking others to go on.
pub(super) type Went = Result<(Served<(Begun<Frames>, super::exchange::Joint)>, Splice), Error>;
type GoingOn = Pin<Box<dyn Future<Output = Gone> + Send>>;
type Gone = (Recovery, Went);

impl RelayStream {
    pub(crate) fn new(
        client: Arc<Inner>,
        core: Arc<Core>,
        served: Served<Begun<Frames>>,
        passes: bool,
        recovery: Option<(Vec<Target>, Terms, bool)>,
    ) -> Self {
        let recovery = recovery.map(|(targets, terms, prefill)| {
            let at = targets.iter().position(|target| target.is(&served.target)).unwrap_or(targets.len());
            let others = left(&targets, at, &served.attempts);
            let order = others.chain(targets.get(at)).cloned().collect();
            Box::new(Recovery::new(Arc::clone(&core), order, terms, prefill))
        });
        let writer = match core.typed_if_known() {
            Some(request) => core.protocol.format().stream_writer(request),
            None => core.protocol.format().stream_writer(&ChatRequest {
                stream_options: Some(StreamOptions {
                    include_usage: Some(core.envelope.include_usage),
                    ..StreamOptions::default()
                }),
                ..ChatRequest::default()
            }),
        };
        let (provider, model) = (served.target.member.name.to_string(), served.target.model.clone());
        let (attempts, queued) = (served.attempts.clone(), served.queued);
        let mut this = Self {
            state: State::Done,
            client,
            passes,
            writer,
            recovery,
            splice: Splice::Joined,
            provider,
            model,
            attempts,
            queued,
            usage: None,
            request_id: None,
            own_key: core.credential.clone(),
            id: String::new(),
            broken: None,
            error: None,
            continued: 0,
        };
        this.flow(served);
        this
    }

    fn flow(&mut self, served: Served<Begun<Frames>>) {
        let mut flow = Flow::new(Arc::clone(&self.client), served);
        flow.hide(self.own_key.clone());
        self.request_id = flow.request_id().map(str::to_owned);
        self.state = State::Flowing(Box::new(flow));
    }

    /// Names the call to the caller, should it have to be told of an error.
    pub fn named(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// Ends it here, with an error that says why; does nothing once it has ended.
    pub fn give_up(&mut self, why: &str) {
        if matches!(self.state, State::Flowing(_) | State::GoingOn(_)) {
            self.keep_usage();
            self.fail(Error::stream_broken(why));
        }
    }

    /// The provider that serves it; after a break, the one that goes on.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// The model asked for there, without a `provider/` in front.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Everything that was tried, in order.
    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// How long the call waited for quota before it began.
    pub fn queued(&self) -> Duration {
        self.queued
    }

    /// What it cost: known once the provider has said so, which is at the end.
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// The provider's id of the request, for its support.
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// Why it broke, once it has.
    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// How often another target went on after a break.
    pub fn continued(&self) -> u32 {
        self.continued
    }

    /// When something came of it last, since an origin that the client's clock chose; `None` while nobody writes it.
    pub fn heard(&self) -> Option<Duration> {
        match &self.state {
            State::Flowing(flow) => Some(flow.read_at().saturating_since(Timestamp::ZERO)),
            _ => None,
        }
    }

    /// The next bytes; `None` after the end.
    pub fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            match &mut self.state {
                State::Flowing(flow) => match ready!(flow.poll_item(cx)) {
                    Some(Ok(frame)) => match self.take(frame) {
                        Ok(bytes) if bytes.is_empty() => {}
                        Ok(bytes) => return Poll::Ready(Some(bytes)),
                        Err(NoMatch) => self.other_answer(),
                    },
                    Some(Err(error)) => self.broke(error),
                    None => self.ended(),
                },
                State::GoingOn(going) => {
                    let (recovery, went) = ready!(going.as_mut().poll(cx));
                    self.went_on(recovery, went);
                }
                State::Last(bytes) => {
                    let bytes = std::mem::take(bytes);
                    self.state = State::Done;
                    if !bytes.is_empty() {
                        return Poll::Ready(Some(bytes));
                    }
                }
                State::Done => return Poll::Ready(None),
            }
        }
    }

    /// What of a frame goes to the caller.
    fn take(&mut self, frame: Frame) -> Result<Bytes, NoMatch> {
        let Frame { bytes, mut chunks, .. } = frame;
        if self.passes {
            if let Some(recovery) = &mut self.recovery {
                recovery.note(&chunks);
                self.writer.follow(&bytes, &chunks);
            }
            return Ok(bytes);
        }
        let mut out = Vec::new();
        for chunk in &mut chunks {
            if !self.splice.join(chunk) {
                return Err(NoMatch);
            }
            if let Some(recovery) = &mut self.recovery {
                recovery.note(std::slice::from_ref(chunk));
            }
            self.writer.push(chunk, &mut out);
        }
        Ok(out.into())
    }

    fn ended(&mut self) {
        self.keep_usage();
        let mut out = Vec::new();
        if !self.passes {
            self.writer.finish(&mut out);
        }
        self.state = State::Last(out.into());
    }

    fn keep_usage(&mut self) {
        if let State::Flowing(flow) = &self.state {
            self.usage = flow.usage().or(self.usage);
        }
    }

    /// The answer that was to go on turned out to be another one. It is left; whoever comes next may have the same.
    fn other_answer(&mut self) {
        let text = format!(
            "{}: the stream broke, and the answer begun again by {} is another one: it cannot be joined",
            self.provider, self.model
        );
        telemetry::stream_not_joined(&self.provider, &self.model);
        let error = self.broken.take().unwrap_or_else(|| Error::stream_broken(text));
        self.go_on_or_fail(error);
    }

    fn broke(&mut self, error: Error) {
        self.keep_usage();
        if let State::Flowing(flow) = &self.state {
            self.attempts.pop();
            self.attempts.extend(flow.last_attempt().cloned());
        }
        if self.recovery.as_ref().is_some_and(|recovery| recovery.is_finished()) {
            // What is missing is the formal end, and nothing of the answer.
            let mut out = Vec::new();
            self.writer.finish(&mut out);
            self.state = State::Last(out.into());
            return;
        }
        // The first break is what happened; later ones happened on the way to mend it.
        let error = self.broken.take().unwrap_or(error);
        self.go_on_or_fail(error);
    }

    fn go_on_or_fail(&mut self, error: Error) {
        let now = self.client.clock.now();
        match self.recovery.take() {
            Some(recovery) if recovery.is_possible(now) => {
                self.broken = Some(error);
                self.state = State::GoingOn(Box::pin(recovery.go_on(Arc::clone(&self.client))));
            }
            _ => self.fail(error),
        }
    }

    fn went_on(&mut self, recovery: Recovery, went: Went) {
        match went {
            Ok((served, splice)) => {
                let (from, to) = (self.provider.clone(), &served.target);
                telemetry::stream_continued(&from, &to.member.name, &to.model, recovery.delivered().len());
                self.provider = to.member.name.to_string();
                self.model.clone_from(&to.model);
                self.attempts.extend(served.attempts.iter().cloned());
                self.queued += served.queued;
                self.continued += 1;
                self.splice = splice;
                self.passes = false;
                self.recovery = Some(Box::new(recovery));
                self.flow(served.map(|(begun, _)| begun));
            }
            Err(error) => {
                self.attempts.extend(error.attempts().iter().cloned());
                let error = match self.broken.take() {
                    Some(first) => first.with_note(&format!("; nobody could go on: {}", error.message())),
                    None => error,
                };
                self.fail(error);
            }
        }
    }

    fn fail(&mut self, error: Error) {
        let error = error.with_attempts(self.attempts.clone());
        let mut out = Vec::new();
        self.writer.fail(&error.for_caller(&self.id), &mut out);
        self.error = Some(error);
        self.state = State::Last(out.into());
    }

    /// Whether it ended with its terminator.
    pub fn is_whole(&self) -> bool {
        matches!(self.state, State::Done) && self.error.is_none()
    }
}

/// An answer that does not begin with what was delivered.
struct NoMatch;

impl Stream for RelayStream {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.get_mut().poll_bytes(cx)
    }
}

impl fmt::Debug for RelayStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayStream")
            .field("provider", &self.provider)
            .field("model", &self.model)
            .field("continued", &self.continued)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}
