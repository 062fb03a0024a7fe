//! How a call is sent and its answer read: one type for each kind of call, so that the loop in `driver.rs` is one.

use std::future::Future;

use bytes::Bytes;
use http::{HeaderMap, Request, header};
use omega_policy::{Demand, ModelId, Timestamp, Usage};
use omega_protocol::{
    ChatAccumulator, ChatRequest, ChatResponse, EmbeddingsRequest, EmbeddingsResponse, EncodeError, Endpoint,
    InputEstimate, Provider, ProviderError, ResponsesRequest, ResponsesResponse, Streaming,
};
use omega_transport::Body;
use secrecy::SecretString;

use crate::asked::Asked;
use crate::reader::{ANSWER_BYTES_MAX, Chat, Format, More, Reader, Responses, broken};
use crate::registry::Member;
use crate::scope::Held;
use crate::watch::{Fault, Watch};

/// Items held back before the first content, at most; a caller who reads along gets them from then on.
const HELD_ITEMS_MAX: usize = 1_024;
/// Bytes held back before the first content, at most.
const HELD_BYTES_MAX: usize = 1024 * 1024;

/// A 2xx on its way in: the head has come, the body comes.
pub(crate) struct Incoming<'a> {
    pub(crate) provider: &'static dyn Provider,
    pub(crate) streaming: Streaming,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
    pub(crate) watch: Watch,
    pub(crate) facts: &'a Facts,
    pub(crate) held: &'a mut Held,
}

/// What is known of a call at one target before it is sent.
#[derive(Clone, Copy)]
pub(crate) struct Facts {
    pub(crate) model: ModelId,
    pub(crate) reasons_first: bool,
    /// As estimated for this model; `demand` has it as corrected by experience.
    pub(crate) input: InputEstimate,
    pub(crate) demand: Demand,
}

impl Facts {
    /// Tells the scope, once the first content has come.
    pub(crate) fn came(&self, held: &mut Held, watch: &Watch, first: Option<Timestamp>) {
        if let Some(now) = first {
            held.first_token(self.model, self.reasons_first, now.saturating_since(watch.sent_at()), now);
        }
    }
}

/// An answer, as far as the driver is concerned with it.
pub(crate) struct Received<A> {
    pub(crate) answer: A,
    pub(crate) state: Complete,
    /// It was asked for as a stream and came whole all the same: this server does not stream.
    pub(crate) unstreamed: bool,
}

impl<A> Received<A> {
    fn new(answer: A, state: Complete) -> Self {
        Self { answer, state, unstreamed: false }
    }

    /// A whole one.
    pub(crate) fn whole(answer: A, usage: Option<Usage>) -> Self {
        Self::new(answer, Complete::Whole(usage))
    }

    pub(crate) fn map<B>(self, change: impl FnOnce(A) -> B) -> Received<B> {
        Received { answer: change(self.answer), state: self.state, unstreamed: self.unstreamed }
    }
}

/// Whether an answer is whole.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Complete {
    /// It is, and cost this.
    Whole(Option<Usage>),
    /// It has only begun: whoever reads it on holds the permit.
    Begun,
}

/// A request as one target takes it.
#[derive(Clone)]
pub(crate) struct Encoded<H> {
    pub(crate) request: Request<Bytes>,
    /// Whether it asks for a stream.
    pub(crate) streaming: Streaming,
    pub(crate) how: H,
}

/// One call: encodes itself for a target, reads its answer.
pub(crate) trait Exchange: Send + 'static {
    type Asked: Asked;
    type Answer: Send;
    /// What the reading of an answer needs to know of how it was asked for.
    type How: Clone + Send + Sync;
    /// Whether text is generated. What is not (vectors) comes promptly.
    const GENERATES: bool = true;

    fn asked(&self) -> &Self::Asked;
    fn asked_mut(&mut self) -> &mut Self::Asked;
    /// Whether the caller wants the answer whole, so that asking for a stream is our own idea.
    fn wants_whole(&self) -> bool;
    /// Whether the call has a key of its own for this provider.
    fn brings_key(&self, _member: &Member) -> bool {
        false
    }
    /// The key that the caller brought, if a request so encoded may carry it: it must not be shown.
    fn own_key(_how: &Self::How) -> Option<&SecretString> {
        None
    }
    /// The request, and whether it asks for a stream: what follows the head is then guarded piece by piece.
    ///
    /// - `guard`: ask for a stream where the caller wants the whole. Does not concern a stream the caller wants.
    fn encode(
        &self,
        provider: &dyn Provider,
        endpoint: &Endpoint,
        guard: bool,
    ) -> Result<Encoded<Self::How>, EncodeError>;
    fn receive(
        incoming: Incoming<'_>,
        how: Self::How,
    ) -> impl Future<Output = Result<Received<Self::Answer>, Fault>> + Send;
}

/// A chat call whose answer is wanted whole.
pub(crate) struct WholeChat {
    pub(crate) request: ChatRequest,
}

impl Exchange for WholeChat {
    type Asked = ChatRequest;
    type Answer = ChatResponse;
    type How = ();

    fn asked(&self) -> &ChatRequest {
        &self.request
    }

    fn asked_mut(&mut self) -> &mut ChatRequest {
        &mut self.request
    }

    fn wants_whole(&self) -> bool {
        true
    }

    fn encode(
        &self,
        provider: &dyn Provider,
        endpoint: &Endpoint,
        guard: bool,
    ) -> Result<Encoded<()>, EncodeError> {
        stream_if(guard && !speaks(&self.request), |streaming| {
            provider.encode_chat(endpoint, &self.request, streaming)
        })
    }

    async fn receive(mut incoming: Incoming<'_>, _how: ()) -> Result<Received<ChatResponse>, Fault> {
        if incoming.is_whole() {
            let response = incoming.provider.decode_chat(&incoming.whole_body().await?)?;
            let usage = response.usage.as_ref().map(Usage::from);
            let unstreamed = incoming.streaming == Streaming::Stream;
            return Ok(Received { unstreamed, ..Received::new(response, Complete::Whole(usage)) });
        }
        let (mut reader, facts, held) = incoming.reader::<Chat>(incoming_chat);
        let (mut whole, mut chunks) = (ChatAccumulator::new(), Vec::new());
        read_whole(&mut reader, facts, held, &mut chunks, |chunk| whole.push(&chunk)).await?;
        Ok(Received::new(whole.finish(), Complete::Whole(reader.usage())))
    }
}

fn incoming_chat(provider: &'static dyn Provider) -> Box<dyn omega_protocol::ChatDecoder> {
    provider.chat_decoder()
}

fn incoming_responses(provider: &'static dyn Provider) -> Box<dyn omega_protocol::ResponsesDecoder> {
    provider.responses_decoder()
}

/// A stream whose content has begun: what was held back, and what is still to come.
pub(crate) struct Begun<F: Format> {
    pub(crate) reader: Reader<F>,
    pub(crate) items: Vec<F::Item>,
}

/// A chat call whose caller reads along.
pub(crate) struct StreamedChat {
    pub(crate) request: ChatRequest,
}

impl Exchange for StreamedChat {
    type Asked = ChatRequest;
    type Answer = Begun<Chat>;
    type How = ();

    fn asked(&self) -> &ChatRequest {
        &self.request
    }

    fn asked_mut(&mut self) -> &mut ChatRequest {
        &mut self.request
    }

    fn wants_whole(&self) -> bool {
        false
    }

    fn encode(
        &self,
        provider: &dyn Provider,
        endpoint: &Endpoint,
        _guard: bool,
    ) -> Result<Encoded<()>, EncodeError> {
        Ok(Encoded {
            request: provider.encode_chat(endpoint, &self.request, Streaming::Stream)?,
            streaming: Streaming::Stream,
            how: (),
        })
    }

    async fn receive(incoming: Incoming<'_>, _how: ()) -> Result<Received<Begun<Chat>>, Fault> {
        let (reader, facts, held) = incoming.reader::<Chat>(incoming_chat);
        begin(reader, facts, held).await
    }
}

/// A Responses call whose answer is wanted whole.
pub(crate) struct WholeResponses {
    pub(crate) request: ResponsesRequest,
}

impl Exchange for WholeResponses {
    type Asked = ResponsesRequest;
    type Answer = ResponsesResponse;
    type How = ();

    fn asked(&self) -> &ResponsesRequest {
        &self.request
    }

    fn asked_mut(&mut self) -> &mut ResponsesRequest {
        &mut self.request
    }

    fn wants_whole(&self) -> bool {
        true
    }

    fn encode(
        &self,
        provider: &dyn Provider,
        endpoint: &Endpoint,
        guard: bool,
    ) -> Result<Encoded<()>, EncodeError> {
        // A response made in the background is answered at once with its id; there is no stream to guard.
        let background = self.request.extra.get("background").is_some_and(|value| *value == true);
        stream_if(guard && !background, |streaming| {
            provider.encode_responses(endpoint, &self.request, streaming)
        })
    }

    async fn receive(mut incoming: Incoming<'_>, _how: ()) -> Result<Received<ResponsesResponse>, Fault> {
        if incoming.is_whole() {
            let response = incoming.provider.decode_responses(&incoming.whole_body().await?)?;
            let usage = response.usage.as_ref().map(Usage::from);
            let unstreamed = incoming.streaming == Streaming::Stream;
            return Ok(Received { unstreamed, ..Received::new(response, Complete::Whole(usage)) });
        }
        let (mut reader, facts, held) = incoming.reader::<Responses>(incoming_responses);
        let (mut last, mut events) = (None, Vec::new());
        read_whole(&mut reader, facts, held, &mut events, |mut event| {
            if event.is_terminal() {
                last = event.data.get_mut("response").map(serde_json::Value::take);
            }
        })
        .await?;
        let whole = last.and_then(|response| serde_json::from_value(response).ok());
        let answer: ResponsesResponse = whole
            .ok_or_else(|| ProviderError::malformed("the terminal event carries no readable response"))?;
        Ok(Received::new(answer, Complete::Whole(reader.usage())))
    }
}

/// A Responses call whose caller reads along.
pub(crate) struct StreamedResponses {
    pub(crate) request: ResponsesRequest,
}

impl Exchange for StreamedResponses {
    type Asked = ResponsesRequest;
    type Answer = Begun<Responses>;
    type How = ();

    fn asked(&self) -> &ResponsesRequest {
        &self.request
    }

    fn asked_mut(&mut self) -> &mut ResponsesRequest {
        &mut self.request
    }

    fn wants_whole(&self) -> bool {
        false
    }

    fn encode(
        &self,
        provider: &dyn Provider,
        endpoint: &Endpoint,
        _guard: bool,
    ) -> Result<Encoded<()>, EncodeError> {
        Ok(Encoded {
            request: provider.encode_responses(endpoint, &self.request, Streaming::Stream)?,
            streaming: Streaming::Stream,
            how: (),
        })
    }

    async fn receive(incoming: Incoming<'_>, _how: ()) -> Result<Received<Begun<Responses>>, Fault> {
        let (reader, facts, held) = incoming.reader::<Responses>(incoming_responses);
        begin(reader, facts, held).await
    }
}

/// An embeddings call. There is no stream of vectors.
pub(crate) struct Embeddings {
    pub(crate) request: EmbeddingsRequest,
}

impl Exchange for Embeddings {
    type Asked = EmbeddingsRequest;
    type Answer = EmbeddingsResponse;
    type How = ();
    const GENERATES: bool = false;

    fn asked(&self) -> &EmbeddingsRequest {
        &self.request
    }

    fn asked_mut(&mut self) -> &mut EmbeddingsRequest {
        &mut self.request
    }

    fn wants_whole(&self) -> bool {
        true
    }

    fn encode(
        &self,
        provider: &dyn Provider,
        endpoint: &Endpoint,
        _guard: bool,
    ) -> Result<Encoded<()>, EncodeError> {
        Ok(Encoded {
            request: provider.encode_embeddings(endpoint, &self.request)?,
            streaming: Streaming::Whole,
            how: (),
        })
    }

    async fn receive(mut incoming: Incoming<'_>, _how: ()) -> Result<Received<EmbeddingsResponse>, Fault> {
        let provider = incoming.provider;
        let body = incoming.whole_body().await?;
        let answer = provider.decode_embeddings(&body)?;
        let usage = answer.usage.as_ref().map(Usage::from);
        // The one thing a clock can learn from: here the first content is all of it.
        let now = incoming.watch.now();
        incoming.facts.came(incoming.held, &incoming.watch, Some(now));
        Ok(Received::new(answer, Complete::Whole(usage)))
    }
}

impl<'a> Incoming<'a> {
    /// Whether it is one JSON document: as asked, or all the same from a server that was asked for a stream.
    fn is_whole(&self) -> bool {
        if self.streaming == Streaming::Whole {
            return true;
        }
        let kind = self.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("application/json"))
    }

    /// The body in one piece, under the clocks.
    pub(crate) async fn whole_body(&mut self) -> Result<Bytes, Fault> {
        let body = self.watch.over(self.body.collect(ANSWER_BYTES_MAX)).await?;
        Ok(body.map_err(|error| broken(&error))?)
    }

    pub(crate) fn reader<F: Format>(
        self,
        decoder: impl FnOnce(&'static dyn Provider) -> Box<F::Decoder>,
    ) -> (Reader<F>, &'a Facts, &'a mut Held) {
        let reader = Reader::new(
            self.body,
            decoder(self.provider),
            self.watch,
            self.headers,
            self.facts.demand.input_tokens,
        );
        (reader, self.facts, self.held)
    }
}

/// Whether it wants to be answered in sound. Pieces of sound put together are not the file that was asked for.
pub(crate) fn speaks(request: &ChatRequest) -> bool {
    request.extra.contains_key("audio")
}

/// Encodes a stream where one is wanted and the protocol can express it, else a whole answer.
fn stream_if(
    wanted: bool,
    encode: impl Fn(Streaming) -> Result<Request<Bytes>, EncodeError>,
) -> Result<Encoded<()>, EncodeError> {
    if wanted && let Ok(request) = encode(Streaming::Stream) {
        return Ok(Encoded { request, streaming: Streaming::Stream, how: () });
    }
    Ok(Encoded { request: encode(Streaming::Whole)?, streaming: Streaming::Whole, how: () })
}

/// Reads to the terminator. Nothing has reached the caller by then, so a break anywhere can be retried unseen.
async fn read_whole<F: Format>(
    reader: &mut Reader<F>,
    facts: &Facts,
    held: &mut Held,
    items: &mut Vec<F::Item>,
    mut take: impl FnMut(F::Item),
) -> Result<(), Fault> {
    loop {
        let more = reader.more(items).await;
        held.saw(reader.seen());
        let more = more.map_err(|fault| with_seen(fault, reader))?;
        items.drain(..).for_each(&mut take);
        match more {
            More::Preamble => {}
            More::Content { first } => facts.came(held, reader.watch(), first),
            More::End { first } => {
                facts.came(held, reader.watch(), first);
                reader.linger().await;
                return Ok(());
            }
        }
    }
}

/// Reads up to the first content and holds back what comes before it.
pub(crate) async fn begin<F: Format>(
    mut reader: Reader<F>,
    facts: &Facts,
    held: &mut Held,
) -> Result<Received<Begun<F>>, Fault> {
    let mut items = Vec::new();
    // The bytes of the items held back. An event still under way is not one of them: its size is the decoder's to
    // bound, and one that never ends is a break that nobody has seen yet.
    let mut held_bytes = 0;
    loop {
        let before = items.len();
        let more = reader.more(&mut items).await;
        if items.len() > before {
            held_bytes = reader.bytes();
        }
        held.saw(reader.seen());
        let state = match more.map_err(|fault| with_seen(fault, &reader)) {
            Ok(More::Preamble) if items.len() < HELD_ITEMS_MAX && held_bytes < HELD_BYTES_MAX => continue,
            Ok(More::Preamble) => Complete::Begun,
            Ok(More::Content { first }) => {
                facts.came(held, reader.watch(), first);
                Complete::Begun
            }
            Ok(More::End { first }) => {
                facts.came(held, reader.watch(), first);
                Complete::Whole(reader.usage())
            }
            Err(fault) => return Err(fault),
        };
        return Ok(Received::new(Begun { reader, items }, state));
    }
}

/// Adds what was seen of a stream to its failure, for the limiter to settle with.
pub(crate) fn with_seen<F: Format>(fault: Fault, reader: &Reader<F>) -> Fault {
    match fault {
        Fault::Provider(mut error) => {
            if reader.watch().flowing() {
                error.failure.seen.get_or_insert_with(|| reader.seen());
            }
            Fault::Provider(error)
        }
        deadline @ Fault::Deadline { .. } => deadline,
    }
}
