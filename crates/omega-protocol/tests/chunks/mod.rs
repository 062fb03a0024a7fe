//! Pieces of a streamed answer, as a provider of OpenAI's protocol writes them.

use omega_protocol::ChatChunk;
use serde_json::{Value, json};

/// A chunk with these fields.
pub(crate) fn chunk(value: Value) -> ChatChunk {
    let mut whole = json!({
        "id": "chatcmpl-9", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [],
    });
    whole.as_object_mut().expect("an object").extend(value.as_object().expect("an object").clone());
    serde_json::from_value(whole).expect("a chunk")
}

/// More of the answer.
pub(crate) fn delta(delta: Value) -> ChatChunk {
    chunk(json!({"choices": [{"index": 0, "delta": delta}]}))
}

/// Its end.
pub(crate) fn finish(reason: &str) -> ChatChunk {
    chunk(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}))
}
