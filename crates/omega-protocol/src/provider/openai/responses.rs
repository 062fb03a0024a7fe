//! Responses API: whole answers and named events.

use serde::Deserialize;
use serde_json::Value;

use super::glance::MoreText;
use super::{Vendor, error};
use crate::provider::plain::{data_line, read};
use crate::provider::{Glimpse, ResponsesDecoder};
use crate::sse::{Item, SseParser};
use crate::{Extra, ProviderError, ResponseEvent, ResponsesResponse, ResponsesUsage};

/// The response in a 2xx body, or the failure that it is: `status: failed` comes with 200.
pub(crate) fn decode_responses(vendor: Vendor, body: &[u8]) -> Result<ResponsesResponse, ProviderError> {
    let mut response: ResponsesResponse =
        serde_json::from_slice(body).map_err(|parse| error::in_body(vendor, body, "a response", &parse))?;
    if let Some(usage) = &mut response.usage {
        normalise(vendor, usage);
    }
    let seen = |mut error: ProviderError| {
        error.failure.seen = response.usage.as_ref().map(Into::into);
        Err(error)
    };
    match response.status.as_str() {
        "failed" => return seen(error::of_response(vendor, response.error.as_ref())),
        "cancelled" => return seen(cancelled()),
        "" => {
            let error = response.error.as_ref().filter(|error| !error.is_null());
            return Err(match (error, error::hidden_in(vendor, &response.extra, true)) {
                (Some(error), _) => error::of_response(vendor, Some(error)),
                (None, Some(error)) => error,
                (None, None) => ProviderError::malformed("the answer has no status"),
            });
        }
        _ => {}
    }
    Ok(response)
}

/// The same rule as for chat: reasoning is part of the output, unless the total already says so.
fn normalise(vendor: Vendor, usage: &mut ResponsesUsage) {
    if vendor == Vendor::Grok && usage.total_tokens != usage.input_tokens.saturating_add(usage.output_tokens)
    {
        usage.output_tokens = usage.output_tokens.saturating_add(usage.reasoning_tokens());
    }
    if usage.total_tokens == 0 {
        usage.total_tokens = usage.input_tokens.saturating_add(usage.output_tokens);
    }
}

/// A failure with what its event says was used: the provider charges for it.
fn seen(mut error: ProviderError, event: &Value) -> ProviderError {
    let usage = event.pointer("/response/usage").filter(|usage| usage.is_object());
    error.failure.seen =
        usage.and_then(|usage| ResponsesUsage::deserialize(usage).ok()).map(|usage| (&usage).into());
    error
}

fn cancelled() -> ProviderError {
    // Someone else ended it; what there is of it is not the answer.
    ProviderError::new(
        omega_policy::FailureKind::Transient,
        "the response was cancelled before it was complete",
    )
}

/// The decoder of one stream.
pub(crate) struct ResponsesStream {
    parser: SseParser,
    state: State,
    failed: bool,
}

struct State {
    vendor: Vendor,
    done: bool,
}

impl ResponsesStream {
    pub(crate) fn new(vendor: Vendor) -> Self {
        Self { parser: SseParser::new(), state: State { vendor, done: false }, failed: false }
    }
}

impl ResponsesDecoder for ResponsesStream {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<ResponseEvent>) -> Result<(), ProviderError> {
        if self.failed {
            return Err(ProviderError::stream_broken("the stream has already failed"));
        }
        let result = self.parser.push(bytes, |item| self.state.take(item, out));
        self.failed |= result.is_err();
        result
    }

    fn glance_event(&mut self, piece: &[u8]) -> Option<Glimpse> {
        if self.failed || self.state.done || !self.parser.is_between_events() {
            return None;
        }
        // The name says nothing that the data does not say.
        let data = data_line(piece.strip_prefix(b"event: response.output_text.delta\n")?)?;
        Some(Glimpse::text(read::<MoreText<'_>>(data)?.delta.bytes))
    }

    fn finish(&mut self, out: &mut Vec<ResponseEvent>) -> Result<(), ProviderError> {
        if self.failed {
            return Err(ProviderError::stream_broken("the stream has already failed"));
        }
        let result = self.parser.finish(|item| self.state.take(item, out)).and_then(|()| {
            if self.state.done {
                Ok(())
            } else {
                Err(ProviderError::stream_broken(
                    "the stream ended before the response did (no response.completed)",
                ))
            }
        });
        self.failed |= result.is_err();
        result
    }

    fn is_done(&self) -> bool {
        self.state.done
    }
}

impl State {
    fn take(&mut self, item: Item<'_>, out: &mut Vec<ResponseEvent>) -> Result<(), ProviderError> {
        match item {
            _ if self.done => Ok(()),
            Item::Event { name, data } => self.event(name, data, out),
            Item::Stray(line) => match line.trim_ascii_start().first() {
                Some(b'{' | b'[') => Err(error::in_stray_line(self.vendor, line)),
                Some(b'<') => Err(ProviderError::stream_broken("the stream carries an HTML page")),
                _ => Ok(()),
            },
        }
    }

    fn event(&mut self, name: &[u8], data: &[u8], out: &mut Vec<ResponseEvent>) -> Result<(), ProviderError> {
        if data.trim_ascii_start().starts_with(b"[DONE]") {
            // Some servers add it after the terminator, never in its place.
            return Err(ProviderError::stream_broken(
                "the stream ended before the response did (no response.completed)",
            ));
        }
        let mut data: Value = serde_json::from_slice(data)
            .map_err(|parse| error::in_event(self.vendor, data, "a response event", &parse))?;
        let kind = match data.get("type").and_then(Value::as_str) {
            Some(kind) => kind.to_owned(),
            None => String::from_utf8_lossy(name).into_owned(),
        };
        match kind.as_str() {
            "response.failed" => {
                self.normalise_usage(&mut data);
                return Err(seen(error::of_response(self.vendor, data.pointer("/response/error")), &data));
            }
            "response.cancelled" => {
                self.normalise_usage(&mut data);
                return Err(seen(cancelled(), &data));
            }
            "response.completed" | "response.incomplete" => {
                self.done = true;
                self.normalise_usage(&mut data);
            }
            // Flat as documented, nested as seen: the event is the error, or holds it.
            "error" => return Err(error::of_fields(self.vendor, data.as_object().unwrap_or(&Extra::new()))),
            _ => {
                if let Some(error) =
                    data.as_object().and_then(|data| error::hidden_in(self.vendor, data, false))
                {
                    return Err(error);
                }
            }
        }
        out.push(ResponseEvent { kind, data });
        Ok(())
    }

    fn normalise_usage(&self, data: &mut Value) {
        let Some(usage) = data.pointer_mut("/response/usage").filter(|usage| usage.is_object()) else {
            return;
        };
        if let Ok(mut typed) = serde_json::from_value::<ResponsesUsage>(usage.clone()) {
            normalise(self.vendor, &mut typed);
            if let Ok(value) = serde_json::to_value(&typed) {
                *usage = value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What differs between two events that look alike; each with whether a glance is enough.
    const CASES: [(&str, bool); 16] = [
        (
            r#"{"type":"response.output_text.delta","item_id":"m","output_index":0,"content_index":0,"delta":" sky","logprobs":[],"obfuscation":"xx","sequence_number":4}"#,
            true,
        ),
        (r#"{"sequence_number":4,"delta":"\u00e9\n","type":"response.output_text.delta"}"#, true),
        (r#"{"type":"response.output_text.delta","delta":""}"#, true),
        (r#"{"type":"response.output_text.delta","delta":"a","logprobs":null}"#, true),
        (r#"{"type":"response.output_text.delta","delta":"a","logprobs":[{"token":"a"}]}"#, false),
        (r#"{"type":"response.output_text.delta","delta":"a","delta":"b"}"#, false),
        (r#"{"type":"response.output_text.delta","delta":"a","error":{"message":"no"}}"#, false),
        (r#"{"type":"response.output_text.delta","delta":"a","more":1}"#, false),
        (r#"{"type":"response.output_text.delta","delta":1}"#, false),
        (r#"{"type":"response.output_text.delta"}"#, false),
        (r#"{"type":"response.failed","delta":"a"}"#, false),
        (r#"{"type":"response.completed","delta":"a"}"#, false),
        (r#"{"delta":"a"}"#, false),
        (r#"["response.output_text.delta","m",0,0,"a",null,"",1]"#, false),
        (r#"{"type":"response.output_text.delta","delta":"a"} x"#, false),
        ("", false),
    ];

    #[test]
    fn a_glance_sees_what_a_long_look_does_or_asks_for_one() {
        for (text, enough) in CASES {
            let mut stream = ResponsesStream::new(Vendor::OpenAi);
            let created = b"data: {\"type\":\"response.created\",\"response\":{}}\n\n";
            stream.push(created, &mut Vec::new()).expect("a beginning");
            let piece = format!("event: response.output_text.delta\ndata: {text}\n\n");
            let seen = stream.glance_event(piece.as_bytes());
            assert_eq!(seen.is_some(), enough, "{text}");
            let Some(seen) = seen else { continue };
            let mut events = Vec::new();
            stream.push(piece.as_bytes(), &mut events).expect(text);
            assert_eq!(seen, Glimpse::text(events[0].text().len()), "{text}");
        }
    }
}
