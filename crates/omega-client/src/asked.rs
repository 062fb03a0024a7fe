//! What a request says of itself, whichever way it is sent: its model, what it may cost, whether it is offered at all.
//!
//! Whole and streamed calls of one kind share these answers; how they differ is in `exchange.rs`.

use omega_protocol::{
    ChatRequest, EmbeddingsRequest, EncodeError, Endpoint, InputEstimate, Provider, ResponsesRequest,
    Streaming, TokenCounter, reasons_first,
};

/// A request, as far as the driver is concerned with it.
pub(crate) trait Asked: Send {
    fn model(&self) -> &str;
    fn set_model(&mut self, model: &str);
    /// What this model would have to read, before experience corrects it.
    fn input(&self, model: &str, counter: &TokenCounter) -> InputEstimate;
    /// The caller's own bound on the output, if it gave one.
    fn max_output_tokens(&self) -> Option<u64>;
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

    fn input(&self, model: &str, counter: &TokenCounter) -> InputEstimate {
        counter.chat(self, model)
    }

    fn max_output_tokens(&self) -> Option<u64> {
        let answers = u64::from(self.n.unwrap_or(1).max(1));
        self.max_tokens.map(|tokens| tokens.saturating_mul(answers))
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

    fn input(&self, model: &str, counter: &TokenCounter) -> InputEstimate {
        counter.responses(self, model)
    }

    fn max_output_tokens(&self) -> Option<u64> {
        self.max_output_tokens
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

    fn input(&self, model: &str, counter: &TokenCounter) -> InputEstimate {
        counter.embeddings(self, model)
    }

    fn max_output_tokens(&self) -> Option<u64> {
        Some(0)
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
