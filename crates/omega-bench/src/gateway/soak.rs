//! A long run with everything going wrong at once: every fault of the catalogue by chance, callers that leave in the middle,
//! reloads. What is held against the end of it is what a gateway must not lose: memory, permits, sockets, threads.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::subject::{Subject, free_address};
use super::{load, process};

/// How fast the emulator's time runs: what the catalogue lets last seconds lasts tenths.
const TIME_SCALE: f64 = 20.0;
/// How probable each fault of the catalogue is; with all of them, about one request in twelve meets one.
const PROBABILITY: f64 = 0.002;
/// Faults that rightly close a provider for minutes or until somebody acts: with them the run would soon consist of
/// refusals.
const CLOSING: [&str; 10] = [
    "insufficient-quota",
    "billing-not-active",
    "spend-limit",
    "payment-required",
    "per-day-quota",
    "limit-zero",
    "bad-key",
    "forbidden",
    "model-not-found",
    "hostile-retry-after",
];
/// Of a hundred callers, so many leave before their answer is whole.
const LEAVING: u32 = 15;
/// Nothing takes longer here; a caller that waits longer than this has met a gateway that hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the callers met.
#[derive(Clone, Copy, Debug, Default)]
pub struct Met {
    /// Answers that were whole.
    pub answered: u64,
    /// Clear errors.
    pub refused: u64,
    /// Left before the end.
    pub left: u64,
    /// Answers that broke off without a word, or that never came.
    pub broken: u64,
}

/// A look at the gateway from outside.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Since the beginning, in seconds.
    pub at: f64,
    /// Memory, in MiB.
    pub memory: f64,
    /// Open files and sockets.
    pub files: usize,
    /// Threads.
    pub threads: u64,
    /// What the callers have met so far.
    pub met: Met,
}

/// The catalogue as a scenario: every fault, by chance, anywhere.
///
/// # Errors
/// The program cannot say what its catalogue is.
pub fn scenario(program: &Path) -> io::Result<String> {
    let output = Command::new(program).args(["emulate", "--list-faults", "--json"]).output()?;
    let catalogue: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(io::Error::other)?;
    let names = catalogue.as_array().into_iter().flatten().filter_map(|fault| fault["name"].as_str());
    let names = names.filter(|name| !CLOSING.contains(name));
    let mut scenario = "rules:\n".to_owned();
    for name in names {
        let _ = writeln!(scenario, "- {{probability: {PROBABILITY}, fault: {name}}}");
    }
    Ok(scenario)
}

/// The gateway's configuration; `round` makes one differ from the next.
fn configuration(emulator: SocketAddr, round: u64) -> String {
    let limits = format!(
        "{{max_requests_per_minute: {}, max_tokens_per_minute: 1000000000, max_concurrent_requests: {}}}",
        60_000 + round,
        500 + round % 7
    );
    format!(
        "providers:\n  openai: {{base_url: 'http://{emulator}/v1'}}\n  anthropic: {{base_url: 'http://{emulator}'}}\n  \
         google: {{base_url: 'http://{emulator}'}}\n\
         rate_limiting:\n  openai: {limits}\n  anthropic: {limits}\n  google: {limits}\n\
         resilience: {{max_retries: 2}}\nbackoff: {{base_delay: 0.01, max_delay: 0.1}}\n\
         preset: adaptive\nfallbacks: [claude-haiku-4-5, gemini-3-flash, gpt-5.2]\n\
         streaming: {{on_stream_break: continue, first_byte_seconds: 2, first_content_seconds: 2, \
         reasoning_first_content_seconds: 2, gap_seconds: 2}}\n"
    )
}

/// The emulator, and the gateway in front of it.
pub struct House {
    emulator: Subject,
    gateway: Subject,
    file: std::path::PathBuf,
    log: std::path::PathBuf,
    round: u64,
}

impl House {
    /// Starts both.
    ///
    /// # Errors
    /// One of them does not start.
    pub fn start(folder: &Path, program: &Path) -> io::Result<Self> {
        let scenario_file = folder.join("scenario.yaml");
        std::fs::write(&scenario_file, scenario(program)?)?;
        let address = free_address()?;
        let mut command = Command::new(program);
        command.args(["emulate", "--listen"]).arg(address.to_string()).arg("--scenario").arg(scenario_file);
        command.args(["--time-scale", &TIME_SCALE.to_string()]);
        let emulator = Subject::start("emulator", address, command)?;
        let (file, log) = (folder.join("soak.yaml"), folder.join("gateway.log"));
        std::fs::write(&file, configuration(emulator.address, 0))?;
        let address = free_address()?;
        let mut command = Command::new(program);
        command.arg("serve").arg("--config").arg(&file).arg("--listen").arg(address.to_string());
        for key in ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY"] {
            command.env(key, "sk-soak");
        }
        let gateway = Subject::start_logged("omega", address, command, &log)?;
        Ok(Self { emulator, gateway, file, log, round: 0 })
    }

    /// Where callers find it.
    pub fn address(&self) -> SocketAddr {
        self.gateway.address
    }

    /// Changes the configuration: by its file, which is watched, or by a signal as well.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn reload(&mut self) -> io::Result<()> {
        self.round += 1;
        std::fs::write(&self.file, configuration(self.emulator.address, self.round))?;
        if let (Some(pid), true) = (self.gateway.pid(), self.round.is_multiple_of(2)) {
            Command::new("kill").args(["-HUP", &pid.to_string()]).status()?;
        }
        Ok(())
    }

    /// What the operating system says of the gateway now.
    pub fn look(&self, at: f64, met: Met) -> Look {
        let pid = self.gateway.pid().unwrap_or_default();
        let memory = process::resident(pid) as f64 / (1024.0 * 1024.0);
        Look { at, memory, files: process::files(pid), threads: process::threads(pid), met }
    }

    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        self.gateway.pid().is_some_and(|pid| process::threads(pid) > 0)
    }

    /// What it wrote where a panic is written.
    pub fn panics(&self) -> usize {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log).matches("panicked at").count()
    }

    /// The values of `/metrics` by name and labels; see [`sum`].
    ///
    /// # Errors
    /// It does not answer.
    pub async fn metrics(&self) -> io::Result<BTreeMap<String, f64>> {
        let mut stream = TcpStream::connect(self.address()).await?;
        let request =
            format!("GET /metrics HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address());
        stream.write_all(request.as_bytes()).await?;
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await?;
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Ok(lines
            .filter_map(|line| line.rsplit_once(' '))
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect())
    }
}

/// The sum of the metrics whose name and labels begin so.
pub fn sum(metrics: &BTreeMap<String, f64>, start: &str) -> f64 {
    metrics.iter().filter(|(name, _)| name.starts_with(start)).fold(0.0, |sum, (_, value)| sum + value)
}

/// One caller, asking in every protocol until `until`; what it met is added to `met`.
pub async fn caller(address: SocketAddr, seed: u64, until: Instant, met: &std::cell::Cell<Met>) {
    let mut chance = fastrand::Rng::with_seed(seed);
    while Instant::now() < until {
        let leaves = chance.u32(..100) < LEAVING;
        let (request, ends) = request(address, &mut chance);
        let asked = tokio::time::timeout(PATIENCE, ask(address, &request, ends, leaves, &mut chance)).await;
        let mut now = met.get();
        match asked {
            Ok(Ok(Outcome::Answered)) => now.answered += 1,
            Ok(Ok(Outcome::Refused)) => now.refused += 1,
            Ok(Ok(Outcome::Left)) => now.left += 1,
            Ok(Ok(Outcome::Broken) | Err(_)) | Err(_) => now.broken += 1,
        }
        met.set(now);
    }
}

enum Outcome {
    Answered,
    Refused,
    Left,
    Broken,
}

/// A request by chance, and how its stream ends when it is whole; `None` for a whole answer.
fn request(address: SocketAddr, chance: &mut fastrand::Rng) -> (Vec<u8>, Option<&'static str>) {
    let streams = chance.bool();
    let words: Vec<&str> = (0..chance.usize(5..60)).map(|_| *chance.choice(&WORDS).unwrap_or(&"a")).collect();
    let text = words.join(" ");
    let stream = if streams { ",\"stream\":true" } else { "" };
    let messages = format!("\"messages\":[{{\"role\":\"user\",\"content\":\"{text}\"}}]");
    let (path, body, end) = match chance.u32(..4) {
        0 | 1 => {
            ("/v1/chat/completions", format!("{{\"model\":\"gpt-5.2\"{stream},{messages}}}"), "data: [DONE]")
        }
        2 => (
            "/v1/messages",
            format!("{{\"model\":\"claude-haiku-4-5\",\"max_tokens\":200{stream},{messages}}}"),
            "event: message_stop",
        ),
        _ => (
            if streams {
                "/v1beta/models/gemini-3-flash:streamGenerateContent?alt=sse"
            } else {
                "/v1beta/models/gemini-3-flash:generateContent"
            },
            format!("{{\"contents\":[{{\"role\":\"user\",\"parts\":[{{\"text\":\"{text}\"}}]}}]}}"),
            "\"finishReason\"",
        ),
    };
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    ((head + &body).into_bytes(), streams.then_some(end))
}

const WORDS: [&str; 12] =
    ["the", "sky", "is", "blue", "because", "air", "scatters", "short", "waves", "of", "light", "more"];

/// Asks once on a connection of its own.
async fn ask(
    address: SocketAddr,
    request: &[u8],
    ends: Option<&str>,
    leaves: bool,
    chance: &mut fastrand::Rng,
) -> io::Result<Outcome> {
    let mut stream = TcpStream::connect(address).await?;
    if leaves && chance.u32(..4) == 0 {
        // In the middle of its own request.
        stream.write_all(&request[..chance.usize(..request.len())]).await?;
        return Ok(Outcome::Left);
    }
    stream.write_all(request).await?;
    let leaves_after = if leaves { chance.usize(..2_000) } else { usize::MAX };
    if leaves_after < 200 {
        return Ok(Outcome::Left);
    }
    let mut answer = Vec::new();
    while stream.read_buf(&mut answer).await? > 0 {
        if answer.len() > leaves_after {
            return Ok(Outcome::Left);
        }
    }
    let text = String::from_utf8_lossy(&answer);
    let is_refused = !text.starts_with("HTTP/1.1 200");
    let is_whole = match ends {
        // A chunked body that ended as it should.
        Some(_) if !is_refused => text.ends_with("0\r\n\r\n"),
        _ => has_all_of_its_body(&answer),
    };
    Ok(match ends {
        _ if !is_whole => Outcome::Broken,
        _ if is_refused => Outcome::Refused,
        Some(end) if text.contains(end) => Outcome::Answered,
        // A stream that could not be mended says so in its own words.
        Some(_) if text.contains("\"error\"") => Outcome::Refused,
        Some(_) => Outcome::Broken,
        None => Outcome::Answered,
    })
}

fn has_all_of_its_body(answer: &[u8]) -> bool {
    let Some(head) = load::find(answer, b"\r\n\r\n") else { return false };
    load::length(&answer[..head]).is_some_and(|length| answer.len() == head + 4 + length)
}
