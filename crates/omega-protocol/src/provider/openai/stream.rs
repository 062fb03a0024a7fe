//! Streamed chat answers: `data:` lines of JSON, then `[DONE]`.

use std::collections::HashMap;

use super::glance::{Mould, PlainChunk};
use super::{Vendor, error, normalise};
use crate::chat::MAX_CHOICES;
use crate::provider::plain::{data_line, read};
use crate::provider::{ChatDecoder, Glimpse};
use crate::sse::{Item, SseParser};
use crate::{ChatChunk, ProviderError};

/// The decoder of one stream.
pub(crate) struct ChatStream {
    parser: SseParser,
    state: State,
    failed: bool,
}

impl ChatStream {
    pub(crate) fn new(vendor: Vendor) -> Self {
        let state = State { vendor, choices: HashMap::new(), done: false, mould: Mould::default() };
        Self { parser: SseParser::new(), state, failed: false }
    }

    fn still_good(&self) -> Result<(), ProviderError> {
        match self.failed {
            true => Err(ProviderError::stream_broken("the stream has already failed")),
            false => Ok(()),
        }
    }

    fn settle(&mut self, result: Result<(), ProviderError>) -> Result<(), ProviderError> {
        self.failed |= result.is_err();
        result
    }
}

impl ChatDecoder for ChatStream {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<ChatChunk>) -> Result<(), ProviderError> {
        self.still_good()?;
        let result = self.parser.push(bytes, |item| self.state.take(item, |chunk| out.push(chunk)));
        self.settle(result)
    }

    fn glance(&mut self, bytes: &[u8]) -> Result<Glimpse, ProviderError> {
        self.still_good()?;
        let mut seen = Glimpse::default();
        let result = self.parser.push(bytes, |item| match self.state.plain(&item) {
            Some(content) => {
                seen.add(Glimpse::text(content));
                Ok(())
            }
            None => self.state.take(item, |chunk| seen.note(&chunk)),
        });
        self.settle(result).map(|()| seen)
    }

    fn glance_event(&mut self, piece: &[u8]) -> Option<Glimpse> {
        if self.failed || self.state.done || !self.parser.is_between_events() {
            return None;
        }
        self.state.mould.fit(data_line(piece)?).map(Glimpse::text)
    }

    fn finish(&mut self, out: &mut Vec<ChatChunk>) -> Result<(), ProviderError> {
        self.still_good()?;
        let result = self.parser.finish(|item| self.state.take(item, |chunk| out.push(chunk)));
        let result = result.and_then(|()| self.state.verdict());
        self.settle(result)
    }

    fn is_done(&self) -> bool {
        self.state.done
    }
}

struct State {
    vendor: Vendor,
    /// Every choice seen, and whether its finish reason was.
    choices: HashMap<u32, bool>,
    done: bool,
    /// The last plain chunk.
    mould: Mould,
}

impl State {
    /// Bytes of content in an event that is nothing but more text of one answer, as nearly all are; `None` where more
    /// than a glance is needed.
    fn plain(&mut self, item: &Item<'_>) -> Option<usize> {
        let Item::Event { name: b"", data } = item else { return None };
        if self.done {
            return None;
        }
        if let Some(content) = self.mould.fit(data) {
            return Some(content);
        }
        let chunk = read::<PlainChunk<'_>>(data)?;
        self.note(chunk.index(), false).ok()?;
        self.mould.learn(data, &chunk);
        Some(chunk.content())
    }

    fn take(&mut self, item: Item<'_>, out: impl FnMut(ChatChunk)) -> Result<(), ProviderError> {
        if self.done {
            return Ok(());
        }
        match item {
            Item::Event { name, data } => self.event(name, data, out),
            Item::Stray(line) => self.stray(line),
        }
    }

    fn event(
        &mut self,
        name: &[u8],
        data: &[u8],
        mut out: impl FnMut(ChatChunk),
    ) -> Result<(), ProviderError> {
        // The official SDKs test for the beginning only.
        if data.trim_ascii_start().starts_with(b"[DONE]") {
            self.verdict()?;
            self.done = true;
            return Ok(());
        }
        if name == b"error" {
            return Err(error::in_error_event(self.vendor, data));
        }
        let mut chunk: ChatChunk = serde_json::from_slice(data)
            .map_err(|parse| error::in_event(self.vendor, data, "a chat completion chunk", &parse))?;
        if !chunk.extra.is_empty()
            && let Some(error) = error::hidden_in(self.vendor, &chunk.extra, chunk.choices.is_empty())
        {
            return Err(error);
        }
        for choice in &mut chunk.choices {
            // Some compatible servers write an empty reason until there is one.
            choice.finish_reason.take_if(|reason| reason.as_str().is_empty());
            self.note(choice.index, choice.finish_reason.is_some())?;
        }
        if let Some(usage) = &mut chunk.usage {
            normalise(self.vendor, usage);
        }
        out(chunk);
        Ok(())
    }

    fn note(&mut self, index: u32, finished: bool) -> Result<(), ProviderError> {
        if self.choices.len() == MAX_CHOICES && !self.choices.contains_key(&index) {
            return Err(ProviderError::stream_broken(
                "the stream has more choices than any request asks for",
            ));
        }
        *self.choices.entry(index).or_default() |= finished;
        Ok(())
    }

    /// A line that is no field: harmless, unless something wrote its own kind of answer into the stream.
    fn stray(&self, line: &[u8]) -> Result<(), ProviderError> {
        match line.trim_ascii_start().first() {
            Some(b'{' | b'[') => Err(error::in_stray_line(self.vendor, line)),
            Some(b'<') => Err(ProviderError::stream_broken("the stream carries an HTML page")),
            _ => Ok(()),
        }
    }

    /// Whether what came is a whole answer: a finish reason for every choice.
    fn verdict(&self) -> Result<(), ProviderError> {
        match self.choices.values().filter(|finished| !**finished).count() {
            _ if self.choices.is_empty() => {
                Err(ProviderError::stream_broken("the stream ended without an answer"))
            }
            0 => Ok(()),
            _ => {
                Err(ProviderError::stream_broken("the stream ended before the answer did (no finish_reason)"))
            }
        }
    }
}
