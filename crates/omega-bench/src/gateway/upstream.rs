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

/// A path that begins with `/at-once` is never paced: for clients that read whole answers as streams. How it ends says
/// the protocol; only OpenAI's chat completions have whole answers.
async fn answer(request: Request<Incoming>) -> Result<Response<Either<Full<Bytes>, Paced>>, Infallible> {
    let path = request.uri().path();
    let is_paced = !path.starts_with("/at-once");
    let (texts, only_streams) = match path.rsplit(['/', ':']).next() {
        Some("responses") => (&RESPONSES, false),
        Some("messages") => (&MESSAGES, false),
        Some("streamGenerateContent") => (&GENERATE_CONTENT, true),
        _ => (&CHAT, false),
    };
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let streams = only_streams || body.windows(13).any(|part| part == b"\"stream\":true");
    let (kind, body) = match streams {
        true if is_paced => ("text/event-stream", Either::Right(Paced::new(texts))),
        true => ("text/event-stream", Either::Left(Full::new(AT_ONCE.clone()))),
        false => ("application/json", Either::Left(Full::new(Bytes::from_static(ANSWER.as_bytes())))),
    };
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", http::HeaderValue::from_static(kind));
    Ok(response)
}

/// What a paced stream consists of.
struct Texts {
    first: Bytes,
    more: Bytes,
    last: Bytes,
}

static CHAT: LazyLock<Texts> = LazyLock::new(|| Texts {
    first: chunk("{\"role\":\"assistant\",\"content\":\"The\"}", "null").into(),
    more: chunk("{\"content\":\" sky\"}", "null").into(),
    last: format!("{}data: [DONE]\n\n", chunk("{}", "\"stop\"")).into(),
});

static RESPONSES: LazyLock<Texts> = LazyLock::new(|| {
    let head = "\"response\":{\"id\":\"resp_68af4030baa48193b0b43b4c2a176a1a0e6967589f080e78\",\"object\":\"response\",\
                \"created_at\":1741570283,\"model\":\"gpt-5.2\",\"output\":[],\"status\":";
    let place = "\"item_id\":\"msg_68af40337e58819392e935fb404414d00e6967589f080e78\",\"output_index\":0,\"content_index\":0";
    let usage = "\"usage\":{\"input_tokens\":19,\"output_tokens\":50,\"total_tokens\":69}";
    let created = named("response.created", &format!("{head}\"in_progress\"}},\"sequence_number\":0"));
    let part = named(
        "response.content_part.added",
        &format!("{place},\"part\":{{\"type\":\"output_text\",\"text\":\"\"}},\"sequence_number\":1"),
    );
    let delta = format!(
        "{place},\"delta\":\" sky\",\"logprobs\":[],\"obfuscation\":\"a4Kx0zPq\",\"sequence_number\":2"
    );
    let done = format!("{place},\"text\":\" sky\",\"sequence_number\":3");
    let end = format!("{head}\"completed\",{usage}}},\"sequence_number\":4");
    Texts {
        first: format!("{created}{part}").into(),
        more: named("response.output_text.delta", &delta).into(),
        last: format!("{}{}", named("response.output_text.done", &done), named("response.completed", &end))
            .into(),
    }
});

static MESSAGES: LazyLock<Texts> = LazyLock::new(|| {
    let start = "\"message\":{\"id\":\"msg_01XFDUDYJgAACzvnptvVoYEL\",\"type\":\"message\",\"role\":\"assistant\",\
                 \"model\":\"claude-sonnet-5-5\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\
                 \"usage\":{\"input_tokens\":19,\"output_tokens\":1}}";
    let block = "\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}";
    let delta = "\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" sky\"}";
    let stop =
        "\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":50}";
    let last = [named("content_block_stop", "\"index\":0"), named("message_delta", stop)].concat();
    Texts {
        first: [named("message_start", start), named("content_block_start", block)].concat().into(),
        more: named("content_block_delta", delta).into(),
        last: format!("{last}event: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n").into(),
    }
});

static GENERATE_CONTENT: LazyLock<Texts> = LazyLock::new(|| {
    let event = |text: &str, end: &str| {
        format!(
            "data: {{\"candidates\": [{{\"content\": {{\"parts\": [{{\"text\": \"{text}\"}}],\"role\": \"model\"}}{end},\"index\": 0}}],\
             \"usageMetadata\": {{\"promptTokenCount\": 19,\"candidatesTokenCount\": 50,\"totalTokenCount\": 69,\
             \"promptTokensDetails\": [{{\"modality\": \"TEXT\",\"tokenCount\": 19}}]}},\
             \"modelVersion\": \"gemini-3.5-flash\",\"responseId\": \"mCg5aKqoBq6Zz7IP\"}}\r\n\r\n"
        )
        .into()
    };
    Texts { first: event("The", ""), more: event(" sky", ""), last: event("", ",\"finishReason\": \"STOP\"") }
});

/// An event that has its type twice, as OpenAI's responses and Anthropic's messages do.
fn named(kind: &str, rest: &str) -> String {
    format!("event: {kind}\ndata: {{\"type\":\"{kind}\",{rest}}}\n\n")
}

/// What stands in the last piece of a paced stream, and in no other.
pub(super) const ENDS: [&str; 4] =
    ["data: [DONE]", "event: response.completed", "event: message_stop", "\"finishReason\": \"STOP\""];

/// One chunk every so often.
struct Paced {
    clock: Interval,
    sent: usize,
    texts: &'static Texts,
}

impl Paced {
    fn new(texts: &'static Texts) -> Self {
        Self { clock: interval(GAP), sent: 0, texts }
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
        let Texts { first, more, last } = self.texts;
        let text = match self.sent {
            0 => first,
            CHUNKS => last,
            _ => more,
        };
        self.sent += 1;
        Poll::Ready(Some(Ok(Frame::data(text.clone()))))
    }
}
