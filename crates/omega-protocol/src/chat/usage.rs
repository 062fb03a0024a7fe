//! What a call used, in OpenAI's shape and with one meaning for every vendor.

use crate::Extra;
use crate::open::{Count, open_object};

/// Tokens used.
///
/// Normalised: `prompt_tokens` includes cached input and `completion_tokens` includes reasoning, whichever provider
/// answered. Providers count differently (xAI leaves reasoning out of `completion_tokens`, Anthropic leaves cache reads
/// out of `input_tokens`, Gemini leaves thoughts out of the candidates' tokens); each provider file corrects its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// Everything the model read, cached input included.
    pub prompt_tokens: u64,
    /// Everything the model wrote, reasoning included.
    pub completion_tokens: u64,
    /// The sum.
    pub total_tokens: u64,
    /// What the prompt consisted of.
    pub prompt_tokens_details: Option<PromptTokensDetails>,
    /// What the answer consisted of.
    pub completion_tokens_details: Option<CompletionTokensDetails>,
    /// Everything else, as it came.
    pub extra: Extra,
}

open_object! { Usage {
    "prompt_tokens" => prompt_tokens always via Count,
    "completion_tokens" => completion_tokens always via Count,
    "total_tokens" => total_tokens always via Count,
    "prompt_tokens_details" => prompt_tokens_details optional,
    "completion_tokens_details" => completion_tokens_details optional,
} }

impl Usage {
    /// The part of the prompt that came from the provider's cache.
    pub fn cached_tokens(&self) -> u64 {
        self.prompt_tokens_details.as_ref().and_then(|details| details.cached_tokens).unwrap_or(0)
    }

    /// The part of the answer that was reasoning.
    pub fn reasoning_tokens(&self) -> u64 {
        self.completion_tokens_details.as_ref().and_then(|details| details.reasoning_tokens).unwrap_or(0)
    }
}

impl From<&Usage> for omega_policy::Usage {
    fn from(usage: &Usage) -> Self {
        Self {
            input_tokens: usage.prompt_tokens,
            cached_input_tokens: usage.cached_tokens().min(usage.prompt_tokens),
            output_tokens: usage.completion_tokens,
        }
    }
}

/// What the prompt consisted of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PromptTokensDetails {
    /// Read from the provider's cache.
    pub cached_tokens: Option<u64>,
    /// Written to the provider's cache.
    pub cache_write_tokens: Option<u64>,
    /// Everything else, as it came.
    pub extra: Extra,
}

open_object! { PromptTokensDetails {
    "cached_tokens" => cached_tokens optional via Count,
    "cache_write_tokens" => cache_write_tokens optional via Count,
} }

/// What the answer consisted of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CompletionTokensDetails {
    /// Reasoning, seen or hidden.
    pub reasoning_tokens: Option<u64>,
    /// Everything else, as it came.
    pub extra: Extra,
}

open_object! { CompletionTokensDetails {
    "reasoning_tokens" => reasoning_tokens optional via Count,
} }
