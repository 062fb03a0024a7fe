//! A streamed answer as the events of OpenAI's Responses: items and parts that are begun, written and closed, each event
//! with the next number, and at the end the whole response once more.

use serde_json::{Value, json};

use super::answer::{bare_id, call_item, envelope, message_item, reasoning_item, text_part, usage};
use crate::caller::{CallerError, StreamWriter, chat_completions, event_data, named_event};
use crate::{ChatChunk, FinishReason, ToolCallDelta, Usage};

/// See the module.
#[derive(Default)]
pub(super) struct Writer {
    begun: bool,
    id: String,
    created: u64,
    model: String,
    /// The number of the next event.
    number: u64,
    /// Items that are closed, as they stand in the whole response.
    output: Vec<Value>,
    open: Option<Open>,
    finish: Option<FinishReason>,
    usage: Option<Usage>,
    /// The terminator went by untouched.
    ended: bool,
}

/// The item that is being written.
struct Open {
    id: String,
    kind: Kind,
    /// What was written of it.
    text: String,
}

#[derive(Clone, PartialEq)]
enum Kind {
    Text,
    Refusal,
    Reasoning,
    Call {
        /// The number of the call in the chunks; none for one that went by untouched.
        number: Option<u32>,
        call_id: String,
        name: String,
    },
}

impl Open {
    /// The item as it is now.
    fn item(&self, status: &str) -> Value {
        match &self.kind {
            Kind::Text => message_item(&self.id, &self.text, "", status),
            Kind::Refusal => message_item(&self.id, "", &self.text, status),
            Kind::Reasoning => reasoning_item(&self.id, &self.text),
            Kind::Call { call_id, name, .. } => call_item(&self.id, call_id, name, &self.text, status),
        }
    }
}

impl Writer {
    fn event(&mut self, name: &str, mut data: Value, out: &mut Vec<u8>) {
        data["type"] = name.into();
        data["sequence_number"] = self.number.into();
        self.number += 1;
        named_event(out, name, &data);
    }

    fn response(&self, status: Option<&str>) -> Value {
        let finish = self.finish.as_ref();
        let mut whole = envelope(&self.id, self.created, &self.model, finish, self.output.clone());
        whole["usage"] = usage(self.usage.as_ref());
        if let Some(status) = status {
            whole["status"] = status.into();
        }
        whole
    }

    fn note(&mut self, chunk: &ChatChunk) {
        if self.id.is_empty() {
            self.id = bare_id(&chunk.id);
        }
        if self.created == 0 {
            self.created = chunk.created;
        }
        if !chunk.model.is_empty() {
            self.model.clone_from(&chunk.model);
        }
        if let Some(usage) = &chunk.usage {
            self.usage = Some(usage.clone());
        }
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        for name in ["response.created", "response.in_progress"] {
            let response = self.response(Some("in_progress"));
            self.event(name, json!({"response": response}), out);
        }
    }

    /// Where in the output the open item stands.
    fn at(&self) -> usize {
        self.output.len()
    }

    /// Makes sure that an item of this kind is open.
    fn item(&mut self, kind: &Kind, out: &mut Vec<u8>) {
        if self.open.as_ref().is_some_and(|open| open.kind == *kind) {
            return;
        }
        self.close(out);
        let (at, base) = (self.at(), self.id.clone());
        let prefix = match kind {
            Kind::Text | Kind::Refusal => "msg",
            Kind::Reasoning => "rs",
            Kind::Call { .. } => "fc",
        };
        let open = Open { id: format!("{prefix}_{base}_{at}"), kind: kind.clone(), text: String::new() };
        let mut item = open.item("in_progress");
        if *kind == Kind::Reasoning {
            item["summary"] = json!([]);
        }
        let id = open.id.clone();
        self.open = Some(open);
        self.event("response.output_item.added", json!({"output_index": at, "item": item}), out);
        let here = json!({"item_id": id, "output_index": at});
        match kind {
            Kind::Text => self.part("response.content_part.added", here, "content_index", text_part(""), out),
            Kind::Refusal => {
                let part = json!({"type": "refusal", "refusal": ""});
                self.part("response.content_part.added", here, "content_index", part, out);
            }
            Kind::Reasoning => {
                let part = json!({"type": "summary_text", "text": ""});
                self.part("response.reasoning_summary_part.added", here, "summary_index", part, out);
            }
            Kind::Call { .. } => {}
        }
    }

    fn part(&mut self, name: &str, mut here: Value, index: &str, part: Value, out: &mut Vec<u8>) {
        here[index] = 0.into();
        here["part"] = part;
        self.event(name, here, out);
    }

    /// More of an item of this kind.
    fn more(&mut self, kind: &Kind, text: &str, out: &mut Vec<u8>) {
        self.item(kind, out);
        let at = self.at();
        let Some(open) = self.open.as_mut().filter(|_| !text.is_empty()) else { return };
        open.text.push_str(text);
        let mut data = json!({"item_id": open.id, "output_index": at, "delta": text});
        let name = match kind {
            Kind::Text => {
                data["content_index"] = 0.into();
                data["logprobs"] = json!([]);
                "response.output_text.delta"
            }
            Kind::Refusal => {
                data["content_index"] = 0.into();
                "response.refusal.delta"
            }
            Kind::Reasoning => {
                data["summary_index"] = 0.into();
                "response.reasoning_summary_text.delta"
            }
            Kind::Call { .. } => "response.function_call_arguments.delta",
        };
        self.event(name, data, out);
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        let Some(open) = self.open.take() else { return };
        let (at, text) = (self.at(), open.text.as_str());
        let here = json!({"item_id": open.id, "output_index": at});
        let with = |pairs: &[(&str, Value)]| {
            let mut data = here.clone();
            pairs.iter().for_each(|(name, value)| data[*name] = value.clone());
            data
        };
        let zero = || Value::from(0);
        match &open.kind {
            Kind::Text => {
                let said = [("content_index", zero()), ("text", text.into()), ("logprobs", json!([]))];
                self.event("response.output_text.done", with(&said), out);
                self.part("response.content_part.done", here.clone(), "content_index", text_part(text), out);
            }
            Kind::Refusal => {
                let said = [("content_index", zero()), ("refusal", text.into())];
                self.event("response.refusal.done", with(&said), out);
                let part = json!({"type": "refusal", "refusal": text});
                self.part("response.content_part.done", here.clone(), "content_index", part, out);
            }
            Kind::Reasoning => {
                let said = [("summary_index", zero()), ("text", text.into())];
                self.event("response.reasoning_summary_text.done", with(&said), out);
                let part = json!({"type": "summary_text", "text": text});
                self.part("response.reasoning_summary_part.done", here.clone(), "summary_index", part, out);
            }
            Kind::Call { name, .. } => {
                let said = [("arguments", text.into()), ("name", name.as_str().into())];
                self.event("response.function_call_arguments.done", with(&said), out);
            }
        }
        let item = open.item("completed");
        self.event("response.output_item.done", json!({"output_index": at, "item": item}), out);
        self.output.push(item);
    }

    /// Providers write one call after the other, so a call that another one has followed is over.
    fn call(&mut self, call: &ToolCallDelta, out: &mut Vec<u8>) {
        let function = call.function.as_ref();
        let same = match self.open.as_ref().map(|open| &open.kind) {
            Some(kind @ Kind::Call { number, .. }) if *number == Some(call.index) => Some(kind.clone()),
            _ => None,
        };
        let kind = same.unwrap_or_else(|| Kind::Call {
            number: Some(call.index),
            call_id: call.id.clone().unwrap_or_default(),
            name: function.and_then(|function| function.name.clone()).unwrap_or_default(),
        });
        let arguments = function.and_then(|function| function.arguments.as_deref());
        self.more(&kind, arguments.unwrap_or_default(), out);
    }

    /// An item that went by untouched begins.
    fn followed_item(&mut self, item: &Value) {
        let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
        let kind = match item["type"].as_str() {
            Some("message") => Kind::Text,
            Some("reasoning") => Kind::Reasoning,
            _ => Kind::Call { number: None, call_id: text("call_id"), name: text("name") },
        };
        self.open = Some(Open { id: text("id"), kind, text: String::new() });
    }
}

impl StreamWriter for Writer {
    fn push(&mut self, chunk: &ChatChunk, out: &mut Vec<u8>) {
        self.note(chunk);
        self.begin(out);
        // The Responses API gives one answer.
        for choice in chunk.choices.iter().filter(|choice| choice.index == 0) {
            let said = &choice.delta;
            let pieces = [
                (Kind::Reasoning, &said.reasoning_content),
                (Kind::Text, &said.content),
                (Kind::Refusal, &said.refusal),
            ];
            for (kind, piece) in pieces {
                if let Some(piece) = piece.as_deref().filter(|piece| !piece.is_empty()) {
                    self.more(&kind, piece, out);
                }
            }
            for call in &said.tool_calls {
                self.call(call, out);
            }
            if choice.finish_reason.is_some() {
                self.finish.clone_from(&choice.finish_reason);
            }
        }
    }

    fn follow(&mut self, bytes: &[u8], chunks: &[ChatChunk]) {
        for chunk in chunks {
            if let Some(usage) = &chunk.usage {
                self.usage = Some(usage.clone());
            }
        }
        let Some(data) = event_data(bytes) else { return };
        if let Some(number) = data["sequence_number"].as_u64() {
            self.number = number.saturating_add(1);
        }
        match data["type"].as_str().unwrap_or_default() {
            "response.created" => {
                self.begun = true;
                self.id = bare_id(data["response"]["id"].as_str().unwrap_or_default());
                self.created = data["response"]["created_at"].as_f64().unwrap_or_default() as u64;
                data["response"]["model"].as_str().unwrap_or_default().clone_into(&mut self.model);
            }
            "response.output_item.added" => self.followed_item(&data["item"]),
            "response.output_item.done" => {
                self.open = None;
                self.output.push(data["item"].clone());
            }
            "response.output_text.delta"
            | "response.reasoning_summary_text.delta"
            | "response.function_call_arguments.delta" => {
                if let Some(open) = &mut self.open {
                    open.text.push_str(data["delta"].as_str().unwrap_or_default());
                }
            }
            "response.completed" | "response.incomplete" => self.ended = true,
            _ => {}
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if self.ended {
            return;
        }
        self.begin(out);
        self.close(out);
        let response = self.response(None);
        let name = match response["status"].as_str() {
            Some("incomplete") => "response.incomplete",
            _ => "response.completed",
        };
        self.event(name, json!({"response": response}), out);
        self.ended = true;
    }

    /// The nested form raises in both of OpenAI's SDKs; the flat one is what the API documents. One event has both.
    fn fail(&mut self, error: &CallerError<'_>, out: &mut Vec<u8>) {
        let mut said = chat_completions::body(error);
        for name in ["message", "code", "param"] {
            said[name] = said["error"][name].clone();
        }
        self.event("error", said, out);
    }
}
