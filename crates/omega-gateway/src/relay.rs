//! A chat request on its way through: read, let in, passed on, answered.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode, Uri};
use omega_client::{
    Call, CallerProtocol, Error, Pass, RelayRequest, Relayed, RelayedAnswer, RequestError, Streaming,
};

use crate::answer::{self, Refusal, Story};
use crate::body::{Framing, StreamBody};
use crate::door::{self, Right};
use crate::intake;
use crate::keys::Key;
use crate::state::{Current, Shared};
use crate::visit::{Kind, Visit};

/// How long a caller may wait for a turn within its own limits. As long as the default of a provider's
/// `max_wait_seconds`.
const TURN_WAIT_MAX: Duration = Duration::from_secs(30);

/// What a path says of a request, for protocols that do not say it in the body.
#[derive(Clone, Debug, Default)]
pub(crate) struct InPath {
    pub(crate) model: Option<String>,
    pub(crate) streaming: Option<Streaming>,
    /// The stream is to be one JSON array instead of server-sent events.
    pub(crate) as_array: bool,
}

/// Why a request ends before anybody was asked.
pub(crate) enum Stopped {
    Refused(Refusal),
    Failed(Error),
}

impl From<Refusal> for Stopped {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Stopped {
    /// Answers, and ends the visit.
    pub(crate) fn end(self, mut visit: Visit) -> Response {
        let protocol = visit.kind.protocol();
        let response = match self {
            Self::Refused(refusal) => {
                visit.record.error = Some((refusal.code, refusal.message.clone()));
                refusal.answer(protocol, &visit.id)
            }
            Self::Failed(error) => {
                visit.failed(&error);
                answer::failed(&error, protocol, &visit.id)
            }
        };
        visit.finish(response.status());
        response
    }
}

/// A request whose body has come, from somebody who was let in.
pub(crate) struct Arrived {
    pub(crate) current: Arc<Current>,
    pub(crate) headers: HeaderMap,
    pub(crate) uri: Uri,
    pub(crate) key: Option<Arc<Key>>,
    pub(crate) body: Bytes,
}

/// Begins a visit: room, door and body, in this order, so that nobody makes us read before we know who it is.
pub(crate) async fn arrive(
    shared: &Arc<Shared>,
    kind: Kind,
    request: Request,
) -> (Visit, Result<Arrived, Stopped>) {
    let current = shared.current();
    let (head, body) = request.into_parts();
    let inside = shared.enter(current.settings.max_requests);
    let is_full = inside.is_none();
    let mut visit = Visit::begin(Arc::clone(shared), kind, &head.headers, inside);
    if is_full {
        let refusal = Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "gateway_overloaded",
            format!("more than {} requests at once (gateway.max_requests)", current.settings.max_requests),
        );
        return (visit, Err(refusal.retry_after(Duration::from_secs(1)).into()));
    }
    let arrived = async {
        let key = door::let_in(shared, &current, &head.headers, &head.uri, Right::Call)?;
        visit.record.key.clone_from(&key);
        door::require_json(&head.headers)?;
        let settings = &current.settings;
        let body = intake::whole(&head.headers, body, settings.max_body_bytes, settings.body_timeout).await?;
        visit.received();
        Ok(Arrived { current: Arc::clone(&current), headers: head.headers, uri: head.uri, key, body })
    };
    let arrived = arrived.await;
    (visit, arrived)
}

/// Serves a chat request in this protocol.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    protocol: CallerProtocol,
    in_path: InPath,
    request: Request,
) -> Response {
    let (mut visit, arrived) = arrive(&shared, Kind::Chat(protocol), request).await;
    let framing = if in_path.as_array { Framing::array() } else { Framing::Events };
    let asked = match arrived {
        Ok(arrived) => ask(&mut visit, protocol, in_path, arrived).await,
        Err(stopped) => Err(stopped),
    };
    let Asked { current, call, pass } = match asked {
        Ok(asked) => asked,
        Err(stopped) => return stopped.end(visit),
    };
    let aborted = shared.abort.clone();
    let every = current.settings.queue_keep_alive.filter(|_| call.request.is_stream());
    let relayed = match every {
        None => tokio::select! {
            biased;
            relayed = current.client.relay(call) => relayed,
            () = aborted.given() => return stopping().end(visit),
        },
        Some(every) => {
            let mut calling: Calling = Box::pin(async move { current.client.relay(call).await });
            tokio::select! {
                biased;
                relayed = &mut calling => relayed,
                () = aborted.given() => return stopping().end(visit),
                // From here on the status is 200, whatever comes.
                () = tokio::time::sleep(every) => {
                    let kind = framing.content_type();
                    let body = StreamBody::waiting(calling, every, framing, visit, pass);
                    return answer::stream(kind, Body::new(body));
                }
            }
        }
    };
    answered(relayed, framing, visit, pass)
}

/// A call under way.
pub(crate) type Calling = Pin<Box<dyn Future<Output = Result<Relayed, Error>> + Send>>;

/// A request that is ready to be passed on.
struct Asked {
    current: Arc<Current>,
    call: Call<RelayRequest>,
    pass: Option<Pass>,
}

/// Reads the request, and waits for the caller's turn within its own limits.
async fn ask(
    visit: &mut Visit,
    protocol: CallerProtocol,
    in_path: InPath,
    arrived: Arrived,
) -> Result<Asked, Stopped> {
    let Arrived { current, headers, uri, key, body } = arrived;
    let mut request = RelayRequest::read(protocol, body).map_err(unreadable)?;
    if let Some(model) = in_path.model {
        request = request.model(model);
    }
    if let Some(streaming) = in_path.streaming {
        request = request.streaming(streaming);
    }
    request = with_headers(request, protocol, &headers);
    request = with_credential(request, &current, &headers, &uri);
    let envelope = request.envelope();
    visit.record.asked.clone_from(&envelope.model);
    visit.record.streams = request.is_stream();
    let pass = match &key {
        Some(key) => {
            let fallbacks = envelope.fallbacks.iter().flatten().map(String::as_str);
            for model in std::iter::once(envelope.model.as_str()).chain(fallbacks) {
                may_use(key, model, &current)?;
            }
            turn(key, envelope.input(&envelope.model).tokens, envelope.max_output_tokens).await?
        }
        None => None,
    };
    visit.calling();
    let mut call = Call::new(request);
    if let Some(key) = key {
        call = call.priority(key.priority).tenant(key.tenant.clone());
    }
    Ok(Asked { current, call, pass })
}

/// Headers of the protocol itself, which a provider that speaks it wants to see.
static PASSED_ON: [HeaderName; 2] =
    [HeaderName::from_static("anthropic-version"), HeaderName::from_static("anthropic-beta")];

/// With the headers of the protocol itself.
pub(crate) fn with_headers(
    mut request: RelayRequest,
    protocol: CallerProtocol,
    headers: &HeaderMap,
) -> RelayRequest {
    for name in PASSED_ON.iter().filter(|_| protocol == CallerProtocol::Messages) {
        if let Some(value) = headers.get(name) {
            request = request.header(name.clone(), value.clone());
        }
    }
    request
}

/// With the caller's own key for the provider, where the operator lets it count.
pub(crate) fn with_credential(
    request: RelayRequest,
    current: &Current,
    headers: &HeaderMap,
    uri: &Uri,
) -> RelayRequest {
    let passes = current.settings.pass_through_keys && current.keys.is_empty();
    match door::secret(headers, uri).filter(|_| passes) {
        Some(secret) => request.credential(secret.into()),
        None => request,
    }
}

pub(crate) fn unreadable(error: RequestError) -> Stopped {
    let refusal = Refusal::new(StatusCode::BAD_REQUEST, "invalid_request", error.message);
    Stopped::Refused(refusal.about(error.field))
}

/// Whether this caller may ask for that model; without one it asks for the configured one.
pub(crate) fn may_use(key: &Key, model: &str, current: &Current) -> Result<(), Stopped> {
    let model = if model.is_empty() { &*current.client.configuration().config.model } else { model };
    match key.may_use(model) {
        true => Ok(()),
        false => {
            let shown: String = model.chars().filter(|c| !c.is_control()).take(100).collect();
            let text = format!("the key `{}` may not use the model `{shown}`", key.name);
            Err(Refusal::new(StatusCode::FORBIDDEN, "model_not_allowed", text).into())
        }
    }
}

/// Waits for the caller's turn within its own limits.
pub(crate) async fn turn(key: &Key, input: u64, output: Option<u64>) -> Result<Option<Pass>, Stopped> {
    match &key.gate {
        Some(gate) => Ok(Some(gate.enter(input, output, key.priority, TURN_WAIT_MAX).await?)),
        None => Ok(None),
    }
}

/// What became of a call, as an answer.
fn answered(relayed: Result<Relayed, Error>, framing: Framing, visit: Visit, pass: Option<Pass>) -> Response {
    match relayed {
        Err(error) => Stopped::Failed(error).end(visit),
        Ok(Relayed::Whole(answer)) => whole(answer, visit, pass),
        Ok(Relayed::Stream(stream)) => {
            let kind = framing.content_type();
            let mut response = answer::stream(kind, Body::empty());
            let story = Story {
                provider: stream.provider(),
                model: stream.model(),
                attempts: stream.attempts(),
                queued: stream.queued(),
                upstream_id: stream.request_id(),
            };
            story.tell(response.headers_mut(), &visit.id);
            *response.body_mut() = Body::new(StreamBody::flowing(stream, framing, visit, pass));
            response
        }
    }
}

/// A whole answer.
pub(crate) fn whole(answer: RelayedAnswer, mut visit: Visit, pass: Option<Pass>) -> Response {
    visit.served_by(&answer.provider, &answer.model, &answer.attempts, answer.queued);
    visit.record.usage = answer.usage;
    if let Some(pass) = pass {
        pass.settle(answer.usage);
    }
    let mut response = answer::json(StatusCode::OK, answer.body);
    let story = Story {
        provider: &answer.provider,
        model: &answer.model,
        attempts: &answer.attempts,
        queued: answer.queued,
        upstream_id: answer.request_id.as_deref(),
    };
    story.tell(response.headers_mut(), &visit.id);
    visit.finish(StatusCode::OK);
    response
}

/// The gateway stops, and this request had its time.
pub(crate) fn stopping() -> Stopped {
    let refusal =
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "gateway_stopping", "the gateway is being stopped");
    Stopped::Refused(refusal.retry_after(Duration::from_secs(1)))
}
