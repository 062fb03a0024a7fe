//! How many tokens a request has: asked of a provider that can say, estimated for any other.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use omega_client::{CallerProtocol, Counted, RelayRequest};
use serde_json::json;

use crate::answer;
use crate::relay::{self, Arrived, Stopped};
use crate::state::Shared;
use crate::visit::{Kind, Visit};

/// `POST /v1/messages/count_tokens`.
pub(crate) async fn messages(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    serve(shared, CallerProtocol::Messages, None, request).await
}

/// `POST /v1beta/models/{model}:countTokens`.
pub(crate) async fn gemini(shared: Arc<Shared>, model: String, request: Request) -> Response {
    serve(shared, CallerProtocol::GenerateContent, Some(model), request).await
}

async fn serve(
    shared: Arc<Shared>,
    protocol: CallerProtocol,
    model: Option<String>,
    request: Request,
) -> Response {
    let (mut visit, arrived) = relay::arrive(&shared, Kind::CountTokens(protocol), request).await;
    let counted = match arrived {
        Ok(arrived) => tokio::select! {
            biased;
            counted = count(&mut visit, protocol, model, arrived) => counted,
            () = shared.abort.given() => Err(relay::stopping()),
        },
        Err(stopped) => Err(stopped),
    };
    match counted {
        Err(stopped) => stopped.end(visit),
        Ok(counted) => {
            let body = match counted {
                Counted::Said(body) => body,
                Counted::Estimated(tokens) => match protocol {
                    CallerProtocol::GenerateContent => json!({"totalTokens": tokens}),
                    _ => json!({"input_tokens": tokens}),
                }
                .to_string()
                .into(),
            };
            let mut response = answer::json(StatusCode::OK, body);
            answer::identify(response.headers_mut(), &visit.id);
            visit.finish(StatusCode::OK);
            response
        }
    }
}

async fn count(
    visit: &mut Visit,
    protocol: CallerProtocol,
    model: Option<String>,
    arrived: Arrived,
) -> Result<Counted, Stopped> {
    let Arrived { current, headers, uri, key, body } = arrived;
    // Gemini's SDKs may wrap the request they want counted.
    let mut request = RelayRequest::read(protocol, body).map_err(relay::unreadable)?;
    if let Some(model) = model {
        request = request.model(model);
    }
    request = relay::with_headers(request, protocol, &headers);
    request = relay::with_credential(request, &current, &headers, &uri);
    visit.record.asked.clone_from(&request.envelope().model);
    if let Some(key) = &key {
        relay::may_use(key, &request.envelope().model, &current)?;
        // It costs a request and no tokens.
        if let Some(pass) = relay::turn(key, 0, Some(0)).await? {
            pass.settle(None);
        }
    }
    visit.calling();
    Ok(current.client.count_tokens(request).await?)
}
