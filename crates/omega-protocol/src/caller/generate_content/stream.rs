//! A streamed answer as Gemini's events: each is an answer with what is new.
//!
//! A call is written whole, as Gemini writes it; so its arguments are kept until it is over. Why an answer ended comes in
//! the last event, with what it cost.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::answer::{call_part, finish_reason, usage_metadata};
use super::body;
use crate::caller::{CallerError, StreamWriter, event_data, plain_event};
use crate::{ChatChunk, FinishReason, Usage};

/// Answers and calls that are told apart; more come only from a server gone wrong.
const KEPT_MAX: usize = 1_024;

/// See the module.
#[derive(Default)]
pub(super) struct Writer {
    id: String,
    model: String,
    usage: Option<Usage>,
    /// By answer.
    candidates: BTreeMap<u32, Candidate>,
}

#[derive(Default)]
struct Candidate {
    calls: BTreeMap<u32, Call>,
    finish: Option<FinishReason>,
    /// The caller has been told why it ended.
    told: bool,
}

#[derive(Default)]
struct Call {
    id: String,
    name: String,
    arguments: String,
}

impl Writer {
    fn event(&self, index: u32, parts: Vec<Value>, finish: Option<&'static str>, out: &mut Vec<u8>) {
        let mut candidate = json!({"content": {"role": "model", "parts": parts}, "index": index});
        if let Some(finish) = finish {
            candidate["finishReason"] = finish.into();
        }
        let mut said = json!({"candidates": [candidate], "modelVersion": self.model, "responseId": self.id});
        if let Some(usage) = self.usage.as_ref().filter(|_| finish.is_some()) {
            said["usageMetadata"] = usage_metadata(usage);
        }
        plain_event(out, &said);
    }

    fn note(&mut self, chunk: &ChatChunk) {
        if self.id.is_empty() {
            self.id.clone_from(&chunk.id);
        }
        if !chunk.model.is_empty() {
            self.model.clone_from(&chunk.model);
        }
        if let Some(usage) = &chunk.usage {
            self.usage = Some(usage.clone());
        }
    }
}

impl StreamWriter for Writer {
    fn push(&mut self, chunk: &ChatChunk, out: &mut Vec<u8>) {
        self.note(chunk);
        for choice in &chunk.choices {
            let said = &choice.delta;
            let mut parts = Vec::new();
            if let Some(thought) = said.reasoning_content.as_deref().filter(|text| !text.is_empty()) {
                parts.push(json!({"text": thought, "thought": true}));
            }
            for text in [&said.content, &said.refusal].into_iter().flatten().filter(|text| !text.is_empty()) {
                parts.push(json!({"text": text}));
            }
            if self.candidates.len() >= KEPT_MAX && !self.candidates.contains_key(&choice.index) {
                continue;
            }
            let candidate = self.candidates.entry(choice.index).or_default();
            for delta in &said.tool_calls {
                if candidate.calls.len() >= KEPT_MAX && !candidate.calls.contains_key(&delta.index) {
                    continue;
                }
                let call = candidate.calls.entry(delta.index).or_default();
                if let Some(id) = delta.id.as_deref().filter(|_| call.id.is_empty()) {
                    id.clone_into(&mut call.id);
                }
                if let Some(function) = &delta.function {
                    if let Some(name) = function.name.as_deref().filter(|_| call.name.is_empty()) {
                        name.clone_into(&mut call.name);
                    }
                    call.arguments.push_str(function.arguments.as_deref().unwrap_or_default());
                }
            }
            if choice.finish_reason.is_some() {
                candidate.finish.clone_from(&choice.finish_reason);
            }
            if !parts.is_empty() {
                self.event(choice.index, parts, None, out);
            }
        }
    }

    fn follow(&mut self, bytes: &[u8], chunks: &[ChatChunk]) {
        chunks.iter().for_each(|chunk| self.note(chunk));
        let Some(data) = event_data(bytes) else { return };
        for candidate in data["candidates"].as_array().into_iter().flatten() {
            let index = candidate["index"].as_u64().and_then(|index| u32::try_from(index).ok()).unwrap_or(0);
            let known = self.candidates.len() < KEPT_MAX || self.candidates.contains_key(&index);
            if known && candidate["finishReason"].is_string() {
                self.candidates.entry(index).or_default().told = true;
            }
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if self.candidates.is_empty() {
            self.candidates.insert(0, Candidate::default());
        }
        for (index, candidate) in std::mem::take(&mut self.candidates) {
            if candidate.told {
                continue;
            }
            let calls = candidate.calls.values();
            let parts = calls.map(|call| call_part(&call.id, &call.name, &call.arguments)).collect();
            self.event(index, parts, Some(finish_reason(candidate.finish.as_ref())), out);
        }
    }

    fn fail(&mut self, error: &CallerError<'_>, out: &mut Vec<u8>) {
        plain_event(out, &body(error));
    }
}
