//! Embeddings in OpenAI's shape.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::open::{open_object, private_debug};
use crate::{Extra, Usage};

/// A request for embeddings.
#[derive(Clone, PartialEq)]
pub struct EmbeddingsRequest {
    /// The model.
    pub model: String,
    /// What to embed.
    pub input: EmbeddingsInput,
    /// The length of the vectors, where the model offers a choice.
    pub dimensions: Option<u32>,
    /// `float` or `base64`.
    pub encoding_format: Option<String>,
    /// Everything else, as it came.
    pub extra: Extra,
}

open_object! { EmbeddingsRequest {
    "model" => model required,
    "input" => input required,
    "dimensions" => dimensions optional,
    "encoding_format" => encoding_format optional,
} }

private_debug! { EmbeddingsRequest { model, input, dimensions } as this }

impl EmbeddingsRequest {
    /// A request for the embeddings of these texts.
    pub fn new<T: Into<String>>(model: impl Into<String>, texts: impl IntoIterator<Item = T>) -> Self {
        Self {
            model: model.into(),
            input: EmbeddingsInput::Texts(texts.into_iter().map(Into::into).collect()),
            dimensions: None,
            encoding_format: None,
            extra: Extra::new(),
        }
    }
}

/// What to embed.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EmbeddingsInput {
    /// One text.
    Text(String),
    /// Several texts, one vector each.
    Texts(Vec<String>),
    /// One text as token numbers.
    Tokens(Vec<u32>),
    /// Several texts as token numbers.
    TokenLists(Vec<Vec<u32>>),
}

impl std::fmt::Debug for EmbeddingsInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Texts(texts) => write!(f, "Texts({})", texts.len()),
            Self::Tokens(tokens) => write!(f, "Tokens({})", tokens.len()),
            Self::TokenLists(lists) => write!(f, "TokenLists({})", lists.len()),
        }
    }
}

/// Embeddings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EmbeddingsResponse {
    /// One per input.
    pub data: Vec<Embedding>,
    /// The model that made them.
    pub model: String,
    /// What it cost, where the provider said so.
    pub usage: Option<Usage>,
    /// Everything else, as it came.
    pub extra: Extra,
}

open_object! { EmbeddingsResponse, "object" = "list" {
    "data" => data required,
    "model" => model always,
    "usage" => usage optional,
} }

/// One embedding.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embedding {
    /// Which input it is of.
    pub index: u32,
    /// The vector.
    pub embedding: EmbeddingVector,
    /// Everything else, as it came.
    pub extra: Extra,
}

open_object! { Embedding, "object" = "embedding" {
    "index" => index always,
    "embedding" => embedding required,
} }

/// A vector, in the form asked for.
#[derive(Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum EmbeddingVector {
    /// Numbers.
    Floats(Vec<f32>),
    /// Little-endian 32-bit floats in base64.
    Base64(String),
}

impl EmbeddingVector {
    /// The same in base64, as whoever asks for `encoding_format: base64` reads it.
    #[must_use]
    pub fn into_base64(self) -> Self {
        match self {
            Self::Floats(floats) => {
                let bytes: Vec<u8> = floats.iter().flat_map(|float| float.to_le_bytes()).collect();
                Self::Base64(BASE64.encode(bytes))
            }
            base64 @ Self::Base64(_) => base64,
        }
    }
}

impl Default for EmbeddingVector {
    fn default() -> Self {
        Self::Floats(Vec::new())
    }
}

impl std::fmt::Debug for EmbeddingVector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Floats(floats) => write!(f, "Floats({})", floats.len()),
            Self::Base64(text) => write!(f, "Base64({} bytes)", text.len()),
        }
    }
}

impl<'de> Deserialize<'de> for EmbeddingVector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct VectorVisitor;
        impl<'de> Visitor<'de> for VectorVisitor {
            type Value = EmbeddingVector;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of numbers or base64")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<EmbeddingVector, E> {
                Ok(EmbeddingVector::Base64(text.to_owned()))
            }
            fn visit_string<E: Error>(self, text: String) -> Result<EmbeddingVector, E> {
                Ok(EmbeddingVector::Base64(text))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<EmbeddingVector, A::Error> {
                let mut floats = Vec::new();
                while let Some(number) = seq.next_element()? {
                    floats.push(number);
                }
                Ok(EmbeddingVector::Floats(floats))
            }
        }
        deserializer.deserialize_any(VectorVisitor)
    }
}
