//! Puts the chunks of a stream together into a whole answer.

use std::collections::HashMap;

use serde_json::Value;

use super::{
    ChatChunk, ChatResponse, Choice, ChunkChoice, Delta, FunctionCall, Message, Role, ToolCall, ToolCallDelta,
};
use crate::Extra;

/// Collects chunks into a [`ChatResponse`].
///
/// It does not judge completeness: only the decoder knows whether the provider's terminator was seen.
#[derive(Debug, Default)]
pub struct ChatAccumulator {
    response: ChatResponse,
    /// Where each choice stands in `response`.
    places: HashMap<u32, usize>,
    /// Beside each choice of `response`, the place of the latest tool call of each of the stream's numbers.
    calls: Vec<HashMap<u32, usize>>,
}

impl ChatAccumulator {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a chunk.
    pub fn push(&mut self, chunk: &ChatChunk) {
        let response = &mut self.response;
        for (to, from) in [(&mut response.id, &chunk.id), (&mut response.model, &chunk.model)] {
            if to.is_empty() {
                to.clone_from(from);
            }
        }
        if response.created == 0 {
            response.created = chunk.created;
        }
        for (to, from) in [
            (&mut response.service_tier, &chunk.service_tier),
            (&mut response.system_fingerprint, &chunk.system_fingerprint),
        ] {
            if from.is_some() {
                to.clone_from(from);
            }
        }
        if chunk.usage.is_some() {
            // Running totals where they repeat: the last one counts.
            response.usage.clone_from(&chunk.usage);
        }
        for (key, value) in chunk.extra.iter().filter(|(key, _)| *key != "obfuscation") {
            response.extra.insert(key.clone(), value.clone());
        }
        for choice in &chunk.choices {
            self.push_choice(choice);
        }
    }

    /// The answer so far.
    pub fn response(&self) -> &ChatResponse {
        &self.response
    }

    /// The answer, its choices in order.
    pub fn finish(self) -> ChatResponse {
        let mut response = self.response;
        response.choices.sort_by_key(|choice| choice.index);
        response
    }

    fn push_choice(&mut self, from: &ChunkChoice) {
        let choices = &mut self.response.choices;
        let at = *self.places.entry(from.index).or_insert_with(|| {
            choices.push(Choice { index: from.index, ..Choice::default() });
            self.calls.push(HashMap::new());
            choices.len() - 1
        });
        let choice = &mut self.response.choices[at];
        if from.finish_reason.is_some() {
            choice.finish_reason.clone_from(&from.finish_reason);
        }
        if let Some(more) = &from.logprobs {
            merge(choice.logprobs.get_or_insert(Value::Null), more);
        }
        // Beside the delta stand states, not pieces (`native_finish_reason`, for instance, which some servers repeat).
        for (key, value) in from.extra.iter().filter(|(_, value)| !value.is_null()) {
            match (choice.extra.get_mut(key), value) {
                (Some(old @ Value::Array(_)), more @ Value::Array(_)) => merge(old, more),
                _ => drop(choice.extra.insert(key.clone(), value.clone())),
            }
        }
        push_delta(&mut choice.message, &mut self.calls[at], &from.delta);
    }
}

fn push_delta(message: &mut Message, known_calls: &mut HashMap<u32, usize>, delta: &Delta) {
    if let Some(role) = &delta.role {
        message.role = if role.as_str().is_empty() { Role::Assistant } else { role.clone() };
    }
    if let Some(more) = &delta.content {
        match &mut message.content {
            super::Content::Text(text) => text.push_str(more),
            content => *content = more.as_str().into(),
        }
    }
    append(&mut message.refusal, delta.refusal.as_deref());
    append(&mut message.reasoning_content, delta.reasoning_content.as_deref());
    merge_extra(&mut message.extra, &delta.extra);
    for call in &delta.tool_calls {
        push_call(&mut message.tool_calls, known_calls, call);
    }
}

fn append(to: &mut Option<String>, more: Option<&str>) {
    if let Some(more) = more {
        to.get_or_insert_default().push_str(more);
    }
}

fn push_call(calls: &mut Vec<ToolCall>, places: &mut HashMap<u32, usize>, delta: &ToolCallDelta) {
    let id = delta.id.as_deref().unwrap_or_default();
    // A fragment continues the latest call of its number. Some compatible servers number every call 0: another id
    // under a known number is therefore a new call.
    let known = places.get(&delta.index).copied();
    let known = known.filter(|at| id.is_empty() || calls[*at].id.is_empty() || calls[*at].id == id);
    let at = known.unwrap_or_else(|| {
        places.insert(delta.index, calls.len());
        calls.push(ToolCall {
            id: String::new(),
            kind: "function".to_owned(),
            function: None,
            extra: Extra::new(),
        });
        calls.len() - 1
    });
    let call = &mut calls[at];
    if !id.is_empty() {
        id.clone_into(&mut call.id);
    }
    if let Some(kind) = delta.kind.as_ref().filter(|kind| !kind.is_empty()) {
        call.kind.clone_from(kind);
    }
    if let Some(from) = &delta.function {
        let function = call.function.get_or_insert_with(FunctionCall::default);
        // The name comes once; some compatible servers repeat it whole with every fragment.
        if let Some(name) = from.name.as_deref().filter(|name| *name != function.name) {
            function.name.push_str(name);
        }
        function.arguments.push_str(from.arguments.as_deref().unwrap_or_default());
        merge_extra(&mut function.extra, &from.extra);
    }
    merge_extra(&mut call.extra, &delta.extra);
}

/// Unknown fields of a delta grow like the known ones: texts and lists are appended, objects merged field by field,
/// anything else replaced.
fn merge_extra(to: &mut Extra, from: &Extra) {
    for (key, value) in from {
        match to.get_mut(key) {
            Some(old) => merge(old, value),
            None => {
                to.insert(key.clone(), value.clone());
            }
        }
    }
}

fn merge(to: &mut Value, from: &Value) {
    match (to, from) {
        (_, Value::Null) => {}
        (Value::String(to), Value::String(from)) => to.push_str(from),
        (Value::Array(to), Value::Array(from)) => to.extend(from.iter().cloned()),
        (Value::Object(to), Value::Object(from)) => merge_extra(to, from),
        (to, from) => *to = from.clone(),
    }
}
