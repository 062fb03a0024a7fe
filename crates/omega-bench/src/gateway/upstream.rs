//! A provider that costs nothing: short answers at once, streams at a steady pace.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpSocket;
use tokio::time::{Interval, interval};

/// Chunks of one stream.
pub const CHUNKS: usize = 50;
/// Between two of them.
pub const GAP: Duration = Duration::from_millis(20);

/// An ordinary short answer of an OpenAI model.
const ANSWER: &str = r#"{"id":"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG","object":"chat.completion","created":1741570283,"model":"gpt-5.2","choices":[{"index":0,"message":{"role":"assistant","content":"The sky is blue because air scatters short waves.","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29}}"#;

fn chunk(delta: &str, finish: &str) -> String {
    format!(
        "data: {{\"id\":\"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG\",\"object\":\"chat.completion.chunk\",\"created\":1741570283,\
         \"model\":\"gpt-5.2\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":{finish}}}]}}\n\n"
    )
}

/// Serves until the process ends.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve(address: SocketAddr) -> std::io::Result<()> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(4_096)?;
    let tasks = tokio::task::LocalSet::new();
    tasks
        .run_until(async {
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                tokio::task::spawn_local(
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)),
                );
            }
        })
        .await
}

/// The same answer as a stream that is there at once.
static AT_ONCE: LazyLock<Bytes> = LazyLock::new(|| {
    let words = ["The", " sky", " is", " blue", " because", " air", " scatters", " short", " waves", "."];
    let mut events = chunk("{\"role\":\"assistant\",\"content\":\"\"}", "null");
    events.extend(words.map(|word| chunk(&format!("{{\"content\":\"{word}\"}}"), "null")));
    events.push_str(&chunk("{}", "\"stop\""));
    events.push_str("data: [DONE]\n\n");
    events.into()
});

/// A path that begins with `/at-once` is never paced: for clients that read whole answers as streams.
async fn answer(request: Request<Incoming>) -> Result<Response<Either<Full<Bytes>, Paced>>, Infallible> {
    let is_paced = !request.uri().path().starts_with("/at-once");
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let streams = body.windows(13).any(|part| part == b"\"stream\":true");
    let (kind, body) = match streams {
        true if is_paced => ("text/event-stream", Either::Right(Paced::new())),
        true => ("text/event-stream", Either::Left(Full::new(AT_ONCE.clone()))),
        false => ("application/json", Either::Left(Full::new(Bytes::from_static(ANSWER.as_bytes())))),
    };
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", http::HeaderValue::from_static(kind));
    Ok(response)
}

/// One chunk every so often.
struct Paced {
    clock: Interval,
    sent: usize,
}

impl Paced {
    fn new() -> Self {
        Self { clock: interval(GAP), sent: 0 }
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.sent > CHUNKS {
            return Poll::Ready(None);
        }
        ready!(self.clock.poll_tick(cx));
        let text = match self.sent {
            0 => chunk("{\"role\":\"assistant\",\"content\":\"The\"}", "null"),
            CHUNKS => format!("{}data: [DONE]\n\n", chunk("{}", "\"stop\"")),
            _ => chunk("{\"content\":\" sky\"}", "null"),
        };
        self.sent += 1;
        Poll::Ready(Some(Ok(Frame::data(text.into()))))
    }
}
