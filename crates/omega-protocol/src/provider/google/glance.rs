//! The usual event of a Gemini stream, seen without being taken apart.

use serde::Deserialize;

use super::decode::RawUsage;
use crate::provider::plain::{Length, Object};

/// More text of one candidate, and the running totals.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "'de: 'a"))]
pub(super) struct PlainEvent<'a> {
    candidates: [Object<PlainCandidate<'a>>; 1],
    #[serde(default, rename = "usageMetadata")]
    usage: Option<Object<PlainUsage<'a>>>,
    #[serde(default, rename = "modelVersion")]
    _model: Length<'a>,
    #[serde(default, rename = "responseId")]
    _id: Length<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "'de: 'a"))]
struct PlainCandidate<'a> {
    content: Object<PlainContent<'a>>,
    #[serde(default)]
    index: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "'de: 'a"))]
struct PlainContent<'a> {
    parts: [Object<PlainPart<'a>>; 1],
    #[serde(default, rename = "role")]
    _role: Length<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "'de: 'a"))]
struct PlainPart<'a> {
    text: Length<'a>,
    #[serde(default, rename = "thought")]
    _thought: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", bound(deserialize = "'de: 'a"))]
struct PlainUsage<'a> {
    prompt_token_count: Option<u64>,
    cached_content_token_count: Option<u64>,
    candidates_token_count: Option<u64>,
    thoughts_token_count: Option<u64>,
    tool_use_prompt_token_count: Option<u64>,
    total_token_count: Option<u64>,
    #[serde(default, rename = "promptTokensDetails")]
    _prompt: Vec<Object<PlainDetail<'a>>>,
    #[serde(default, rename = "cacheTokensDetails")]
    _cached: Vec<Object<PlainDetail<'a>>>,
    #[serde(default, rename = "candidatesTokensDetails")]
    _candidates: Vec<Object<PlainDetail<'a>>>,
    #[serde(default, rename = "serviceTier")]
    _tier: Length<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", bound(deserialize = "'de: 'a"))]
struct PlainDetail<'a> {
    #[serde(default, rename = "modality")]
    _modality: Length<'a>,
    #[serde(default, rename = "tokenCount")]
    _count: u64,
}

impl PlainEvent<'_> {
    /// The candidate's number.
    pub(super) fn index(&self) -> u32 {
        self.candidates[0].0.index
    }

    /// Bytes of text.
    pub(super) fn content(&self) -> usize {
        self.candidates[0].0.content.0.parts[0].0.text.bytes
    }

    /// The running totals, without what is beside them.
    pub(super) fn usage(&self) -> Option<RawUsage> {
        self.usage.as_ref().map(|Object(usage)| RawUsage {
            prompt: usage.prompt_token_count,
            cached: usage.cached_content_token_count,
            candidates: usage.candidates_token_count,
            thoughts: usage.thoughts_token_count,
            tool_use_prompt: usage.tool_use_prompt_token_count,
            total: usage.total_token_count,
            extra: Default::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::provider::{ChatDecoder, Glimpse};

    use super::super::stream::Decoder;

    const FIRST: &str =
        r#"data: {"candidates":[{"content":{"role":"model","parts":[{"text":"The"}]},"index":0}]}"#;

    fn begun() -> Decoder {
        let mut decoder = Decoder::default();
        decoder.push(format!("{FIRST}\r\n\r\n").as_bytes(), &mut Vec::new()).expect("a beginning");
        decoder
    }

    /// What differs between two events that look alike; each with whether a glance is enough.
    const CASES: [(&str, bool); 20] = [
        (r#"{"candidates": [{"content": {"parts": [{"text": " sky"}],"role": "model"},"index": 0}]}"#, true),
        (
            r#"{"candidates":[{"content":{"parts":[{"text":"\u00e9\n","thought":true}]}}],"usageMetadata":{}}"#,
            true,
        ),
        (r#"{"candidates":[{"content":{"parts":[{"text":""}]}}],"modelVersion":"m","responseId":"r"}"#, true),
        (
            r#"{"candidates":[{"content":{"parts":[{"text":"a"}]}}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":5,"thoughtsTokenCount":7,"totalTokenCount":15,"promptTokensDetails":[{"modality":"TEXT","tokenCount":3}],"serviceTier":"standard"}}"#,
            true,
        ),
        (r#"{"candidates":[{"content":{"parts":[{"text":"a"}]},"index":1}]}"#, false),
        (r#"{"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"STOP"}]}"#, false),
        (r#"{"candidates":[{"content":{"parts":[{"text":"a"},{"text":"b"}]}}]}"#, false),
        (r#"{"candidates":[{"content":{"parts":[{"text":"a","thoughtSignature":"s"}]}}]}"#, false),
        (r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{}}}]}}]}"#, false),
        (r#"{"candidates":[{"content":{"parts":[]}}]}"#, false),
        (r#"{"candidates":[{"content":{"parts":[{"text":"a"}]},"safetyRatings":[]}]}"#, false),
        (r#"{"candidates":[{"content":{"parts":[["a"]]}}]}"#, false),
        (r#"{"candidates":[{"content":{"parts":[{"text":1}]}}]}"#, false),
        (r#"{"candidates":[],"usageMetadata":{"promptTokenCount":3}}"#, false),
        (
            r#"{"candidates":[{"content":{"parts":[{"text":"a"}]}}],"usageMetadata":{"promptTokenCount":"3"}}"#,
            false,
        ),
        (r#"{"candidates":[{"content":{"parts":[{"text":"a"}]}}],"error":{"message":"no"}}"#, false),
        (
            r#"{"candidates":[{"content":{"parts":[{"text":"a"}]}}],"promptFeedback":{"blockReason":"SAFETY"}}"#,
            false,
        ),
        (r#"{"error":{"code":503,"message":"no","status":"UNAVAILABLE"}}"#, false),
        (r#"{"candidates":[{"content":{"parts":[{"text":"a"}]}}]"#, false),
        ("", false),
    ];

    #[test]
    fn a_glance_sees_what_a_long_look_does_or_asks_for_one() {
        for (text, enough) in CASES {
            let piece = format!("data: {text}\r\n\r\n");
            let (mut glanced, mut looked) = (begun(), begun());
            let seen = glanced.glance_event(piece.as_bytes());
            assert_eq!(seen.is_some(), enough, "{text}");
            let Some(seen) = seen else { continue };
            let mut chunks = Vec::new();
            looked.push(piece.as_bytes(), &mut chunks).expect(text);
            assert_eq!(seen, Glimpse::of(&chunks), "{text}");
            // What it costs is known, should the next event be the end of it.
            let broken =
                b"data: {\"error\":{\"code\":503,\"message\":\"no\",\"status\":\"UNAVAILABLE\"}}\n\n";
            let used = |decoder: &mut Decoder| {
                decoder.push(broken, &mut Vec::new()).expect_err("it broke").failure.seen
            };
            assert_eq!(used(&mut glanced), used(&mut looked), "{text}");
        }
    }
}
