//! A streamed answer as Anthropic's named events.
//!
//! The event that says why it ended also says what it cost, and must come once: it is held until the end.

use serde_json::{Value, json};

use super::answer::{message_id, stop_reason, usage};
use super::body;
use crate::caller::{CallerError, StreamWriter, event_data, named_event};
use crate::{ChatChunk, FinishReason, ToolCallDelta, Usage};

/// See the module.
#[derive(Default)]
pub(super) struct Writer {
    begun: bool,
    open: Option<Open>,
    /// The number of the next block.
    next: u64,
    finish: Option<FinishReason>,
    usage: Option<Usage>,
    /// The caller has been told why it ended.
    told: bool,
    /// The terminator has gone out.
    stopped: bool,
    called: bool,
}

/// The block that is being written.
struct Open {
    index: u64,
    kind: Kind,
}

#[derive(PartialEq)]
enum Kind {
    Text,
    /// The number of the call in the chunks.
    Call(u32),
    /// One that went by untouched and that nobody else can go on with.
    Other,
}

impl Writer {
    fn begin(&mut self, chunk: Option<&ChatChunk>, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let (id, model) = chunk.map_or(("", ""), |chunk| (chunk.id.as_str(), chunk.model.as_str()));
        let message = json!({
            "id": message_id(id), "type": "message", "role": "assistant", "model": model, "content": [],
            "stop_reason": null, "stop_sequence": null, "usage": usage(self.usage.as_ref()),
        });
        named_event(out, "message_start", &json!({"type": "message_start", "message": message}));
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if let Some(Open { index, .. }) = self.open.take() {
            named_event(out, "content_block_stop", &json!({"type": "content_block_stop", "index": index}));
        }
    }

    /// The number of an open block of this kind; begins one if another is open.
    fn block(&mut self, kind: Kind, first: impl FnOnce() -> Value, out: &mut Vec<u8>) -> u64 {
        if let Some(open) = self.open.as_ref().filter(|open| open.kind == kind) {
            return open.index;
        }
        self.close(out);
        let index = self.next;
        self.next += 1;
        self.open = Some(Open { index, kind });
        let start = json!({"type": "content_block_start", "index": index, "content_block": first()});
        named_event(out, "content_block_start", &start);
        index
    }

    fn text(&mut self, text: &str, out: &mut Vec<u8>) {
        if text.is_empty() {
            return;
        }
        let index = self.block(Kind::Text, || json!({"type": "text", "text": ""}), out);
        delta(out, index, &json!({"type": "text_delta", "text": text}));
    }

    /// Providers write one call after the other, so a call that another one has followed is over.
    fn call(&mut self, call: &ToolCallDelta, out: &mut Vec<u8>) {
        self.called = true;
        let name = call.function.as_ref().and_then(|function| function.name.as_deref());
        let id = call.id.as_deref();
        let first = || json!({"type": "tool_use", "id": id.unwrap_or_default(), "name": name.unwrap_or_default(), "input": {}});
        let index = self.block(Kind::Call(call.index), first, out);
        let arguments = call.function.as_ref().and_then(|function| function.arguments.as_deref());
        if let Some(part) = arguments.filter(|part| !part.is_empty()) {
            delta(out, index, &json!({"type": "input_json_delta", "partial_json": part}));
        }
    }
}

impl StreamWriter for Writer {
    fn push(&mut self, chunk: &ChatChunk, out: &mut Vec<u8>) {
        if let Some(usage) = &chunk.usage {
            self.usage = Some(usage.clone());
        }
        self.begin(Some(chunk), out);
        // Messages gives one answer.
        for choice in chunk.choices.iter().filter(|choice| choice.index == 0) {
            let said = &choice.delta;
            for text in [&said.content, &said.refusal].into_iter().flatten() {
                self.text(text, out);
            }
            for call in &said.tool_calls {
                self.call(call, out);
            }
            if let Some(finish) = &choice.finish_reason {
                self.finish = Some(finish.clone());
            }
        }
    }

    fn follow(&mut self, bytes: &[u8], chunks: &[ChatChunk]) {
        for chunk in chunks {
            if let Some(usage) = &chunk.usage {
                self.usage = Some(usage.clone());
            }
            let finish = chunk.choices.iter().find_map(|choice| choice.finish_reason.clone());
            self.finish = finish.or(self.finish.take());
        }
        let Some(data) = event_data(bytes) else { return };
        let index = data["index"].as_u64().unwrap_or(self.next);
        match data["type"].as_str().unwrap_or_default() {
            "message_start" => self.begun = true,
            "content_block_start" => {
                let kind = match data["content_block"]["type"].as_str() {
                    Some("text") => Kind::Text,
                    _ => Kind::Other,
                };
                self.open = Some(Open { index, kind });
                self.next = index.saturating_add(1);
            }
            "content_block_stop" => self.open = None,
            "message_delta" => self.told = true,
            "message_stop" => self.stopped = true,
            _ => {}
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        self.begin(None, out);
        self.close(out);
        if !std::mem::replace(&mut self.told, true) {
            let reason = match (&self.finish, self.called) {
                // Some servers say `stop` behind a call.
                (None | Some(FinishReason::Stop), true) => "tool_use",
                (finish, _) => stop_reason(finish.as_ref()),
            };
            let said = json!({
                "type": "message_delta",
                "delta": {"stop_reason": reason, "stop_sequence": null},
                "usage": usage(self.usage.as_ref()),
            });
            named_event(out, "message_delta", &said);
        }
        if !std::mem::replace(&mut self.stopped, true) {
            named_event(out, "message_stop", &json!({"type": "message_stop"}));
        }
    }

    fn fail(&mut self, error: &CallerError<'_>, out: &mut Vec<u8>) {
        named_event(out, "error", &body(error));
    }
}

fn delta(out: &mut Vec<u8>, index: u64, delta: &Value) {
    named_event(
        out,
        "content_block_delta",
        &json!({"type": "content_block_delta", "index": index, "delta": delta}),
    );
}
