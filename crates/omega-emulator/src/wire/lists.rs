//! Answers that are looked up rather than generated: models, token counts, embeddings.

use http::request::Parts;
use serde_json::{Value, json};

use super::{anthropic, chat, google, responses};
use crate::fields::Fields;
use crate::problem::Problem;
use crate::provider::{Endpoint, Provider, Route};
use crate::text;

/// Models shown where the configuration lists none. Source: the SDKs' type lists, November 2026.
fn known_models(provider: Provider) -> &'static [&'static str] {
    match provider {
        Provider::OpenAi => {
            &["gpt-6-sol", "gpt-5.2", "gpt-5.2-2025-12-11", "gpt-5-mini", "gpt-4.1", "gpt-4o-mini", "o3"]
        }
        Provider::Anthropic => {
            &["claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5", "claude-haiku-4-5-20251001"]
        }
        Provider::Google => &["gemini-3.8-flash", "gemini-3.5-flash", "gemini-2.5-pro", "gemini-2.5-flash"],
        Provider::Grok => &["grok-4.6", "grok-4.5", "grok-4-fast-reasoning", "grok-4-fast-non-reasoning"],
    }
}

/// Answers one of these endpoints.
pub(crate) fn answer(
    route: &Route,
    model: &str,
    configured: &[String],
    body: &Value,
    parts: &Parts,
) -> Result<Value, Problem> {
    let provider = route.provider;
    match route.endpoint {
        Endpoint::Models => Ok(models(provider, configured)),
        Endpoint::Model => Ok(describe(provider, model)),
        Endpoint::ResponsesInputTokens => {
            Ok(json!({"object": "response.input_tokens", "input_tokens": responses::count(body)?}))
        }
        Endpoint::CountTokens => Ok(json!({"input_tokens": anthropic::count(model, body, &parts.headers)?})),
        Endpoint::GoogleCountTokens => {
            let tokens = google::count(body)?;
            Ok(
                json!({"totalTokens": tokens, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": tokens}]}),
            )
        }
        Endpoint::Embeddings => embeddings(model, body),
        Endpoint::EmbedContent => embed_content(body),
        Endpoint::BatchEmbedContents => batch_embed_contents(body),
        _ => {
            Err(Problem::UnknownPath { method: parts.method.to_string(), path: parts.uri.path().to_owned() })
        }
    }
}

fn models(provider: Provider, configured: &[String]) -> Value {
    let names: Vec<&str> = if configured.is_empty() {
        known_models(provider).to_vec()
    } else {
        configured.iter().map(String::as_str).collect()
    };
    let data: Vec<Value> = names.iter().map(|name| describe(provider, name)).collect();
    match provider {
        Provider::OpenAi | Provider::Grok => json!({"object": "list", "data": data}),
        Provider::Anthropic => {
            json!({"data": data, "has_more": false, "first_id": names.first(), "last_id": names.last()})
        }
        Provider::Google => json!({"models": data}),
    }
}

fn describe(provider: Provider, name: &str) -> Value {
    match provider {
        Provider::OpenAi => {
            json!({"id": name, "object": "model", "created": 1_765_411_200, "owned_by": "openai"})
        }
        Provider::Grok => json!({"id": name, "object": "model", "created": 1_765_411_200, "owned_by": "xai"}),
        Provider::Anthropic => json!({"type": "model", "id": name, "display_name": name,
            "created_at": "2026-01-01T00:00:00Z", "max_input_tokens": 1_000_000, "max_tokens": 128_000}),
        Provider::Google => json!({"name": format!("models/{name}"), "displayName": name, "version": "001",
            "inputTokenLimit": 1_048_576, "outputTokenLimit": 65_536,
            "supportedGenerationMethods": ["generateContent", "countTokens"]}),
    }
}

/// A unit vector that depends on the text and on nothing else.
fn vector(said: &str, dimensions: usize) -> Vec<f64> {
    // FNV-1a: stable between versions, which the standard library's hash does not promise.
    let seed = said.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut dice = fastrand::Rng::with_seed(seed);
    let raw: Vec<f64> = (0..dimensions).map(|_| dice.f64() * 2.0 - 1.0).collect();
    let length = raw.iter().map(|x| x * x).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    raw.into_iter().map(|x| x / length).collect()
}

fn embeddings(model: &str, body: &Value) -> Result<Value, Problem> {
    let fields = Fields::body(body)?;
    fields.required_string("model")?;
    let texts: Vec<String> = match fields.required("input")? {
        Value::Array(items) if items.iter().all(Value::is_number) => vec![format!("{items:?}")],
        Value::Array(items) if items.iter().all(Value::is_array) => {
            items.iter().map(Value::to_string).collect()
        }
        _ => fields.strings("input")?,
    };
    if texts.is_empty() || texts.iter().any(String::is_empty) {
        return Err(Problem::InvalidValue {
            param: "input".into(),
            message: "Invalid 'input': input cannot be an empty string or array.".into(),
        });
    }
    let native = if model.ends_with("-3-large") { 3_072 } else { 1_536 };
    let dimensions = fields.integer("dimensions")?.unwrap_or(native);
    if !(1..=native).contains(&dimensions) {
        return Err(Problem::InvalidValue {
            param: "dimensions".into(),
            message: format!("Invalid value for 'dimensions': must be between 1 and {native}."),
        });
    }
    let base64 = fields.word("encoding_format", &["float", "base64"])? == Some("base64");
    let data: Vec<Value> = texts
        .iter()
        .enumerate()
        .map(|(index, said)| {
            let vector = vector(said, dimensions as usize);
            let embedding = if base64 { json!(base64_floats(&vector)) } else { json!(vector) };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    let tokens = fields.get("input").map_or(0, chat::input_tokens_of);
    Ok(json!({"object": "list", "data": data, "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}))
}

/// Little-endian 32-bit floats in base64: what the official SDKs ask for by default.
fn base64_floats(vector: &[f64]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = vector.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect();
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group =
            chunk.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for sextet in 0..4 {
            if sextet <= chunk.len() {
                text.push(char::from(ALPHABET[(group >> (18 - 6 * sextet) & 63) as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

fn embed_content(body: &Value) -> Result<Value, Problem> {
    let (values, tokens) = embed(&Fields::body(body)?)?;
    Ok(json!({"embedding": {"values": values}, "usageMetadata": {"promptTokenCount": tokens}}))
}

/// One answer for each request of the batch, in its order.
fn batch_embed_contents(body: &Value) -> Result<Value, Problem> {
    let requests = Fields::body(body)?.objects("requests")?;
    if requests.is_empty() {
        return Err(Problem::Missing("requests".into()));
    }
    let (mut embeddings, mut total) = (Vec::new(), 0);
    for request in &requests {
        let (values, tokens) = embed(request)?;
        embeddings.push(json!({"values": values}));
        total += tokens;
    }
    Ok(json!({"embeddings": embeddings, "usageMetadata": {"promptTokenCount": total}}))
}

/// The vector of one `EmbedContentRequest`, and what it cost.
fn embed(request: &Fields<'_>) -> Result<(Vec<f64>, u64), Problem> {
    let content = request.object("content")?.ok_or_else(|| Problem::Missing("content".into()))?;
    let parts = content.objects("parts")?;
    let texts: Result<Vec<&str>, Problem> = parts.iter().map(|part| part.required_string("text")).collect();
    let said = texts?.concat();
    if said.is_empty() {
        return Err(Problem::Missing("content.parts".into()));
    }
    let dimensions = request.integer("outputDimensionality")?.unwrap_or(3_072).clamp(1, 3_072);
    Ok((vector(&said, dimensions as usize), text::count(&said)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embeddings_are_unit_vectors_that_depend_on_the_text_alone() {
        let length: f64 = vector("a", 64).iter().map(|x| x * x).sum();
        assert!((length - 1.0).abs() < 1e-9);
        assert_eq!(vector("a", 8), vector("a", 8));
        assert_ne!(vector("a", 8), vector("b", 8));
    }

    #[test]
    fn base64_is_padded_as_the_standard_says() {
        // 1.0_f32 is 00 00 80 3f.
        assert_eq!(base64_floats(&[1.0]), "AACAPw==");
        assert_eq!(base64_floats(&[1.0, 1.0, 1.0]), "AACAPwAAgD8AAIA/");
    }
}
