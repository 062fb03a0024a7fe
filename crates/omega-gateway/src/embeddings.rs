//! `POST /v1/embeddings`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use omega_client::{Call, RelayedAnswer};

use crate::relay::{self, Arrived, Stopped};
use crate::state::Shared;
use crate::visit::{Kind, Visit};

pub(crate) async fn serve(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (mut visit, arrived) = relay::arrive(&shared, Kind::Embeddings, request).await;
    let answered = match arrived {
        Ok(arrived) => tokio::select! {
            biased;
            answered = embed(&mut visit, arrived) => answered,
            () = shared.abort.given() => Err(relay::stopping()),
        },
        Err(stopped) => Err(stopped),
    };
    match answered {
        Err(stopped) => stopped.end(visit),
        Ok(answer) => relay::whole(answer, visit, None),
    }
}

async fn embed(visit: &mut Visit, arrived: Arrived) -> Result<RelayedAnswer, Stopped> {
    let Arrived { current, key, body, .. } = arrived;
    let request = omega_client::RelayEmbeddings::read(body).map_err(relay::unreadable)?;
    visit.record.asked = request.model().to_owned();
    let pass = match &key {
        Some(key) => {
            relay::may_use(key, request.model(), &current)?;
            relay::turn(key, request.input_tokens(), Some(0)).await?
        }
        None => None,
    };
    visit.calling();
    let mut call = Call::new(request);
    if let Some(key) = key {
        call = call.priority(key.priority).tenant(key.tenant.clone());
    }
    let answer = current.client.relay_embeddings(call).await?;
    if let Some(pass) = pass {
        pass.settle(answer.usage);
    }
    Ok(answer)
}
