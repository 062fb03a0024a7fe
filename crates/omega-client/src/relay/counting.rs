//! How many tokens a request has, without making it.
//!
//! Counting costs no tokens and has limits of its own at the providers, so it passes beside the limiter and the circuit:
//! a count that fails tells nothing about answers. Where nobody can be asked, it is estimated.

use std::sync::Arc;

use bytes::Bytes;
use omega_policy::FailureKind;
use omega_protocol::ProviderError;

use secrecy::{ExposeSecret as _, SecretString};

use super::{Core, RelayRequest};
use crate::asked::Asked as _;
use crate::client::Inner;
use crate::error::{Error, ErrorKind};
use crate::reader::broken;
use crate::registry::Target;
use crate::relay::exchange::{Relay, is_native};
use crate::send::error_body_of;

/// A count is a few bytes.
const COUNT_BYTES_MAX: usize = 64 * 1024;

/// A count of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counted {
    /// The provider's own answer, in the caller's protocol.
    Said(Bytes),
    /// Nobody who speaks the protocol counts for this model: estimated by its weight, as the limits do.
    Estimated(u64),
}

impl Inner {
    pub(crate) async fn count_tokens(&self, request: RelayRequest) -> Result<Counted, Error> {
        let core = Arc::new(request.into_core());
        let config = &self.loaded.config;
        let asked = &core.envelope.model;
        let asked = if asked.trim().is_empty() { &config.model } else { asked };
        let target = self.registry.target(config.meant_by(asked).next().unwrap_or(asked))?;
        match self.ask_for_count(&core, &target).await {
            Some(said) => said.map(Counted::Said),
            None => {
                let model = &target.model;
                let asked = Relay::new(core, false, None).asked;
                Ok(Counted::Estimated(asked.input(model, &self.counter).tokens))
            }
        }
    }

    /// What the target says, if it is one to ask.
    async fn ask_for_count(&self, core: &Core, target: &Target) -> Option<Result<Bytes, Error>> {
        let member = &target.member;
        let own_key = core.credential.as_ref().filter(|_| member.takes_own_key(core.protocol));
        let endpoint = match own_key {
            Some(_) => member.endpoint_for_own_key(),
            None => member.endpoint(),
        };
        let (provider, endpoint) = (member.provider(), endpoint.ok()?);
        if !is_native(core.protocol, provider, endpoint) {
            return None;
        }
        let body = core.envelope.rewrite(&core.body, &target.model, false);
        let mut request = provider.encode_count(endpoint, core.protocol, &target.model, body).ok()?;
        for (name, value) in &core.headers {
            request.headers_mut().insert(name, value.clone());
        }
        if let Some(key) = own_key {
            endpoint.authorize(&mut request, key.expose_secret()).ok()?;
        }
        let wait = member.clocks.first_byte;
        let said = tokio::time::timeout(wait, self.count_said(target, request, own_key)).await;
        Some(said.unwrap_or_else(|_| {
            let text = format!("{}: no answer within {} s", member.name, wait.as_secs_f64());
            Err(Error::new(ErrorKind::Deadline, text).at(&member.name, &target.model))
        }))
    }

    async fn count_said(
        &self,
        target: &Target,
        request: http::Request<Bytes>,
        own_key: Option<&SecretString>,
    ) -> Result<Bytes, Error> {
        let member = &target.member;
        let failed = |mut error: ProviderError| {
            member.redact(&mut error, own_key);
            Error::provider_said(&member.name, &target.model, error)
        };
        let sent = self.transport.send(request).await;
        let mut response =
            sent.map_err(|error| failed(ProviderError::new(FailureKind::Transport, error.to_string())))?;
        let (status, headers) = (response.head.status, &response.head.headers);
        if status.is_success() {
            let body = response.body.collect(COUNT_BYTES_MAX).await;
            return body.map_err(|error| failed(broken(&error)));
        }
        let said = error_body_of(&mut response.body).await;
        let provider = member.provider();
        Err(failed(provider.classify(status, headers, &said, self.clock.date())))
    }
}
