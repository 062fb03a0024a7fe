//! The wire formats of OpenAI, Anthropic, Google and xAI: bytes in and values out.
//!
//! A [`Provider`] turns a [`ChatRequest`] into an [`http::Request`], and bytes into a [`ChatResponse`], [`ChatChunk`]s or
//! a [`ProviderError`] that says what the failure means. No sockets, no clocks and no tasks may enter this crate: what
//! it decides depends on its arguments alone.
//!
//! ```
//! use omega_protocol::{ChatRequest, Dialect, Endpoint, EndpointOptions, Message, Streaming};
//!
//! let endpoint = Endpoint::new(Dialect::OpenAi, "https://api.openai.com/v1", Some("sk-…"), EndpointOptions::default());
//! # let endpoint = Endpoint::new(Dialect::OpenAi, "https://api.openai.com/v1", Some("sk"), EndpointOptions::default());
//! let request = ChatRequest::new("gpt-5.2", [Message::user("Hello")]);
//! let http = Dialect::OpenAi.provider().encode_chat(&endpoint?, &request, Streaming::Whole)?;
//! assert_eq!(http.uri(), "https://api.openai.com/v1/chat/completions");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod caller;
mod chat;
mod classify;
mod embeddings;
mod endpoint;
mod envelope;
mod error;
pub mod hints;
mod open;
mod provider;
mod responses;
mod routing;
pub mod sse;
mod tokens;

pub use caller::{CallerError, CallerFormat, CallerProtocol, RequestError, StreamWriter};
pub use chat::{
    ChatAccumulator, ChatChunk, ChatRequest, ChatResponse, Choice, ChunkChoice, CompletionTokensDetails,
    Content, ContentPart, Delta, FinishReason, FunctionCall, FunctionDefinition, FunctionDelta,
    JsonSchemaFormat, Message, PromptTokensDetails, ReasoningEffort, ResponseFormat, Role, StreamOptions,
    Tool, ToolCall, ToolCallDelta, ToolChoice, Usage,
};
pub use embeddings::{Embedding, EmbeddingVector, EmbeddingsInput, EmbeddingsRequest, EmbeddingsResponse};
pub use endpoint::{AnthropicVersion, Endpoint, EndpointOptions, GoogleVersion};
pub use envelope::Envelope;
pub use error::{EncodeError, EndpointError, ProviderError, UnknownDialect};
pub use provider::{ChatDecoder, Dialect, Glimpse, Provider, ResponsesDecoder, Streaming};
pub use responses::{ResponseEvent, ResponsesRequest, ResponsesResponse, ResponsesUsage};
pub use routing::{Route, reasons_first, reasons_first_as_asked, route, takes_prefill};
pub use tokens::{
    Calibration, InputEstimate, InputKind, TokenCounter, TokenizerMissing, estimate_embeddings_tokens,
    estimate_input_tokens, estimate_responses_tokens,
};

/// Fields this crate has no name for, as they came.
pub type Extra = serde_json::Map<String, serde_json::Value>;
