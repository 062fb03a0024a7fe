//! A relayed call, as the loop sees it.

use std::sync::Arc;

use bytes::Bytes;
use omega_policy::Usage;
use omega_protocol::{
    CallerProtocol, ChatRequest, EncodeError, Endpoint, InputEstimate, Provider, ProviderError, Streaming,
    TokenCounter, reasons_first_as_asked,
};

use secrecy::{ExposeSecret as _, SecretString};

use super::Core;
use super::decoder::{FrameDecoder, Frames};
use crate::asked::Asked;
use crate::exchange::{Begun, Encoded, Exchange, Incoming, Received, WholeChat, begin, speaks};
use crate::registry::{Member, Target};
use crate::watch::Fault;

/// A relayed call.
pub(crate) struct Relay {
    pub(crate) asked: RelayAsked,
    /// Whether what is delivered is kept in mind, to go on from it should the stream break.
    pub(crate) tracks: bool,
    /// Where the caller's own key goes: to the provider of the model it asked for, if that takes it.
    key_goes_to: Option<Target>,
}

/// What a relayed request says of itself.
pub(crate) struct RelayAsked {
    core: Arc<Core>,
    /// The model of the target under consideration.
    model: String,
}

/// How a relayed answer is read.
#[derive(Clone)]
pub(crate) struct How {
    core: Arc<Core>,
    passes: bool,
    tracks: bool,
}

/// An answer of a relayed call.
pub(crate) enum Answered {
    Whole {
        body: Bytes,
        usage: Option<Usage>,
        request_id: Option<String>,
    },
    Stream {
        begun: Box<Begun<Frames>>,
        /// Its frames carry bytes for the caller, and not chunks to translate.
        passes: bool,
    },
}

impl Relay {
    /// - `first`: the target of the model asked for.
    pub(crate) fn new(core: Arc<Core>, tracks: bool, first: Option<&Target>) -> Self {
        let model = core.envelope.model.clone();
        let takes =
            |target: &&Target| core.credential.is_some() && target.member.takes_own_key(core.protocol);
        let key_goes_to = first.filter(takes).cloned();
        Self { asked: RelayAsked { core, model }, tracks, key_goes_to }
    }
}

impl Asked for RelayAsked {
    fn model(&self) -> &str {
        &self.model
    }

    fn set_model(&mut self, model: &str) {
        model.clone_into(&mut self.model);
    }

    fn input(&self, model: &str, counter: &TokenCounter) -> InputEstimate {
        // Reading all of it costs more than the rest of the way: only where somebody will count exactly.
        let typed = counter.is_exact(model).then(|| self.core.typed());
        match typed {
            Some(Ok(request)) => counter.chat(request, model),
            _ => self.core.envelope.input(model),
        }
    }

    fn max_output_tokens(&self) -> Option<u64> {
        self.core.envelope.max_output_tokens
    }

    fn reasons_first(&self) -> bool {
        let envelope = &self.core.envelope;
        reasons_first_as_asked(&self.model, envelope.reasoning_effort.as_ref(), envelope.thinking)
    }
}

impl Exchange for Relay {
    type Asked = RelayAsked;
    type Answer = Answered;
    type How = How;

    fn asked(&self) -> &RelayAsked {
        &self.asked
    }

    fn asked_mut(&mut self) -> &mut RelayAsked {
        &mut self.asked
    }

    fn wants_whole(&self) -> bool {
        self.asked.core.streaming == Streaming::Whole
    }

    fn brings_key(&self, member: &Member) -> bool {
        self.key_goes_to.as_ref().is_some_and(|target| target.member.name == member.name)
    }

    fn own_key(how: &How) -> Option<&SecretString> {
        how.core.credential.as_ref()
    }

    fn encode(
        &self,
        provider: &dyn Provider,
        endpoint: &Endpoint,
        guard: bool,
    ) -> Result<Encoded<How>, EncodeError> {
        let core = &self.asked.core;
        let how = |passes| How { core: Arc::clone(core), passes, tracks: self.tracks };
        if is_native(core.protocol, provider, endpoint) {
            let streaming = core.streaming;
            let ask_usage =
                core.protocol == CallerProtocol::ChatCompletions && streaming == Streaming::Stream;
            let body = core.envelope.rewrite(&core.body, &self.asked.model, ask_usage);
            let model = &self.asked.model;
            let mut request = provider.encode_passed(endpoint, core.protocol, model, streaming, body)?;
            for (name, value) in &core.headers {
                request.headers_mut().insert(name, value.clone());
            }
            let goes_here = self.key_goes_to.as_ref().is_some_and(|target| {
                target.member.endpoint_for_own_key().is_ok_and(|own| std::ptr::eq(own, endpoint))
            });
            if let Some(key) = core.credential.as_ref().filter(|_| goes_here) {
                let key = key.expose_secret();
                endpoint.authorize(&mut request, key).map_err(|error| EncodeError::Key(error.to_string()))?;
            }
            return Ok(Encoded { request, streaming, how: how(true) });
        }
        let mut request = ChatRequest::clone(core.typed()?);
        request.model.clone_from(&self.asked.model);
        let wanted = core.streaming == Streaming::Stream || (guard && !speaks(&request));
        if wanted {
            let encoded = provider.encode_chat(endpoint, &request, Streaming::Stream);
            match encoded {
                Ok(request) => return Ok(Encoded { request, streaming: Streaming::Stream, how: how(false) }),
                Err(error) if core.streaming == Streaming::Stream => return Err(error),
                // The guard was our own idea.
                Err(_) => {}
            }
        }
        let request = provider.encode_chat(endpoint, &request, Streaming::Whole)?;
        Ok(Encoded { request, streaming: Streaming::Whole, how: how(false) })
    }

    async fn receive(mut incoming: Incoming<'_>, how: How) -> Result<Received<Answered>, Fault> {
        let How { core, passes, tracks } = how;
        let provider = incoming.provider;
        if core.streaming == Streaming::Stream {
            let asked_usage = core.envelope.include_usage;
            let decoder = move |provider: &'static dyn Provider| {
                Box::new(match passes {
                    true => FrameDecoder::passing(core.protocol, provider, tracks, asked_usage),
                    false => FrameDecoder::translating(provider),
                })
            };
            let (reader, facts, held) = incoming.reader::<Frames>(decoder);
            let received = begin(reader, facts, held).await?;
            return Ok(received.map(|begun| Answered::Stream { begun: Box::new(begun), passes }));
        }
        let request_id = provider.request_id(&incoming.headers).map(str::to_owned);
        if passes {
            let body = incoming.whole_body().await?;
            let usage = check(core.protocol, provider, &body)?;
            return Ok(Received::whole(Answered::Whole { body, usage, request_id }, usage));
        }
        let received = WholeChat::receive(incoming, ()).await?;
        Ok(received.map(|answer| {
            let body = core.protocol.format().write_answer(&answer).into();
            Answered::Whole { body, usage: answer.usage.as_ref().map(Usage::from), request_id }
        }))
    }
}

/// Whether a provider speaks the caller's protocol, so that bytes can pass.
pub(crate) fn is_native(protocol: CallerProtocol, provider: &dyn Provider, endpoint: &Endpoint) -> bool {
    // Every server that speaks like OpenAI has chats; few have the Responses API, and fewer all of it.
    let own = protocol != CallerProtocol::Responses || !endpoint.is_compatible();
    own && protocol.is_native_to(provider.dialect())
}

/// Whether a body is a whole answer; what it cost.
fn check(
    protocol: CallerProtocol,
    provider: &dyn Provider,
    body: &[u8],
) -> Result<Option<Usage>, ProviderError> {
    Ok(match protocol {
        CallerProtocol::Responses => provider.decode_responses(body)?.usage.as_ref().map(Usage::from),
        _ => provider.decode_chat(body)?.usage.as_ref().map(Usage::from),
    })
}

/// A chat that goes on from what was delivered, or begins again to come to the same place.
pub(crate) struct Continuation {
    /// The whole call again.
    pub(crate) restart: ChatRequest,
    /// The call with what was delivered behind it, for models that go on from there.
    pub(crate) prefill: Option<ChatRequest>,
    pub(crate) takes_prefill: fn(&dyn Provider, &str) -> bool,
}

/// How a continuation was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Joint {
    Prefill,
    Restart,
}

impl Exchange for Continuation {
    type Asked = ChatRequest;
    type Answer = (Begun<Frames>, Joint);
    type How = Joint;

    fn asked(&self) -> &ChatRequest {
        &self.restart
    }

    fn asked_mut(&mut self) -> &mut ChatRequest {
        &mut self.restart
    }

    fn wants_whole(&self) -> bool {
        false
    }

    fn encode(
        &self,
        provider: &dyn Provider,
        endpoint: &Endpoint,
        _guard: bool,
    ) -> Result<Encoded<Joint>, EncodeError> {
        let model = &self.restart.model;
        let prefill = self.prefill.as_ref().filter(|_| (self.takes_prefill)(provider, model));
        let (request, how) = match prefill {
            Some(prefill) => {
                let mut prefill = prefill.clone();
                prefill.model.clone_from(model);
                (provider.encode_chat(endpoint, &prefill, Streaming::Stream)?, Joint::Prefill)
            }
            None => (provider.encode_chat(endpoint, &self.restart, Streaming::Stream)?, Joint::Restart),
        };
        Ok(Encoded { request, streaming: Streaming::Stream, how })
    }

    async fn receive(incoming: Incoming<'_>, how: Joint) -> Result<Received<Self::Answer>, Fault> {
        let decoder = |provider: &'static dyn Provider| Box::new(FrameDecoder::translating(provider));
        let (reader, facts, held) = incoming.reader::<Frames>(decoder);
        Ok(begin(reader, facts, held).await?.map(|begun| (begun, how)))
    }
}

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Frames")
    }
}
