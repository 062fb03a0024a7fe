//! Server-sent events: bytes in as they come, events out. Pure, bounded, and by the WHATWG standard.
//!
//! Lines may end in CR, LF or CRLF and be cut anywhere; a byte-order mark may come first; `data` lines are joined by
//! LF; comments and unknown fields are skipped. Three things differ from the standard: an event has a largest size; lines
//! that are no field at all are shown to the caller, because Gemini writes its errors there; and an event whose data is
//! empty is none, as in OpenAI's Python SDK, because some proxies keep connections alive with it.
//!
//! Source: WHATWG HTML, "Server-sent events", <https://html.spec.whatwg.org/multipage/server-sent-events.html>.

use std::fmt;

/// The largest event taken, in bytes.
///
/// The largest legitimate ones are whole answers in one event (`response.completed`, a Gemini image part): 10 MB of
/// image are 13 MB of base64. Above that, a provider that never ends its event would only fill memory.
pub const MAX_EVENT_BYTES: usize = 16 * 1024 * 1024;

/// An event larger than the parser takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream carried an event of more than {limit} bytes")]
pub struct EventTooLarge {
    /// The largest size taken.
    pub limit: usize,
}

/// What a stream consists of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Item<'a> {
    /// An event.
    Event {
        /// Its name; empty if it has none.
        name: &'a [u8],
        /// Its data, several lines joined by LF. Not checked for UTF-8: a JSON parser does that.
        data: &'a [u8],
    },
    /// A line that is neither blank, nor a comment, nor a field of the standard.
    Stray(&'a [u8]),
}

/// Sizes only: the bytes are the answer.
impl fmt::Debug for Item<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event { data, .. } => write!(f, "Event({} bytes)", data.len()),
            Self::Stray(line) => write!(f, "Stray({} bytes)", line.len()),
        }
    }
}

/// The parser of one stream.
pub struct SseParser {
    max_event_bytes: usize,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    name: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    /// The last byte seen was a CR: an LF that follows belongs to it.
    after_cr: bool,
    /// No line has ended yet: a byte-order mark may still be in front.
    at_start: bool,
}

/// Sizes only: the bytes are the answer.
impl fmt::Debug for SseParser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SseParser")
            .field("line", &self.line.len())
            .field("data", &self.data.len())
            .field("max_event_bytes", &self.max_event_bytes)
            .finish_non_exhaustive()
    }
}

impl Default for SseParser {
    fn default() -> Self {
        Self::with_max_event_bytes(MAX_EVENT_BYTES)
    }
}

impl SseParser {
    /// A parser that takes events of up to [`MAX_EVENT_BYTES`].
    pub fn new() -> Self {
        Self::default()
    }

    /// A parser with another largest size of an event.
    pub fn with_max_event_bytes(max_event_bytes: usize) -> Self {
        Self {
            max_event_bytes,
            line: Vec::new(),
            name: Vec::new(),
            data: Vec::new(),
            has_data: false,
            after_cr: false,
            at_start: true,
        }
    }

    /// Feeds bytes as they came; calls `sink` for every item they complete.
    ///
    /// # Errors
    /// The sink's own, or [`EventTooLarge`]. The parser must not be fed further afterwards.
    pub fn push<E: From<EventTooLarge>>(
        &mut self,
        bytes: &[u8],
        mut sink: impl FnMut(Item<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest = bytes;
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(end) = memchr::memchr2(b'\n', b'\r', rest) {
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            let ended_by_cr = rest[end] == b'\r';
            if self.line.is_empty() {
                // The whole line is in this piece: no copy.
                self.take_line(line, &mut sink)?;
            } else {
                self.room_for(self.line.len() + line.len())?;
                let mut whole = std::mem::take(&mut self.line);
                whole.extend_from_slice(line);
                let result = self.take_line(&whole, &mut sink);
                whole.clear();
                self.line = whole; // keeps its memory for the next cut line
                result?;
            }
            rest = after;
            if ended_by_cr {
                match rest.split_first() {
                    Some((b'\n', after)) => rest = after,
                    Some(_) => {}
                    None => self.after_cr = true,
                }
            }
        }
        self.room_for(self.line.len() + rest.len())?;
        self.line.extend_from_slice(rest);
        Ok(())
    }

    /// The stream ended: shows what stands unfinished, as if a blank line had come.
    ///
    /// The standard discards it; a caller that proves completeness in its own way wants to see it.
    ///
    /// # Errors
    /// As [`SseParser::push`].
    pub fn finish<E: From<EventTooLarge>>(
        &mut self,
        mut sink: impl FnMut(Item<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.take_line(&line, &mut sink)?;
        }
        self.take_line(b"", &mut sink)
    }

    /// Whether all that was fed ended with an event: what comes next begins one.
    pub(crate) fn is_between_events(&self) -> bool {
        let is_clean = self.line.is_empty() && self.name.is_empty() && !self.has_data;
        is_clean && !self.after_cr && !self.at_start
    }

    fn take_line<E: From<EventTooLarge>>(
        &mut self,
        line: &[u8],
        sink: &mut impl FnMut(Item<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let line = if std::mem::take(&mut self.at_start) {
            line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)
        } else {
            line
        };
        if line.is_empty() {
            return self.dispatch(sink);
        }
        let (field, value) = match memchr::memchr(b':', line) {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &line[line.len()..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                self.room_for(self.data.len() + value.len() + 1)?;
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
                self.has_data = true;
                Ok(())
            }
            b"event" => {
                self.name.clear();
                self.name.extend_from_slice(value);
                Ok(())
            }
            b"" | b"id" | b"retry" => Ok(()),
            _ => sink(Item::Stray(line)),
        }
    }

    fn dispatch<E>(&mut self, sink: &mut impl FnMut(Item<'_>) -> Result<(), E>) -> Result<(), E> {
        let result = if self.data.is_empty() {
            Ok(())
        } else {
            sink(Item::Event { name: &self.name, data: &self.data })
        };
        self.name.clear();
        self.data.clear();
        self.has_data = false;
        result
    }

    fn room_for(&self, size: usize) -> Result<(), EventTooLarge> {
        let limit = self.max_event_bytes;
        if size > limit { Err(EventTooLarge { limit }) } else { Ok(()) }
    }
}

/// Finds where events end, for whoever passes them on as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct EventEnds {
    /// The current line has bytes.
    in_line: bool,
    /// The last byte was a CR: with an LF behind it, it is one line end, else it was one by itself.
    after_cr: bool,
}

impl EventEnds {
    /// The length of the first event in `bytes`, its blank line included: what is left over from the pieces before has
    /// been fed already. `None`: it does not end in here, and all of `bytes` has been taken note of.
    pub fn next_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            if self.after_cr && bytes[at] != b'\n' {
                self.after_cr = false;
                if self.end_of_line() {
                    return Some(at);
                }
            }
            let Some(found) = memchr::memchr2(b'\n', b'\r', &bytes[at..]) else {
                self.in_line = true;
                return None;
            };
            self.in_line |= found > 0;
            at += found + 1;
            if bytes[at - 1] == b'\r' {
                self.after_cr = true;
            } else {
                self.after_cr = false;
                if self.end_of_line() {
                    return Some(at);
                }
            }
        }
        None
    }

    /// Whether the line that ends here is the blank one behind an event.
    fn end_of_line(&mut self) -> bool {
        !std::mem::replace(&mut self.in_line, false)
    }
}
