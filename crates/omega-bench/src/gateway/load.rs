//! A caller that costs as little as can be: requests written as they are, answers read just far enough.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::upstream;

/// The answers of one phase.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// How long each took, in seconds.
    pub seconds: Vec<f64>,
    /// How many went wrong.
    pub failed: usize,
    /// How long the phase took.
    pub elapsed: Duration,
}

/// The streams of one phase.
#[derive(Clone, Debug, Default)]
pub struct Streams {
    /// Until the first bytes of each, in seconds.
    pub first: Vec<f64>,
    /// Between two pieces, in seconds.
    pub gaps: Vec<f64>,
    /// Events in all.
    pub events: usize,
    /// How many did not end as they should.
    pub failed: usize,
}

/// In whose words callers ask.
#[derive(Clone, Copy, Debug)]
pub enum Protocol {
    /// OpenAI's chat completions.
    Chat,
    /// OpenAI's responses.
    Responses,
    /// Anthropic's messages.
    Messages,
    /// Gemini's generateContent.
    GenerateContent,
}

/// The request whose answer is wanted.
fn request(address: SocketAddr, protocol: Protocol, stream: bool) -> Vec<u8> {
    const SYSTEM: &str = "You are a helpful assistant.";
    const USER: &str = "Why is the sky blue? Answer in one sentence.";
    let user = json!({"role": "user", "content": USER});
    let (path, mut body) = match protocol {
        Protocol::Chat => (
            "/v1/chat/completions",
            json!({"model": "gpt-5.2", "max_completion_tokens": 100, "messages": [{"role": "system", "content": SYSTEM}, user]}),
        ),
        Protocol::Responses => (
            "/v1/responses",
            json!({"model": "gpt-5.2", "max_output_tokens": 100, "instructions": SYSTEM, "input": [user]}),
        ),
        Protocol::Messages => (
            "/v1/messages",
            json!({"model": "claude-sonnet-5-5", "max_tokens": 100, "system": SYSTEM, "messages": [user]}),
        ),
        Protocol::GenerateContent => (
            "/v1beta/models/gemini-3.5-flash:streamGenerateContent?alt=sse",
            json!({"generationConfig": {"maxOutputTokens": 100}, "systemInstruction": {"parts": [{"text": SYSTEM}]},
                "contents": [{"role": "user", "parts": [{"text": USER}]}]}),
        ),
    };
    if stream && !matches!(protocol, Protocol::GenerateContent) {
        body["stream"] = true.into();
    }
    let body = body.to_string();
    format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer sk-bench\r\ncontent-type: application/json\r\n\
         accept: application/json\r\nuser-agent: OpenAI/Python 3.54.0\r\nanthropic-version: 2023-06-01\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// One connection after the other.
struct Caller {
    address: SocketAddr,
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Caller {
    async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { address, stream, buffer: Vec::with_capacity(64 * 1024) })
    }

    /// The connection was said to be at its end.
    async fn connect_anew(&mut self) -> io::Result<()> {
        *self = Self::connect(self.address).await?;
        Ok(())
    }

    /// One whole answer.
    async fn ask(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let Some(head) = find(&self.buffer, b"\r\n\r\n") else { continue };
            if !self.buffer.starts_with(b"HTTP/1.1 200") {
                return Err(io::Error::other("not a 200"));
            }
            let is_whole = match length(&self.buffer[..head]) {
                Some(length) => self.buffer.len() >= head + 4 + length,
                None => self.buffer.ends_with(b"0\r\n\r\n"),
            };
            if is_whole {
                if closes(&self.buffer[..head]) {
                    self.connect_anew().await?;
                }
                return Ok(());
            }
        }
    }

    /// One stream; the times of its pieces.
    async fn follow(&mut self, request: &[u8]) -> io::Result<(f64, Vec<f64>, usize)> {
        let began = Instant::now();
        self.stream.write_all(request).await?;
        let (mut first, mut gaps, mut last, mut events) = (None, Vec::new(), began, 0);
        let mut is_last = false;
        let mut tail = Vec::new();
        loop {
            self.buffer.clear();
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let now = Instant::now();
            if let (None, Some(head)) = (first, find(&self.buffer, b"\r\n\r\n")) {
                if !self.buffer.starts_with(b"HTTP/1.1 200") {
                    return Err(io::Error::other("not a 200"));
                }
                is_last |= closes(&self.buffer[..head]);
            }
            let here = count(&self.buffer, b"data: ");
            if here > 0 {
                match first {
                    None => first = Some((now - began).as_secs_f64()),
                    Some(_) => gaps.push((now - last).as_secs_f64()),
                }
                last = now;
                events += here;
            }
            tail.extend_from_slice(&self.buffer);
            let is_whole = upstream::ENDS.iter().any(|end| find(&tail, end.as_bytes()).is_some());
            if is_whole && tail.ends_with(b"0\r\n\r\n") {
                if is_last {
                    self.connect_anew().await?;
                }
                return Ok((first.unwrap_or_default(), gaps, events));
            }
            let keep = tail.len().saturating_sub(1_024);
            tail.drain(..keep);
        }
    }
}

/// Where a part stands first.
pub(super) fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// Whether a head says that its connection ends with its answer.
fn closes(head: &[u8]) -> bool {
    const CLOSE: &[u8] = b"\r\nconnection: close";
    head.windows(CLOSE.len()).any(|part| part.eq_ignore_ascii_case(CLOSE))
}

fn count(text: &[u8], part: &[u8]) -> usize {
    text.windows(part.len()).filter(|window| *window == part).count()
}

/// The length that a head names.
pub(super) fn length(head: &[u8]) -> Option<usize> {
    let head = std::str::from_utf8(head).ok()?.to_ascii_lowercase();
    head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
}

/// As many answers as these many callers can get one after the other.
///
/// # Errors
/// No connection can be made.
pub async fn closed(address: SocketAddr, callers: usize, span: Duration) -> io::Result<Answers> {
    let request = request(address, Protocol::Chat, false);
    let began = Instant::now();
    let mut running = Vec::new();
    for _ in 0..callers {
        let (request, mut caller) = (request.clone(), Caller::connect(address).await?);
        running.push(async move {
            let mut answers = Answers::default();
            while began.elapsed() < span {
                let asked = Instant::now();
                match caller.ask(&request).await {
                    Ok(()) => answers.seconds.push(asked.elapsed().as_secs_f64()),
                    Err(_) => {
                        answers.failed += 1;
                        let Ok(next) = Caller::connect(address).await else { break };
                        caller = next;
                    }
                }
            }
            answers
        });
    }
    Ok(gathered(running, began).await)
}

/// Answers to requests that arrive at a steady rate, whatever becomes of those before.
///
/// # Errors
/// No connection can be made.
pub async fn open(address: SocketAddr, per_second: f64, span: Duration) -> io::Result<Answers> {
    /// Far more than are ever under way at once here.
    const CALLERS: usize = 32;
    let request = request(address, Protocol::Chat, false);
    let began = Instant::now();
    let mut running = Vec::new();
    for number in 0..CALLERS {
        let (request, mut caller) = (request.clone(), Caller::connect(address).await?);
        running.push(async move {
            let mut answers = Answers::default();
            for turn in (number..).step_by(CALLERS) {
                let due = began + Duration::from_secs_f64(turn as f64 / per_second);
                if due > began + span {
                    break;
                }
                tokio::time::sleep_until(due.into()).await;
                let asked = Instant::now();
                match caller.ask(&request).await {
                    Ok(()) => answers.seconds.push(asked.elapsed().as_secs_f64()),
                    Err(_) => answers.failed += 1,
                }
            }
            answers
        });
    }
    Ok(gathered(running, began).await)
}

/// What all callers got, once they are done.
async fn gathered(running: Vec<impl Future<Output = Answers>>, began: Instant) -> Answers {
    let mut all = Answers::default();
    for one in futures_util::future::join_all(running).await {
        all.seconds.extend(one.seconds);
        all.failed += one.failed;
    }
    all.elapsed = began.elapsed();
    all
}

/// Multiples of it modulo 1 are spread evenly however many are taken (the golden ratio's fraction).
const GOLDEN: f64 = 0.618_033_988_749_895;

/// So many streams at once, begun over the length of one; each caller follows this many, one after the other.
///
/// # Errors
/// No connection can be made.
pub async fn streams(
    address: SocketAddr,
    protocol: Protocol,
    count: usize,
    apart: Duration,
    turns: usize,
) -> io::Result<Streams> {
    let request = request(address, protocol, true);
    let mut callers = Vec::new();
    for _ in 0..count {
        callers.push(Caller::connect(address).await?);
    }
    let began = Instant::now();
    let mut running = Vec::new();
    for (number, mut caller) in callers.into_iter().enumerate() {
        let request = request.clone();
        running.push(async move {
            // Spread evenly, but never in step with the pace of the streams: what begins in step beats in step, and the
            // events of half the streams would come at one instant.
            let share = (number as f64 * GOLDEN).fract();
            tokio::time::sleep_until((began + apart.mul_f64(share)).into()).await;
            let mut streams = Streams::default();
            for _ in 0..turns {
                match caller.follow(&request).await {
                    Ok((first, gaps, events)) => {
                        streams.first.push(first);
                        streams.gaps.extend(gaps);
                        streams.events += events;
                    }
                    Err(_) => {
                        streams.failed += 1;
                        break;
                    }
                }
            }
            streams
        });
    }
    let mut all = Streams::default();
    for one in futures_util::future::join_all(running).await {
        all.first.extend(one.first);
        all.gaps.extend(one.gaps);
        all.events += one.events;
        all.failed += one.failed;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_for_its_length() {
        assert_eq!(length(b"HTTP/1.1 200 OK\r\nContent-Length: 12"), Some(12));
        assert_eq!(length(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked"), None);
        assert_eq!((find(b"abcabc", b"ca"), count(b"abcabc", b"bc")), (Some(2), 2));
    }
}
