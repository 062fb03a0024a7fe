//! What a request says of itself, whichever way it is sent: its model, what it may cost, whether it is offered at all.
//!
//! Whole and streamed calls of one kind share these answers; how they differ is in `exchange.rs`.

use omega_policy::Demand;
use omega_protocol::{
    ChatRequest, EmbeddingsRequest, EncodeError, Endpoint, Provider, ResponsesRequest, Streaming,
    estimate_embeddings_tokens, estimate_input_tokens, estimate_responses_tokens, reasons_first,
};

/// A request, as far as the driver is concerned with it.
pub(crate) trait Asked: Send {
    fn model(&self) -> &str;
    fn set_model(&mut self, model: &str);
    fn demand(&self) -> Demand;
    fn reasons_first(&self) -> bool;
    /// Whether that provider has such calls at all; cheap, unlike encoding. Each has chats.
    fn is_offered(_provider: &dyn Provider, _endpoint: &Endpoint) -> bool {
        true
    }
}

impl Asked for ChatRequest {
    fn model(&self) -> &str {
        &self.model
    }

    fn set_model(&mut self, model: &str) {
        model.clone_into(&mut self.model);
    }

    fn demand(&self) -> Demand {
        let answers = u64::from(self.n.unwrap_or(1).max(1));
        Demand {
            input_tokens: estimate_input_tokens(self),
            max_output_tokens: self.max_tokens.map(|tokens| tokens.saturating_mul(answers)),
        }
    }

    fn reasons_first(&self) -> bool {
        reasons_first(&self.model, self)
    }
}

impl Asked for ResponsesRequest {
    fn model(&self) -> &str {
        &self.model
    }

    fn set_model(&mut self, model: &str) {
        model.clone_into(&mut self.model);
    }

    fn demand(&self) -> Demand {
        Demand { input_tokens: estimate_responses_tokens(self), max_output_tokens: self.max_output_tokens }
    }

    /// The Responses API says its effort in `reasoning.effort`.
    fn reasons_first(&self) -> bool {
        let effort = self.extra.get("reasoning").and_then(|reasoning| reasoning.get("effort"));
        let effort = effort.and_then(|effort| serde_json::from_value(effort.clone()).ok());
        let like = ChatRequest { reasoning_effort: effort, ..ChatRequest::default() };
        reasons_first(&self.model, &like)
    }

    /// Asked with the smallest request there is: who does not have the operation says so before it reads one.
    fn is_offered(provider: &dyn Provider, endpoint: &Endpoint) -> bool {
        let smallest = provider.encode_responses(endpoint, &Self::default(), Streaming::Whole);
        !matches!(smallest, Err(EncodeError::Unsupported { .. }))
    }
}

impl Asked for EmbeddingsRequest {
    fn model(&self) -> &str {
        &self.model
    }

    fn set_model(&mut self, model: &str) {
        model.clone_into(&mut self.model);
    }

    fn demand(&self) -> Demand {
        Demand { input_tokens: estimate_embeddings_tokens(self), max_output_tokens: Some(0) }
    }

    fn reasons_first(&self) -> bool {
        false
    }

    /// As above.
    fn is_offered(provider: &dyn Provider, endpoint: &Endpoint) -> bool {
        let smallest = provider.encode_embeddings(endpoint, &Self::new("", [""]));
        !matches!(smallest, Err(EncodeError::Unsupported { .. }))
    }
}
