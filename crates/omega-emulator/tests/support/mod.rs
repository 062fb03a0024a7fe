//! A small HTTP client over a raw socket: it shows what is really on the wire, down to how a connection ends.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use omega_emulator::{Emulator, EmulatorConfig};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Nothing here should take long; a hang is what some tests look for.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub async fn healthy() -> Emulator {
    Emulator::start(EmulatorConfig::default()).await.expect("a free port")
}

pub async fn configured(yaml: &str) -> Emulator {
    Emulator::start(EmulatorConfig::from_yaml(yaml).expect("a configuration")).await.expect("a free port")
}

/// How the bytes of a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// As announced: the length was reached, or the last chunk came.
    Complete,
    /// The connection was closed before that.
    Closed,
    /// The connection was reset.
    Reset,
    /// Nothing came for a while.
    Silent,
}

#[derive(Debug)]
pub struct Reply {
    /// 0 if no status line came.
    pub status: u16,
    /// Lower-case names.
    pub headers: Vec<(String, String)>,
    /// De-chunked.
    pub body: Vec<u8>,
    pub end: End,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    /// The JSON of all `data:` lines; `[DONE]` becomes a string.
    pub fn events(&self) -> Vec<Value> {
        self.text()
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .map(|data| serde_json::from_str(data).unwrap_or_else(|_| Value::String(data.to_owned())))
            .collect()
    }

    /// The names of all `event:` lines.
    pub fn event_names(&self) -> Vec<String> {
        self.text().lines().filter_map(|line| line.strip_prefix("event: ")).map(str::to_owned).collect()
    }
}

/// A request under construction.
pub struct Call {
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: String,
    silence: Duration,
    limit: usize,
}

impl Call {
    pub fn get(path: &str) -> Self {
        Self::new("GET", path, String::new())
    }

    pub fn post(path: &str, body: Value) -> Self {
        Self::new("POST", path, body.to_string())
    }

    pub fn new(method: &'static str, path: &str, body: String) -> Self {
        let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        // Every vendor finds its own key among these; the test of two keys sends its own.
        if path.contains("/anthropic/") || path.starts_with("/v1/messages") {
            headers.push(("x-api-key".into(), "test-key".into()));
            headers.push(("anthropic-version".into(), "2023-06-01".into()));
        } else if path.contains("/google/") || path.starts_with("/v1beta") || path.contains(":generate") {
            headers.push(("x-goog-api-key".into(), "test-key".into()));
        } else {
            headers.push(("authorization".into(), "Bearer test-key".into()));
        }
        Self { method, path: path.into(), headers, body, silence: Duration::from_secs(10), limit: usize::MAX }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(key, _)| key != name);
        self
    }

    pub fn fault(self, fault: &str) -> Self {
        self.header("x-emulate-fault", fault)
    }

    /// How long silence must last to count as silence. Long by default: a busy computer is not a silent server.
    pub fn silence(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }

    /// Stops reading after this many bytes.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    pub async fn send(self, address: SocketAddr) -> Reply {
        tokio::time::timeout(PATIENCE, self.exchange(address))
            .await
            .expect("an end within the test's patience")
    }

    async fn exchange(self, address: SocketAddr) -> Reply {
        let mut socket = TcpStream::connect(address).await.expect("the emulator listens");
        let mut head = format!("{} {} HTTP/1.1\r\nhost: emulator\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n{}", self.body.len(), self.body));
        // A refused body may be answered before it is read to its end.
        let _ = socket.write_all(head.as_bytes()).await;
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            if let Some(reply) = parse(&bytes, None) {
                return reply;
            }
            if bytes.len() >= self.limit {
                return parse(&bytes, Some(End::Silent)).expect("an end was given");
            }
            let end = match tokio::time::timeout(self.silence, socket.read(&mut buffer)).await {
                Err(_) => End::Silent,
                Ok(Ok(0)) => End::Closed,
                Ok(Ok(count)) => {
                    bytes.extend_from_slice(&buffer[..count]);
                    continue;
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => End::Reset,
                Ok(Err(error)) => panic!("{error}"),
            };
            return parse(&bytes, Some(end)).expect("an end was given");
        }
    }
}

/// Reads a response. `None`: more bytes are needed (never with an end).
fn parse(bytes: &[u8], end: Option<End>) -> Option<Reply> {
    let Some(split) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return end.map(|end| Reply { status: 0, headers: Vec::new(), body: bytes.to_vec(), end });
    };
    let head = String::from_utf8_lossy(&bytes[..split]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().expect("a status");
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let rest = &bytes[split + 4..];
    let find = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let (body, complete) =
        match find("content-length").map(|length| length.parse::<usize>().expect("a length")) {
            Some(length) => (rest[..length.min(rest.len())].to_vec(), rest.len() >= length),
            None => dechunk(rest),
        };
    match (complete, end) {
        (true, _) => Some(Reply { status, headers, body, end: End::Complete }),
        (false, Some(end)) => Some(Reply { status, headers, body, end }),
        (false, None) => None,
    }
}

fn dechunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(line) = rest.windows(2).position(|window| window == b"\r\n") else { return (body, false) };
        let Ok(size) = usize::from_str_radix(&String::from_utf8_lossy(&rest[..line]), 16) else {
            return (body, false);
        };
        rest = &rest[line + 2..];
        if size == 0 {
            return (body, rest.starts_with(b"\r\n"));
        }
        body.extend_from_slice(&rest[..size.min(rest.len())]);
        if rest.len() < size + 2 {
            return (body, false);
        }
        rest = &rest[size + 2..];
    }
}
