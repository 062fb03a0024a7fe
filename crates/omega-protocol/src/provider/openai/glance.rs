//! The usual chunk of a stream, and the usual event of the Responses API, checked without being taken apart.
//!
//! A [`PlainChunk`] is narrower than a [`ChatChunk`](crate::ChatChunk) in every point: whatever reads as one reads as the
//! other, with the same content. What does not (a finish reason, tool calls, usage, an unknown field, an error) is left to
//! the full decoder. Nothing of it is kept, so nothing is allocated.
//!
//! Most chunks of a stream differ in one text only. A [`Mould`] is made of one chunk that was read; what fits into it byte
//! for byte, but for that text, need not be read again.

use std::ops::Range;

use serde::Deserialize;

use crate::provider::plain::{Length, Nothing, Object, raw_text};

/// A chunk that carries at most more text of one answer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "'de: 'a"))]
pub(super) struct PlainChunk<'a> {
    #[serde(default, rename = "id")]
    _id: Length<'a>,
    #[serde(default, rename = "object")]
    _object: Length<'a>,
    #[serde(default, rename = "created")]
    _created: u64,
    #[serde(default, rename = "model")]
    _model: Length<'a>,
    choices: [Object<PlainChoice<'a>>; 1],
    #[serde(default, rename = "usage")]
    _usage: Option<Nothing>,
    #[serde(default, rename = "service_tier")]
    _service_tier: Option<Length<'a>>,
    #[serde(default, rename = "system_fingerprint")]
    _system_fingerprint: Option<Length<'a>>,
    /// OpenAI's padding against listeners who measure lengths.
    #[serde(default)]
    obfuscation: Length<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "'de: 'a"))]
struct PlainChoice<'a> {
    #[serde(default)]
    index: u32,
    delta: Object<PlainDelta<'a>>,
    #[serde(default, rename = "logprobs")]
    _logprobs: Option<Nothing>,
    #[serde(default, rename = "finish_reason")]
    _finish_reason: Option<Nothing>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "'de: 'a"))]
struct PlainDelta<'a> {
    #[serde(default, rename = "role")]
    _role: Option<Assistant>,
    #[serde(default)]
    content: Option<Length<'a>>,
    #[serde(default)]
    reasoning_content: Option<Length<'a>>,
    #[serde(default)]
    refusal: Option<Length<'a>>,
}

#[derive(Deserialize)]
enum Assistant {
    #[serde(rename = "assistant")]
    Assistant,
}

impl PlainChunk<'_> {
    pub(super) fn index(&self) -> u32 {
        self.choices[0].0.index
    }

    /// Bytes of text.
    pub(super) fn content(&self) -> usize {
        self.texts().map(|length| length.bytes).sum()
    }

    fn texts(&self) -> impl Iterator<Item = &Length<'_>> {
        let PlainDelta { content, reasoning_content, refusal, .. } = &self.choices[0].0.delta.0;
        [content, reasoning_content, refusal].into_iter().flatten()
    }
}

/// An event of the Responses API that carries more text, as nearly all do.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "'de: 'a"))]
pub(super) struct MoreText<'a> {
    #[serde(rename = "type")]
    _kind: OutputText,
    #[serde(default, rename = "item_id")]
    _item: Length<'a>,
    #[serde(default, rename = "output_index")]
    _output: u32,
    #[serde(default, rename = "content_index")]
    _content: u32,
    pub(super) delta: Length<'a>,
    #[serde(default, rename = "logprobs")]
    _logprobs: Option<[Nothing; 0]>,
    #[serde(default, rename = "obfuscation")]
    _obfuscation: Length<'a>,
    #[serde(default, rename = "sequence_number")]
    _number: u64,
}

#[derive(Deserialize)]
enum OutputText {
    #[serde(rename = "response.output_text.delta")]
    Delta,
}

/// A chunk without its text and its padding.
#[derive(Default)]
pub(super) struct Mould {
    /// The chunk around its holes: one part more than holes; none before a chunk was learnt.
    parts: Vec<Vec<u8>>,
    /// Which hole is the text's.
    content_at: usize,
}

impl Mould {
    /// Larger chunks are not worth keeping a copy of.
    const LARGEST: usize = 2_048;

    /// The bytes of text in `data` if it is the chunk that was learnt, with other texts in its holes: one line then.
    pub(super) fn fit(&self, data: &[u8]) -> Option<usize> {
        let (first, others) = self.parts.split_first()?;
        let mut rest = data.strip_prefix(first.as_slice())?;
        let mut content = 0;
        for (hole, part) in others.iter().enumerate() {
            let (text, behind) = raw_text(rest)?;
            // An escape does not match here: every part behind a hole begins with the quote.
            rest = behind.strip_prefix(part.as_slice())?;
            if hole == self.content_at {
                content = text.len();
            }
        }
        rest.is_empty().then_some(content)
    }

    /// Remembers a chunk that was read from `data`.
    pub(super) fn learn(&mut self, data: &[u8], chunk: &PlainChunk<'_>) {
        self.parts.clear();
        let mut texts = chunk.texts();
        let (Some(only), None) = (texts.next(), texts.next()) else { return };
        let (Some(text), true) = (only.raw, data.len() <= Self::LARGEST) else { return };
        // Data of several lines: rare, and what fits is promised to be one.
        if memchr::memchr2(b'\n', b'\r', data).is_some() {
            return;
        }
        let mut holes = vec![span(data, text)];
        holes.extend(chunk.obfuscation.raw.map(|padding| span(data, padding)));
        self.content_at = usize::from(holes.len() == 2 && holes[1].start < holes[0].start);
        holes.sort_by_key(|hole| hole.start);
        let mut from = 0;
        for hole in holes {
            self.parts.push(data[from..hole.start].to_vec());
            from = hole.end;
        }
        self.parts.push(data[from..].to_vec());
    }
}

/// Where a text stands in the data it was read from.
fn span(data: &[u8], text: &str) -> Range<usize> {
    let start = text.as_ptr().addr() - data.as_ptr().addr();
    start..start + text.len()
}

#[cfg(test)]
mod tests {
    use crate::ChatChunk;
    use crate::provider::plain::read;

    use super::*;

    /// What differs between two chunks that look alike; each with whether a glance is enough.
    const CASES: [(&str, bool); 22] = [
        (
            r#"{"id":"a","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":" sky"},"logprobs":null,"finish_reason":null}]}"#,
            true,
        ),
        (r#"{"choices":[{"index":3,"delta":{"role":"assistant","content":""}}]}"#, true),
        (
            r#"{"choices":[{"delta":{"content":"\u00e9\n"}}],"obfuscation":"xx","service_tier":"default","system_fingerprint":null,"usage":null}"#,
            true,
        ),
        (r#"{"choices":[{"index":0,"delta":{"content":"a","reasoning_content":"bc","refusal":"d"}}]}"#, true),
        (r#"{"choices":[{"index":0,"delta":{}}]}"#, true),
        (r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#, false),
        (r#"{"choices":[{"index":0,"delta":{},"finish_reason":""}]}"#, false),
        (
            r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{"}}]}}]}"#,
            false,
        ),
        (r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}"#, false),
        (r#"{"choices":[{"index":0,"delta":{"content":"a"}}],"error":{"message":"no"}}"#, false),
        (r#"{"error":{"message":"no"}}"#, false),
        (r#"{"choices":[{"index":0,"delta":{"content":"a"}},{"index":1,"delta":{"content":"b"}}]}"#, false),
        (r#"{"choices":[{"index":0,"delta":{"content":"a","reasoning":"b"}}]}"#, false),
        (r#"{"choices":[{"index":0,"delta":{"content":"a","content":"b"}}]}"#, false),
        (r#"{"choices":[{"index":0,"delta":{"role":"tool","content":"a"}}]}"#, false),
        (r#"{"choices":[{"index":0,"delta":["assistant","a",null,null]}]}"#, false),
        (r#"["a","b",1,"m",[{"index":0,"delta":{}}]]"#, false),
        (r#"{"choices":[[0,{"content":"a"}]]}"#, false),
        (r#"{"choices":[{"index":-1,"delta":{"content":"a"}}]}"#, false),
        (r#"{"choices":[{"index":0,"delta":{"content":1}}]}"#, false),
        (r#"{"choices":[{"index":0,"delta":{"content":"a"}}]} x"#, false),
        ("", false),
    ];

    #[test]
    fn a_glance_sees_what_a_long_look_does_or_asks_for_one() {
        for (text, enough) in CASES {
            let glanced = read::<PlainChunk<'_>>(text.as_bytes());
            assert_eq!(glanced.is_some(), enough, "{text}");
            let Some(glanced) = glanced else { continue };
            let chunk: ChatChunk = serde_json::from_str(text).expect(text);
            assert!(chunk.extra.keys().all(|key| key == "obfuscation"), "{text}");
            assert_eq!(chunk.choices[0].index, glanced.index(), "{text}");
            assert_eq!(chunk.content_bytes().unwrap_or(0), glanced.content(), "{text}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_not_glanced_over() {
        let mut text = CASES[0].0.as_bytes().to_vec();
        let at = text.windows(3).position(|part| part == b"sky").expect("the content");
        text[at] = 0xff;
        assert!(read::<PlainChunk<'_>>(&text).is_none());
    }

    fn chunk(content: &str, rest: &str) -> String {
        format!(r#"{{"id":"c1","choices":[{{"index":0,"delta":{{"content":"{content}"}}}}]{rest}}}"#)
    }

    #[test]
    fn what_fits_into_the_mould_is_what_would_have_been_read() {
        let padded = |padding: &str| format!(r#","obfuscation":"{padding}""#);
        let learnt = [chunk(" sky", ""), chunk(" sky", &padded("xyz"))];
        let texts = [
            "",
            "a",
            "\u{4e16}\u{754c}",
            r"\n",
            r"\u00e9",
            r#"\""#,
            "\t",
            "\u{7f}",
            r#"a"b"#,
            r#""}}],"x":""#,
            r"\",
        ];
        let rests = [
            String::new(),
            padded(""),
            padded("q"),
            padded(r"\n"),
            r#","error":{"message":"no"}"#.to_owned(),
        ];
        let mut fitted = 0;
        for first in &learnt {
            let mut mould = Mould::default();
            mould.learn(first.as_bytes(), &read::<PlainChunk<'_>>(first.as_bytes()).expect("plain"));
            assert_eq!(mould.fit(first.as_bytes()), Some(4), "{first}");
            for (text, rest) in texts.iter().flat_map(|text| rests.iter().map(move |rest| (text, rest))) {
                let other = chunk(text, rest);
                let Some(content) = mould.fit(other.as_bytes()) else { continue };
                fitted += 1;
                let looked: ChatChunk = serde_json::from_str(&other).expect(&other);
                assert_eq!(looked.content_bytes().unwrap_or(0), content, "{other}");
                assert_eq!(
                    read::<PlainChunk<'_>>(other.as_bytes()).map(|plain| plain.content()),
                    Some(content)
                );
            }
        }
        // Four texts need no escapes; without padding they fit the first mould, with either padding the second.
        assert_eq!(fitted, 4 + 2 * 4);
    }

    #[test]
    fn bytes_that_are_no_text_fit_no_mould() {
        let first = chunk(" sky", "");
        let mut mould = Mould::default();
        mould.learn(first.as_bytes(), &read::<PlainChunk<'_>>(first.as_bytes()).expect("plain"));
        let mut broken = first.into_bytes();
        let at = broken.windows(3).position(|part| part == b"sky").expect("the text");
        broken[at] = 0xff;
        assert_eq!(mould.fit(&broken), None);
        assert_eq!(Mould::default().fit(b""), None);
    }

    #[test]
    fn a_chunk_with_two_texts_or_an_escaped_one_makes_no_mould() {
        for text in [
            r#"{"choices":[{"delta":{"content":"a","refusal":"b"}}]}"#.to_owned(),
            chunk(r"a\n", ""),
            chunk("a", ",\n\"usage\":null"),
            chunk("a", ",\r\"usage\":null"),
            chunk(&"a".repeat(Mould::LARGEST), ""),
        ] {
            let mut mould = Mould::default();
            mould.learn(text.as_bytes(), &read::<PlainChunk<'_>>(text.as_bytes()).expect("plain"));
            assert_eq!(mould.fit(text.as_bytes()), None, "{text}");
        }
    }
}
