//! Embeddings: `batchEmbedContents`, one request within the batch for every text.
//!
//! The SDK uses the batch for a single text too, and so does this file: one form, and answers in the order asked.
//!
//! Source: the request and response types of `google-genai` 3.4.0 for the Gemini API, read 2026-11-24.

use serde::Serialize;
use serde_json::Value;

use super::decode::RawUsage;
use super::encode::{field, resource};
use super::errors;
use crate::open::read_object;
use crate::{
    Embedding, EmbeddingVector, EmbeddingsInput, EmbeddingsRequest, EmbeddingsResponse, EncodeError, Extra,
    ProviderError,
};

#[derive(Serialize)]
struct Batch<'a> {
    requests: Vec<One<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct One<'a> {
    model: &'a str,
    content: Content<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_type: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_dimensionality: Option<u32>,
}

#[derive(Serialize)]
struct Content<'a> {
    role: &'static str,
    parts: [Part<'a>; 1],
}

#[derive(Serialize)]
struct Part<'a> {
    text: &'a str,
}

/// The body of a request. `user` and the like change no vector and are left out; `taskType` and `title` are Google's own
/// and may be given in `extra`, under either of their names.
pub(super) fn body(request: &EmbeddingsRequest) -> Result<Vec<u8>, EncodeError> {
    if request.encoding_format.as_deref().is_some_and(|format| format != "float") {
        return Err(field("encoding_format", "Gemini gives numbers; use `float` or leave it out"));
    }
    let texts: Vec<&str> = match &request.input {
        EmbeddingsInput::Text(text) => vec![text],
        EmbeddingsInput::Texts(texts) => texts.iter().map(String::as_str).collect(),
        EmbeddingsInput::Tokens(_) | EmbeddingsInput::TokenLists(_) => {
            return Err(field("input", "token numbers mean something to OpenAI's models only; send texts"));
        }
    };
    if texts.is_empty() {
        return Err(field("input", "it is empty; there is nothing to embed"));
    }
    let (collection, name) = resource(&request.model)?;
    let model = format!("{collection}/{name}");
    let own = |names: [&str; 2]| {
        names.iter().find_map(|name| request.extra.get(*name)).filter(|value| !value.is_null())
    };
    let one = |text| One {
        model: &model,
        content: Content { role: "user", parts: [Part { text }] },
        task_type: own(["taskType", "task_type"]),
        title: own(["title", "title"]),
        output_dimensionality: request.dimensions,
    };
    Ok(serde_json::to_vec(&Batch { requests: texts.into_iter().map(one).collect() })?)
}

struct Answer {
    embeddings: Vec<Vector>,
    usage: Option<RawUsage>,
    error: Option<Value>,
    extra: Extra,
}

read_object! { Answer {
    "embeddings" => embeddings optional,
    "usageMetadata" => usage optional,
    "error" => error optional,
} }

struct Vector {
    values: Vec<f32>,
    extra: Extra,
}

read_object! { Vector {
    "values" => values required,
} }

/// The embeddings in the body of a 2xx. Google does not repeat the model, so it is left empty.
pub(super) fn answer(body: &[u8]) -> Result<EmbeddingsResponse, ProviderError> {
    let answer: Answer = match serde_json::from_slice(body) {
        Ok(answer) => answer,
        Err(_) if errors::is_error(body) => return Err(errors::in_a_2xx(body)),
        Err(error) => return Err(crate::classify::not_the_form("a list of embeddings", body, &error)),
    };
    if answer.error.is_some() {
        return Err(errors::in_a_2xx(body));
    }
    if answer.embeddings.is_empty() {
        return Err(ProviderError::malformed("the answer has no embeddings"));
    }
    let data = (0..).zip(answer.embeddings).map(|(index, one)| Embedding {
        index,
        embedding: EmbeddingVector::Floats(one.values),
        extra: one.extra,
    });
    Ok(EmbeddingsResponse {
        data: data.collect(),
        model: String::new(),
        usage: answer.usage.as_ref().map(RawUsage::normalised),
        extra: answer.extra,
    })
}
