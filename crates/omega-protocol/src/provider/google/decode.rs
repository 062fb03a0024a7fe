//! From a `GenerateContentResponse` to a chat response, and what of it the next request must return.
//!
//! The same object is a whole answer and a piece of a stream, so its types and the reading of its parts are shared with
//! `stream`. Thought signatures are kept in `extra_content.google.thought_signature` of the call or message they belong
//! to, parts that OpenAI's shape has no place for in `google.parts` of the message.

use std::hash::{DefaultHasher, Hash, Hasher};

use omega_policy::FailureKind;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::errors;
use crate::open::{AtMost, Count, read_object};
use crate::provider::translate::compact;
use crate::{
    ChatResponse, Choice, CompletionTokensDetails, Content, Extra, FinishReason, Message,
    PromptTokensDetails, ProviderError, Role, ToolCall, Usage,
};

/// Where Google's own OpenAI-compatible API keeps what is its own.
const EXTRA_CONTENT: &str = "extra_content";

/// Where parts are kept that OpenAI's shape cannot carry.
const OWN: &str = "google";

/// The most candidates taken. `candidateCount` is a handful; what counts on and on only fills memory.
pub(super) const MAX_CANDIDATES: usize = 128;

/// The most parts taken at once. Whole answers have some hundreds at most.
const MAX_PARTS: usize = 10_000;

/// An answer, or a piece of one.
pub(super) struct Answer {
    pub(super) candidates: Vec<Candidate>,
    pub(super) prompt_feedback: Option<Value>,
    pub(super) usage: Option<RawUsage>,
    pub(super) model: String,
    pub(super) id: String,
    pub(super) error: Option<Value>,
    pub(super) extra: Extra,
}

read_object! { Answer {
    "candidates" => candidates optional via AtMost<_, MAX_CANDIDATES>,
    "promptFeedback" => prompt_feedback optional,
    "usageMetadata" => usage optional,
    "modelVersion" => model optional,
    "responseId" => id optional,
    "error" => error optional,
} }

/// One of the answers asked for.
pub(super) struct Candidate {
    pub(super) content: Option<CandidateContent>,
    pub(super) finish_reason: Option<String>,
    pub(super) index: u32,
    pub(super) extra: Extra,
}

read_object! { Candidate {
    "content" => content optional,
    "finishReason" => finish_reason optional,
    "index" => index optional,
} }

#[derive(Default)]
pub(super) struct CandidateContent {
    parts: Vec<Part>,
    #[expect(
        dead_code,
        reason = "an open object keeps what it does not know; nobody asks for the role, which is the model's"
    )]
    extra: Extra,
}

read_object! { CandidateContent {
    "parts" => parts optional via AtMost<_, MAX_PARTS>,
} }

struct Part {
    text: Option<String>,
    thought: Option<bool>,
    signature: Option<String>,
    call: Option<Call>,
    /// The data of parts of other kinds, and fields beside the known ones.
    extra: Extra,
}

read_object! { Part {
    "text" => text optional,
    "thought" => thought optional,
    "thoughtSignature" => signature optional,
    "functionCall" => call optional,
} }

struct Call {
    id: String,
    name: String,
    /// As the model wrote them: the order of the fields, and numbers no machine type holds.
    args: Option<Box<RawValue>>,
    extra: Extra,
}

read_object! { Call {
    "id" => id optional,
    "name" => name optional,
    "args" => args optional,
} }

/// Google's usage; counts of zero are left out. Source: ai.google.dev, `google-genai` 3.4.0, read 2026-11-23.
#[derive(Clone, Default)]
pub(super) struct RawUsage {
    pub(super) prompt: Option<u64>,
    pub(super) cached: Option<u64>,
    pub(super) candidates: Option<u64>,
    pub(super) thoughts: Option<u64>,
    pub(super) tool_use_prompt: Option<u64>,
    pub(super) total: Option<u64>,
    pub(super) extra: Extra,
}

read_object! { RawUsage {
    "promptTokenCount" => prompt optional via Count,
    "cachedContentTokenCount" => cached optional via Count,
    "candidatesTokenCount" => candidates optional via Count,
    "thoughtsTokenCount" => thoughts optional via Count,
    "toolUsePromptTokenCount" => tool_use_prompt optional via Count,
    "totalTokenCount" => total optional via Count,
} }

impl RawUsage {
    /// With one meaning for every vendor: Google leaves thoughts out of the candidates' tokens, and what its own tools
    /// read out of the prompt's; the total has them all.
    pub(super) fn normalised(&self) -> Usage {
        let sum = |one: Option<u64>, other: Option<u64>| one.unwrap_or(0).saturating_add(other.unwrap_or(0));
        let prompt_tokens = sum(self.prompt, self.tool_use_prompt);
        let completion_tokens = sum(self.candidates, self.thoughts);
        let mut extra = self.extra.clone();
        extra
            .extend(self.tool_use_prompt.map(|tokens| ("toolUsePromptTokenCount".to_owned(), tokens.into())));
        Usage {
            prompt_tokens,
            completion_tokens,
            total_tokens: self.total.unwrap_or_else(|| prompt_tokens.saturating_add(completion_tokens)),
            prompt_tokens_details: self.cached.map(|cached| PromptTokensDetails {
                cached_tokens: Some(cached),
                ..PromptTokensDetails::default()
            }),
            completion_tokens_details: self.thoughts.map(|thoughts| CompletionTokensDetails {
                reasoning_tokens: Some(thoughts),
                ..CompletionTokensDetails::default()
            }),
            extra,
        }
    }

    /// The tier that served it.
    pub(super) fn service_tier(&self) -> Option<String> {
        self.extra.get("serviceTier").and_then(Value::as_str).map(str::to_ascii_lowercase)
    }
}

/// The chat response in the body of a 2xx.
pub(super) fn answer(body: &[u8]) -> Result<ChatResponse, ProviderError> {
    let answer: Answer = match serde_json::from_slice(body) {
        Ok(answer) => answer,
        // An error may be wrapped in a list of one.
        Err(_) if errors::is_error(body) => return Err(errors::in_a_2xx(body)),
        Err(error) => return Err(crate::classify::not_the_form("a Gemini answer", body, &error)),
    };
    if answer.error.is_some() {
        return Err(errors::in_a_2xx(body));
    }
    let usage = answer.usage.as_ref().map(RawUsage::normalised);
    let failed = |mut error: ProviderError| {
        error.failure.seen = usage.as_ref().map(Into::into);
        error
    };
    if answer.candidates.is_empty() {
        return Err(failed(no_candidates(answer.prompt_feedback.as_ref())));
    }
    let mut ends = Vec::with_capacity(answer.candidates.len());
    let mut choices = Vec::with_capacity(answer.candidates.len());
    let mut calls = CallIds::new(&answer.id);
    for candidate in answer.candidates {
        let Candidate { content, finish_reason, index, mut extra } = candidate;
        let Some(reason) = finish_reason else {
            return Err(failed(ProviderError::malformed(
                "a candidate has no `finishReason`: it is not finished",
            )));
        };
        let pieces = Pieces::of(content, &mut calls);
        let end = End::of(&reason, !pieces.calls.is_empty());
        extra.insert("finishReason".to_owned(), reason.into());
        choices.push(Choice {
            index,
            message: pieces.into_message(),
            finish_reason: Some(end.finish_reason()),
            logprobs: None,
            extra,
        });
        ends.push(end);
    }
    if let Some(error) = failed_end(&ends) {
        return Err(failed(error));
    }
    let mut extra = answer.extra;
    extra.extend(answer.prompt_feedback.map(|feedback| ("promptFeedback".to_owned(), feedback)));
    Ok(ChatResponse {
        id: answer.id,
        created: 0,
        model: answer.model,
        choices,
        service_tier: answer.usage.as_ref().and_then(RawUsage::service_tier),
        usage,
        system_fingerprint: None,
        extra,
    })
}

/// Why there is no candidate: mostly because the prompt was blocked.
pub(super) fn no_candidates(feedback: Option<&Value>) -> ProviderError {
    let Some(reason) = block_reason(feedback) else {
        return ProviderError::malformed("the answer has neither candidates nor a reason for having none");
    };
    let said = feedback.and_then(|feedback| feedback.get("blockReasonMessage")?.as_str());
    let message = said.map_or_else(|| format!("the prompt was blocked: {reason}"), crate::classify::bounded);
    let mut error = ProviderError::new(FailureKind::ContentFilter, message);
    error.status = Some(200);
    error.error_type = Some("promptFeedback".to_owned());
    error.code = Some(crate::classify::bounded(reason));
    error
}

/// The reason why a prompt was blocked, if it was.
pub(super) fn block_reason(feedback: Option<&Value>) -> Option<&str> {
    feedback?.get("blockReason")?.as_str()
}

/// How a candidate ended.
pub(super) enum End {
    /// With an answer, or with the part of it that may be shown.
    Answered(FinishReason),
    /// Without one: the model wrote what the service could not use.
    Failed(String),
}

impl End {
    pub(super) fn of(reason: &str, has_calls: bool) -> Self {
        match reason {
            // There is no reason of its own for calls.
            "STOP" if has_calls => Self::Answered(FinishReason::ToolCalls),
            "STOP" => Self::Answered(FinishReason::Stop),
            "MAX_TOKENS" => Self::Answered(FinishReason::Length),
            "SAFETY" | "RECITATION" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII" | "LANGUAGE"
            | "MODEL_ARMOR" | "NO_IMAGE" => Self::Answered(FinishReason::ContentFilter),
            image if image.starts_with("IMAGE_") => Self::Answered(FinishReason::ContentFilter),
            "MALFORMED_FUNCTION_CALL"
            | "UNEXPECTED_TOOL_CALL"
            | "TOO_MANY_TOOL_CALLS"
            | "MALFORMED_RESPONSE"
            | "MISSING_THOUGHT_SIGNATURE"
            | "OTHER"
            | "CONTINUATION" => Self::Failed(reason.to_owned()),
            other => Self::Answered(FinishReason::Other(other.to_ascii_lowercase())),
        }
    }

    pub(super) fn finish_reason(&self) -> FinishReason {
        match self {
            Self::Answered(reason) => reason.clone(),
            Self::Failed(reason) => FinishReason::Other(reason.to_ascii_lowercase()),
        }
    }
}

/// The error of an answer none of whose candidates is one. Where one of several is, it is delivered.
pub(super) fn failed_end(ends: &[End]) -> Option<ProviderError> {
    let mut reasons = ends.iter().map(|end| match end {
        End::Failed(reason) => Some(reason.as_str()),
        End::Answered(_) => None,
    });
    let first = reasons.next().flatten().filter(|_| reasons.all(|reason| reason.is_some()))?;
    // A call without its signature fails the same way again; the others are chance.
    let kind = if first == "MISSING_THOUGHT_SIGNATURE" { FailureKind::Invalid } else { FailureKind::Server };
    let mut error = ProviderError::new(kind, format!("the model did not finish its answer: {first}"));
    error.status = Some(200);
    error.error_type = Some("finishReason".to_owned());
    error.code = Some(first.to_owned());
    Some(error)
}

/// Ids for calls that came without one, unlike from answer to answer.
pub(super) struct CallIds {
    answer: String,
    next: u32,
}

impl CallIds {
    pub(super) fn new(answer: &str) -> Self {
        Self { answer: answer.to_owned(), next: 0 }
    }

    fn id_of(&mut self, call: &Call, arguments: &str) -> String {
        let number = self.next;
        self.next += 1;
        if !call.id.is_empty() {
            return call.id.clone();
        }
        if !self.answer.is_empty() {
            return format!("call_{}_{number}", self.answer);
        }
        // Without an id of the answer, the call itself: chance may not enter here.
        let mut hasher = DefaultHasher::new();
        (&call.name, arguments, number).hash(&mut hasher);
        format!("call_{:016x}_{number}", hasher.finish())
    }
}

/// What the parts of a candidate say.
#[derive(Default)]
pub(super) struct Pieces {
    pub(super) text: Option<String>,
    pub(super) reasoning: Option<String>,
    pub(super) calls: Vec<ToolCall>,
    /// Parts of other kinds, whole.
    pub(super) own: Vec<Value>,
    /// The signature of the text.
    pub(super) signature: Option<String>,
}

impl Pieces {
    pub(super) fn of(content: Option<CandidateContent>, calls: &mut CallIds) -> Self {
        let mut pieces = Self::default();
        for part in content.unwrap_or_default().parts {
            pieces.add(part, calls);
        }
        pieces
    }

    fn add(&mut self, part: Part, calls: &mut CallIds) {
        let Part { text, thought, signature, call, mut extra } = part;
        if let Some(call) = call {
            let arguments = call.args.as_deref().map_or_else(|| "{}".to_owned(), compact);
            let id = calls.id_of(&call, &arguments);
            let mut known = ToolCall::function(id, call.name, arguments);
            known.extra = call.extra;
            known.extra.extend(signature.map(|signature| (EXTRA_CONTENT.to_owned(), signed(&signature))));
            self.calls.push(known);
        } else if let Some(text) = text {
            if thought == Some(true) {
                self.reasoning.get_or_insert_default().push_str(&text);
            } else {
                self.text.get_or_insert_default().push_str(&text);
                self.signature = signature.or(self.signature.take());
            }
        } else if extra.is_empty() {
            // Nothing but a signature, which some streams send last.
            self.signature = signature.or(self.signature.take());
        } else {
            extra.extend(signature.map(|signature| ("thoughtSignature".to_owned(), signature.into())));
            extra.extend(thought.map(|thought| ("thought".to_owned(), thought.into())));
            self.own.push(Value::Object(extra));
        }
    }

    fn into_message(self) -> Message {
        let content = self.text.map_or(Content::None, Content::Text);
        let mut message = Message::new(Role::Assistant, content);
        message.reasoning_content = self.reasoning;
        message.tool_calls = self.calls;
        message.extra.extend(self.signature.map(|signature| (EXTRA_CONTENT.to_owned(), signed(&signature))));
        message.extra.extend(keep(self.own));
        message
    }
}

/// Parts that OpenAI's shape has no place for, as a field of the message.
pub(super) fn keep(own: Vec<Value>) -> Option<(String, Value)> {
    (!own.is_empty()).then(|| (OWN.to_owned(), json!({ "parts": own })))
}

/// A signature, as Google's own OpenAI-compatible API writes it.
pub(super) fn signed(signature: &str) -> Value {
    json!({"google": {"thought_signature": signature}})
}

/// The same as a field of a message or call.
pub(super) fn signed_field(signature: &str) -> (String, Value) {
    (EXTRA_CONTENT.to_owned(), signed(signature))
}

/// The thought signature kept on a message or call of an earlier answer.
pub(super) fn signature(extra: &Extra) -> Option<&str> {
    let signature = extra.get(EXTRA_CONTENT)?.pointer("/google/thought_signature")?.as_str()?;
    (!signature.is_empty()).then_some(signature)
}

/// The parts kept on a message of an earlier answer.
pub(super) fn own_parts(message: &Message) -> impl Iterator<Item = &Value> {
    let parts = message.extra.get(OWN).and_then(|own| own.get("parts")?.as_array());
    parts.into_iter().flatten().filter(|part| part.is_object())
}
