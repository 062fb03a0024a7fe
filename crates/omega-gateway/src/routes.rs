//! Which path is whose.

use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, RawQuery, Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::{Method, StatusCode, Uri};
use omega_client::{CallerProtocol, Streaming};

use crate::answer::Refusal;
use crate::relay::{self, InPath};
use crate::state::Shared;
use crate::{count, cross_origin, embeddings, models, status};

/// Every path the gateway knows.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let known = Router::new()
        .route("/v1/chat/completions", post(chat_completions))
        .route("/v1/responses", post(responses))
        .route("/v1/embeddings", post(embeddings::serve))
        .route("/v1/messages", post(messages))
        .route("/v1/messages/count_tokens", post(count::messages))
        .route("/v1/models", get(models::list))
        .route("/v1beta/models", get(models::list))
        .route("/v1/models/{*model}", get(models::one).post(generate_content))
        .route("/v1beta/models/{*model}", get(models::one).post(generate_content))
        .route("/health", get(status::health))
        .route("/ready", get(status::ready))
        .route("/stats", get(status::stats))
        .route("/metrics", get(status::metrics))
        .route("/reload", post(status::reload))
        .route("/openapi.json", get(status::openapi))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method);
    cross_origin::allowed(known, &shared).with_state(shared)
}

/// Serves a call of a model. In a box of its own: the router moves what its handlers return from box to box, and this is
/// kilobytes.
fn serve(
    shared: Arc<Shared>,
    protocol: CallerProtocol,
    in_path: InPath,
    request: Request,
) -> Pin<Box<dyn Future<Output = Response> + Send>> {
    Box::pin(relay::serve(shared, protocol, in_path, request))
}

async fn chat_completions(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    serve(shared, CallerProtocol::ChatCompletions, InPath::default(), request).await
}

async fn responses(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    serve(shared, CallerProtocol::Responses, InPath::default(), request).await
}

async fn messages(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    serve(shared, CallerProtocol::Messages, InPath::default(), request).await
}

/// Gemini's protocol names the model and what to do with it in the path: `models/gemini-3-pro:generateContent`.
async fn generate_content(
    State(shared): State<Arc<Shared>>,
    Path(target): Path<String>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Response {
    let protocol = CallerProtocol::GenerateContent;
    let Some((model, action)) = target.rsplit_once(':') else {
        return no_such_path(request.uri()).answer(protocol, "");
    };
    let as_events = query.iter().flat_map(|query| query.split('&')).any(|pair| pair == "alt=sse");
    let in_path = |streaming| InPath {
        model: Some(model.to_owned()),
        streaming: Some(streaming),
        as_array: streaming == Streaming::Stream && !as_events,
    };
    match action {
        "generateContent" => serve(shared, protocol, in_path(Streaming::Whole), request).await,
        "streamGenerateContent" => serve(shared, protocol, in_path(Streaming::Stream), request).await,
        "countTokens" => count::gemini(shared, model.to_owned(), request).await,
        _ => no_such_path(request.uri()).answer(protocol, ""),
    }
}

/// The protocol somebody speaks who asks for a path that there is not.
fn protocol_of(uri: &Uri) -> CallerProtocol {
    let path = uri.path();
    if path.starts_with("/v1/messages") {
        CallerProtocol::Messages
    } else if path.starts_with("/v1beta/") || path.contains(":generateContent") || path.contains(":stream") {
        CallerProtocol::GenerateContent
    } else {
        CallerProtocol::ChatCompletions
    }
}

fn no_such_path(uri: &Uri) -> Refusal {
    let hint = match uri.path() {
        "/chat/completions" | "/responses" | "/embeddings" | "/models" => {
            "; the base URL of OpenAI's SDKs ends in /v1"
        }
        path if path.starts_with("/v1/v1") => "; the base URL of Anthropic's and Google's SDKs has no /v1",
        _ => "; what there is stands in /openapi.json",
    };
    Refusal::new(StatusCode::NOT_FOUND, "no_such_path", format!("there is nothing at this path{hint}"))
}

async fn unknown(uri: Uri) -> Response {
    no_such_path(&uri).answer(protocol_of(&uri), "")
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let text = format!("this path does not take {method}; see /openapi.json");
    let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", text);
    refusal.answer(protocol_of(&uri), "")
}
