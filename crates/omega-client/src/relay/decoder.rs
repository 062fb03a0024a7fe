//! The tap on a relayed stream: checks every event before it goes on, and leaves its bytes alone.
//!
//! The provider's own decoder judges each event; what it accepts is passed on as the very bytes that came (a slice of
//! them, nearly always), what it refuses never leaves. Where the caller speaks another protocol, the decoded chunks go on
//! instead of the bytes.

use bytes::{Bytes, BytesMut};
use omega_policy::Usage;
use omega_protocol::sse::EventEnds;
use omega_protocol::{
    CallerProtocol, ChatChunk, ChatDecoder, ChunkChoice, Delta, FinishReason, Glimpse, Provider,
    ProviderError, ResponseEvent, ResponsesDecoder, ToolCallDelta,
};

use crate::reader::{Chat, Format, Responses};

/// A piece of an answer on its way to the caller.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    /// The bytes to pass on; empty for what is to be translated, or to be left out.
    pub(crate) bytes: Bytes,
    /// What it says, where somebody wants to know.
    pub(crate) chunks: Vec<ChatChunk>,
    content: Option<usize>,
    usage: Option<Usage>,
}

/// Frames of a relayed stream.
pub(crate) struct Frames;

impl Format for Frames {
    type Item = Frame;
    type Decoder = FrameDecoder;

    fn push(decoder: &mut FrameDecoder, bytes: &Bytes, out: &mut Vec<Frame>) -> Result<(), ProviderError> {
        decoder.push(bytes, out)
    }

    fn finish(decoder: &mut FrameDecoder, out: &mut Vec<Frame>) -> Result<(), ProviderError> {
        decoder.finish(out)
    }

    fn is_done(decoder: &FrameDecoder) -> bool {
        match &decoder.inner {
            Inner::Chat(inner) => inner.is_done(),
            Inner::Responses(inner, _) => inner.is_done(),
        }
    }

    fn content_bytes(frame: &Frame) -> Option<usize> {
        frame.content
    }

    fn usage(frame: &Frame) -> Option<Usage> {
        frame.usage
    }
}

/// See the module.
pub(crate) struct FrameDecoder {
    inner: Inner,
    /// Bytes pass; else chunks do.
    passes: bool,
    /// Chunks are wanted beside the bytes.
    tracks: bool,
    /// The usage was asked for by us: the chunk that carries it is ours.
    keeps_usage: bool,
    /// A stream without its last line gets one: some clients wait for it.
    adds_done: bool,
    ends: EventEnds,
    /// The beginning of an event whose end has not come.
    held: BytesMut,
    chunks: Vec<ChatChunk>,
    /// What was seen of the event on its way, where nobody wants its chunks.
    seen: Glimpse,
}

enum Inner {
    Chat(Box<dyn ChatDecoder>),
    Responses(Box<dyn ResponsesDecoder>, Vec<ResponseEvent>),
}

impl FrameDecoder {
    /// For a provider that speaks the caller's protocol.
    ///
    /// - `tracks`: somebody wants to know what was passed on.
    /// - `asked_usage`: whether the caller itself asked for the usage of an OpenAI stream.
    pub(crate) fn passing(
        protocol: CallerProtocol,
        provider: &dyn Provider,
        tracks: bool,
        asked_usage: bool,
    ) -> Self {
        let chat = protocol == CallerProtocol::ChatCompletions;
        let inner = match protocol {
            CallerProtocol::Responses => Inner::Responses(provider.responses_decoder(), Vec::new()),
            _ => Inner::Chat(provider.chat_decoder()),
        };
        Self { passes: true, tracks, keeps_usage: chat && !asked_usage, adds_done: chat, ..Self::new(inner) }
    }

    /// For a provider that speaks another one.
    pub(crate) fn translating(provider: &dyn Provider) -> Self {
        Self::new(Inner::Chat(provider.chat_decoder()))
    }

    fn new(inner: Inner) -> Self {
        Self {
            inner,
            passes: false,
            tracks: true,
            keeps_usage: false,
            adds_done: false,
            ends: EventEnds::default(),
            held: BytesMut::new(),
            chunks: Vec::new(),
            seen: Glimpse::default(),
        }
    }

    fn push(&mut self, bytes: &Bytes, out: &mut Vec<Frame>) -> Result<(), ProviderError> {
        if !self.passes {
            let decoded = self.decode(bytes);
            self.translated(out);
            return decoded;
        }
        if let Some(seen) = self.glance_event(bytes) {
            out.push(Frame { bytes: bytes.clone(), content: seen.content, ..Frame::default() });
            return Ok(());
        }
        let mut at = 0;
        while let Some(length) = self.ends.next_end(&bytes[at..]) {
            let event = bytes.slice(at..at + length);
            at += length;
            let decoded = self.decode(&event);
            let event = match self.held.is_empty() {
                true => event,
                false => {
                    self.held.extend_from_slice(&event);
                    self.held.split().freeze()
                }
            };
            match decoded {
                Ok(()) => self.passed(event, out),
                Err(error) => {
                    self.chunks.clear();
                    return Err(error);
                }
            }
        }
        let tail = &bytes[at..];
        if tail.is_empty() {
            return Ok(());
        }
        // The decoder sees it at once, so that its bound on an event's size holds here too.
        self.decode(tail)?;
        self.held.extend_from_slice(tail);
        Ok(())
    }

    /// What a piece says that is one whole event of the usual kind, as nearly all are; `None` for every other.
    fn glance_event(&mut self, piece: &[u8]) -> Option<Glimpse> {
        // Whether what was fed ended with an event, the decoder knows; a comment in front of this one is held here.
        match &mut self.inner {
            _ if self.tracks || !self.held.is_empty() => None,
            Inner::Chat(inner) => inner.glance_event(piece),
            Inner::Responses(inner, _) => inner.glance_event(piece),
        }
    }

    fn finish(&mut self, out: &mut Vec<Frame>) -> Result<(), ProviderError> {
        let was_done = Frames::is_done(self);
        let ended = match &mut self.inner {
            Inner::Chat(inner) => inner.finish(&mut self.chunks),
            Inner::Responses(inner, events) => inner.finish(events),
        };
        self.note_events();
        if !self.passes {
            self.translated(out);
            return ended;
        }
        ended?;
        if !self.held.is_empty() {
            self.held.extend_from_slice(b"\n\n");
            let event = self.held.split().freeze();
            self.passed(event, out);
        }
        if self.adds_done && !was_done && !Frames::is_done(self) {
            out.push(Frame { bytes: Bytes::from_static(b"data: [DONE]\n\n"), ..Frame::default() });
        }
        Ok(())
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<(), ProviderError> {
        let decoded = match &mut self.inner {
            Inner::Chat(inner) if !self.tracks => {
                self.seen.add(inner.glance(bytes)?);
                return Ok(());
            }
            Inner::Chat(inner) => inner.push(bytes, &mut self.chunks),
            Inner::Responses(inner, events) => inner.push(bytes, events),
        };
        self.note_events();
        decoded
    }

    /// What events of the Responses API say, as far as anybody asks: text, whether there is more than text, the end.
    fn note_events(&mut self) {
        if let Inner::Responses(_, events) = &mut self.inner {
            self.chunks.extend(events.drain(..).map(|event| chunk_of(&event)));
        }
    }

    /// One event goes on as it came.
    fn passed(&mut self, event: Bytes, out: &mut Vec<Frame>) {
        let mut seen = std::mem::take(&mut self.seen);
        seen.add(Glimpse::of(&self.chunks));
        let is_ours = self.keeps_usage && seen.reports_usage;
        let bytes = if is_ours { Bytes::new() } else { event };
        let mut frame = Frame { bytes, chunks: Vec::new(), content: seen.content, usage: seen.usage };
        match self.tracks {
            true => frame.chunks = std::mem::take(&mut self.chunks),
            false => self.chunks.clear(),
        }
        out.push(frame);
    }

    fn translated(&mut self, out: &mut Vec<Frame>) {
        out.extend(self.chunks.drain(..).map(|chunk| Frame {
            bytes: Bytes::new(),
            content: Chat::content_bytes(&chunk),
            usage: Chat::usage(&chunk),
            chunks: vec![chunk],
        }));
    }
}

fn chunk_of(event: &ResponseEvent) -> ChatChunk {
    let mut delta = Delta::default();
    let mut finish_reason = None;
    match event.kind.as_str() {
        "response.output_text.delta" => delta.content = Some(event.text().to_owned()),
        "response.refusal.delta" => delta.refusal = Some(delta_of(event)),
        kind if kind.starts_with("response.reasoning") && event.has_content() => {
            delta.reasoning_content = Some(delta_of(event));
        }
        // Arguments of a call, sound, code: more than text.
        _ if event.has_content() => delta.tool_calls.push(ToolCallDelta::default()),
        _ if event.is_terminal() => finish_reason = Some(FinishReason::Stop),
        _ => {}
    }
    let usage = <Responses as Format>::usage(event);
    ChatChunk {
        choices: vec![ChunkChoice { delta, finish_reason, ..ChunkChoice::default() }],
        usage: usage.map(|usage| omega_protocol::Usage {
            prompt_tokens: usage.input_tokens,
            completion_tokens: usage.output_tokens,
            total_tokens: usage.input_tokens.saturating_add(usage.output_tokens),
            ..omega_protocol::Usage::default()
        }),
        ..ChatChunk::default()
    }
}

fn delta_of(event: &ResponseEvent) -> String {
    event.data["delta"].as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
