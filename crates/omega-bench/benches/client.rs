//! What a protected call costs: CPU time per call of `UnifiedLLMClient`, every layer on, against a bare hyper-util
//! client that does the same typed encode and decode, over loopback, in interleaved rounds of one process.
//!
//! `cargo bench -p omega-bench --bench client`. The upstream is a second process, so that only the client's CPU time
//! is counted (the sum of its threads' run time as the kernel reports it; Linux only).
#![allow(clippy::disallowed_methods, reason = "a benchmark pays for the clock it measures")]

use std::convert::Infallible;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use omega_client::UnifiedLLMClient;
use omega_protocol::{
    ChatAccumulator, ChatRequest, ChatResponse, Dialect, Endpoint, EndpointOptions, Message, Streaming,
};

type Failed = Box<dyn Error + Send + Sync>;

/// Calls in one round, after which the contenders swap.
const CALLS: u32 = 2_000;
/// Rounds of each contender; the median is quoted.
const ROUNDS: usize = 9;
/// Text events in a streamed answer: about a short paragraph.
const EVENTS: usize = 40;

fn main() -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if std::env::args().any(|argument| argument == "--upstream") {
        return runtime.block_on(upstream());
    }
    let mut server =
        Command::new(std::env::current_exe()?).arg("--upstream").stdout(Stdio::piped()).spawn()?;
    let mut base = String::new();
    BufReader::new(server.stdout.take().ok_or("the upstream has no stdout")?).read_line(&mut base)?;
    let measured = runtime.block_on(compare(base.trim()));
    server.kill()?;
    server.wait()?;
    measured
}

async fn compare(base: &str) -> Result<(), Failed> {
    println!(
        "CPU time per call in us, median (and range) of {ROUNDS} rounds of {CALLS} calls, one at a time"
    );
    println!("{:<28} {:>22} {:>22} {:>7}", "answer", "bare hyper-util", "UnifiedLLMClient", "ratio");
    for (name, streaming) in [("whole", Streaming::Whole), ("streamed, 40 events", Streaming::Stream)] {
        let bare = Bare::new(base, streaming)?;
        let client = protected(base, streaming)?;
        let (mut plain, mut guarded, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let start = cpu_time()?;
            for _ in 0..CALLS {
                check(&bare.chat(&request()).await?)?;
            }
            let middle = cpu_time()?;
            for _ in 0..CALLS {
                check(&client.chat(request()).await?.response)?;
            }
            let end = cpu_time()?;
            // The first round warms connections, caches and the branch predictor.
            if round > 0 {
                let (a, b) = (per_call(middle - start), per_call(end - middle));
                plain.push(a);
                guarded.push(b);
                ratios.push(b / a);
            }
        }
        println!(
            "{name:<28} {:>22} {:>22} {:>7.2}",
            spread(&mut plain),
            spread(&mut guarded),
            median(&mut ratios)
        );
    }
    Ok(())
}

fn request() -> ChatRequest {
    let question = "Explain in one paragraph why a token bucket may go below zero. ".repeat(16);
    ChatRequest::new("gpt-5.2", [Message::system("Be brief."), Message::user(question)]).max_tokens(256)
}

fn check(answer: &ChatResponse) -> Result<(), Failed> {
    if answer.text().len() < EVENTS { Err("the answer is not whole".into()) } else { Ok(()) }
}

fn protected(base: &str, streaming: Streaming) -> Result<UnifiedLLMClient, Failed> {
    // Limits that never bind: what is measured is the cost of deciding, not of waiting.
    let yaml = format!(
        "rate_limiting: {{openai: {{max_requests_per_minute: 1000000000, max_tokens_per_minute: 1000000000000, max_concurrent_requests: 1000}}}}\n\
         streaming: {{guard_whole_answers: {}}}\n",
        streaming == Streaming::Stream
    );
    let client = UnifiedLLMClient::builder()
        .config_text("bench.yaml", yaml)
        .openai_api_key("sk-bench")
        .base_url("openai", base)
        .build()?;
    Ok(client)
}

/// The least a typed client can do: encode, send on a pooled connection, read, decode.
struct Bare {
    client: Client<HttpConnector, Full<Bytes>>,
    endpoint: Endpoint,
    streaming: Streaming,
}

impl Bare {
    fn new(base: &str, streaming: Streaming) -> Result<Self, Failed> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let endpoint = Endpoint::new(Dialect::OpenAi, base, Some("sk-bench"), EndpointOptions::default())?;
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector), endpoint, streaming })
    }

    async fn chat(&self, request: &ChatRequest) -> Result<ChatResponse, Failed> {
        let provider = Dialect::OpenAi.provider();
        let request = provider.encode_chat(&self.endpoint, request, self.streaming)?.map(Full::new);
        let mut body = self.client.request(request).await?.into_body();
        if self.streaming == Streaming::Whole {
            return Ok(provider.decode_chat(&body.collect().await?.to_bytes())?);
        }
        let (mut decoder, mut whole, mut chunks) =
            (provider.chat_decoder(), ChatAccumulator::new(), Vec::new());
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                decoder.push(&data, &mut chunks)?;
                chunks.drain(..).for_each(|chunk| whole.push(&chunk));
            }
        }
        decoder.finish(&mut chunks)?;
        Ok(whole.finish())
    }
}

/// An upstream that does as little as possible: two canned answers.
async fn upstream() -> Result<(), Failed> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/v1", listener.local_addr()?);
    let (whole, streamed) = (Bytes::from(whole_answer()), Bytes::from(streamed_answer()));
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let (whole, streamed) = (whole.clone(), streamed.clone());
        let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let (whole, streamed) = (whole.clone(), streamed.clone());
            async move {
                let asked = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
                let streams =
                    asked.is_ok_and(|body| body.windows(13).any(|window| window == b"\"stream\":true"));
                let (kind, body) =
                    if streams { ("text/event-stream", streamed) } else { ("application/json", whole) };
                let answer = http::Response::builder().header("content-type", kind).body(Full::new(body));
                Ok::<_, Infallible>(answer.expect("a static header is valid"))
            }
        });
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
        tokio::spawn(async move { drop(connection.await) });
    }
}

const USAGE: &str = r#"{"prompt_tokens":300,"completion_tokens":40,"total_tokens":340}"#;

fn whole_answer() -> String {
    let text = "word ".repeat(EVENTS);
    format!(
        r#"{{"id":"c","object":"chat.completion","created":1,"model":"gpt-5.2","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],"usage":{USAGE}}}"#
    )
}

fn streamed_answer() -> String {
    let chunk = |delta: &str, finish: &str| {
        format!(
            "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-5.2\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}],\"usage\":null}}\n\n"
        )
    };
    let mut stream = chunk(r#"{"role":"assistant","content":""}"#, "null");
    (0..EVENTS).for_each(|_| stream.push_str(&chunk(r#"{"content":"word "}"#, "null")));
    stream.push_str(&chunk("{}", "\"stop\""));
    stream.push_str(&format!(
        "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-5.2\",\"choices\":[],\"usage\":{USAGE}}}\n\ndata: [DONE]\n\n"
    ));
    stream
}

/// The time every thread of this process has spent on a processor.
fn cpu_time() -> Result<Duration, Failed> {
    let mut nanos = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let line = std::fs::read_to_string(task?.path().join("schedstat"))?;
        nanos += line.split(' ').next().ok_or("an empty schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanos))
}

fn per_call(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6 / f64::from(CALLS)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn spread(values: &mut [f64]) -> String {
    let middle = median(values);
    format!("{middle:.1} ({:.1}-{:.1})", values[0], values[values.len() - 1])
}
