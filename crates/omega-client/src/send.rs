//! One attempt: out with the request, in with the answer or with what the provider said instead.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use omega_policy::FailureKind;
use omega_protocol::ProviderError;
use omega_transport::{Body, Response, TransportError};

use crate::client::Inner;
use crate::exchange::{Encoded, Exchange, Facts, Incoming, Received};
use crate::registry::Target;
use crate::scope::Held;
use crate::watch::{Fault, Watch};

/// An error body is read up to here; what a provider has to say fits into far less, an edge's HTML page mostly too.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// An error's status has come and says nearly everything: its body is awaited no longer than this. Judgement; it
/// usually is in the same packet.
const ERROR_BODY_WAIT: Duration = Duration::from_secs(5);

/// A request as it goes out, and the clocks that run from then on.
pub(crate) struct Outgoing<H> {
    pub(crate) encoded: Encoded<H>,
    pub(crate) watch: Watch,
}

/// From the first byte out to the answer, or to its first content.
pub(crate) async fn send<E: Exchange>(
    client: &Inner,
    target: &Target,
    outgoing: Outgoing<E::How>,
    facts: &Facts,
    held: &mut Held,
) -> Result<Received<E::Answer>, Fault> {
    let Outgoing { encoded: Encoded { request, streaming, how }, mut watch } = outgoing;
    let member = &target.member;
    let provider = member.provider();
    let own_key = E::own_key(&how).cloned();
    held.sent(facts.input);
    let response = watch.over(client.transport.send(request)).await?;
    let Response { head, mut body } = response.map_err(|error| unreachable_provider(&error))?;
    watch.heard();
    let date = client.clock.date();
    if let Some(hint) = provider.quota_hint(&head.headers, date) {
        held.handle_hint(&hint, watch.now());
    }
    if !head.status.is_success() {
        let said = error_body(&mut body, &mut watch).await;
        let mut error = provider.classify(head.status, &head.headers, &said, date);
        name_request(&mut error, provider.request_id(&head.headers));
        member.redact(&mut error, own_key.as_ref());
        return Err(Fault::Provider(error));
    }
    let request_id = provider.request_id(&head.headers).map(str::to_owned);
    let incoming = Incoming { provider, streaming, headers: head.headers, body, watch, facts, held };
    E::receive(incoming, how).await.map_err(|fault| match fault {
        Fault::Provider(mut error) => {
            name_request(&mut error, request_id.as_deref());
            member.redact(&mut error, own_key.as_ref());
            Fault::Provider(error)
        }
        deadline @ Fault::Deadline { .. } => deadline,
    })
}

fn name_request(error: &mut ProviderError, request_id: Option<&str>) {
    if error.request_id.is_none() {
        error.request_id = request_id.map(str::to_owned);
    }
}

/// The provider could not be reached, or went away before it answered.
fn unreachable_provider(error: &TransportError) -> Fault {
    Fault::Provider(ProviderError::new(FailureKind::Transport, error.to_string()))
}

/// What there is of an error's body. A body that breaks, stalls or is endless is judged by what came of it.
async fn error_body(body: &mut Body, watch: &mut Watch) -> Bytes {
    let mut said = BytesMut::new();
    // A clock that runs out here leaves the status, which says enough.
    let _ = tokio::time::timeout(ERROR_BODY_WAIT, watch.over(read_error(body, &mut said))).await;
    said.freeze()
}

/// The same, outside a call.
pub(crate) async fn error_body_of(body: &mut Body) -> Bytes {
    let mut said = BytesMut::new();
    let _ = tokio::time::timeout(ERROR_BODY_WAIT, read_error(body, &mut said)).await;
    said.freeze()
}

async fn read_error(body: &mut Body, said: &mut BytesMut) {
    while let Some(Ok(chunk)) = body.chunk().await {
        let room = ERROR_BYTES_MAX - said.len();
        said.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if said.len() >= ERROR_BYTES_MAX {
            break;
        }
    }
}
