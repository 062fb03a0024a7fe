//! The program as people meet it: arguments in; stdout, stderr and exit code out. Providers are emulated in this
//! process, on real sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use omega_emulator::{Emulator, EmulatorConfig, FaultSpec, Rule, Scenario};
use serde_json::Value;

/// The program in an empty directory, without this environment's keys and settings.
fn omega(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_omega"));
    let directory = std::env::temp_dir();
    command.env_clear().current_dir(directory).stdin(Stdio::null()).args(arguments);
    command
}

fn run(command: &mut Command) -> (i32, String, String) {
    shown(command.output().expect("the program starts"))
}

fn shown(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the program prints UTF-8");
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// A file of this test, removed when dropped.
struct TestFile(PathBuf);

impl TestFile {
    fn new(name: &str, content: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("omega-cli-{}-{name}", std::process::id()));
        std::fs::write(&path, content).expect("the temporary directory can be written");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a UTF-8 path")
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// An emulator with a runtime of its own, so that a test may block.
struct World {
    emulator: Option<Emulator>,
    runtime: tokio::runtime::Runtime,
}

impl World {
    fn new() -> Self {
        Self::with_fault(None)
    }

    /// - `fault`: `provider=FAULT`, for every request to it.
    fn with_fault(fault: Option<(&str, &str)>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let mut config = EmulatorConfig::default();
        if let Some((provider, fault)) = fault {
            let mut rule = Rule::new(fault.parse::<FaultSpec>().expect("a fault"));
            rule.provider = omega_emulator::Provider::from_name(provider);
            config.scenario = Scenario { rules: vec![rule], ..Scenario::default() };
        }
        let emulator = runtime.block_on(Emulator::start(config)).expect("the emulator starts");
        Self { emulator: Some(emulator), runtime }
    }

    fn emulator(&self) -> &Emulator {
        self.emulator.as_ref().expect("it lives until dropped")
    }

    /// `omega chat` with every provider emulated and a key for each.
    fn chat(&self, arguments: &[&str]) -> Command {
        let mut command = omega(&["chat"]);
        command.args(arguments);
        for provider in ["openai", "anthropic", "google", "grok"] {
            let variable = format!("OMEGA_PROVIDERS_{}_BASE_URL", provider.to_uppercase());
            command.env(variable, self.emulator().base_url(provider));
        }
        for key in ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "XAI_API_KEY"] {
            command.env(key, "test-key-that-must-not-be-shown");
        }
        command
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(emulator) = self.emulator.take() {
            self.runtime.block_on(emulator.shutdown());
        }
    }
}

#[test]
fn help_explains_every_command_with_examples() {
    let (code, text, _) = run(&mut omega(&["--help"]));
    assert_eq!(code, 0);
    for word in
        ["chat", "check", "demo", "emulate", "completions", "Exit codes:", "130", "NO_COLOR", "OMEGA_LOG"]
    {
        assert!(text.contains(word), "`{word}` is not in\n{text}");
    }
    for (command, words) in [
        ("chat", &["--fallback", "--json", "--no-stream", "--image", "OPENAI_API_KEY", "Exit codes:"][..]),
        ("check", &["--explain", "--schema", "--json"]),
        ("demo", &["--faults", "--seed", "--time-scale", "--trace"]),
        ("emulate", &["--scenario", "--fault", "--list-faults", "--tls", "x-emulate-fault"]),
        ("completions", &["bash", "zsh", "fish"]),
    ] {
        let (code, text, _) = run(&mut omega(&[command, "--help"]));
        assert_eq!(code, 0, "{command}");
        assert!(text.contains("Examples:"), "{command} shows no examples");
        for word in words {
            assert!(text.contains(word), "`{word}` is not in the help of {command}:\n{text}");
        }
    }
    let (code, text, _) = run(&mut omega(&["--version"]));
    assert_eq!((code, text.as_str()), (0, concat!("omega ", env!("CARGO_PKG_VERSION"), "\n")));
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    for arguments in [
        &["chatt"][..],
        &["chat", "--max-tokens", "none", "Hi"],
        &["chat", "--base-url", "http://127.0.0.1", "Hi"],
        &["chat", "--image", "/nonexistent.png", "Hi"],
        &["emulate", "--fault", "openay=hang"],
        &["demo", "--time-scale", "0"],
        &["demo", "--trace", "/nonexistent.csv"],
        &["--log", "a=b=c", "check"],
        &[],
    ] {
        let (code, stdout, stderr) = run(&mut omega(arguments));
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}: {stderr}");
        assert!(!stderr.is_empty(), "{arguments:?}");
    }
    // Nothing to ask: stdin is empty and there is no prompt.
    let (code, _, stderr) = run(&mut omega(&["chat"]));
    assert_eq!(code, 2);
    assert!(stderr.contains("there is nothing to ask"), "{stderr}");
}

#[test]
fn an_answer_goes_to_stdout_as_it_comes_and_nothing_else_does() {
    let world = World::new();
    let (code, stdout, stderr) = run(&mut world.chat(&["Hello out there"]));
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "You said: Hello out there\n", ""));
    let seen = world.emulator().requests();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].stream && seen[0].model == "gpt-5.2", "{seen:?}");

    let (code, stdout, _) = run(&mut world.chat(&["--no-stream", "-m", "claude-sonnet-5", "Hello again"]));
    assert_eq!((code, stdout.as_str()), (0, "You said: Hello again\n"));

    let (code, stdout, stderr) =
        run(&mut world.chat(&["-m", "gpt-4.1", "--max-tokens", "3", "A rather long prompt"]));
    assert_eq!((code, stdout.as_str()), (0, "You said: A \n"));
    assert!(stderr.contains("--max-tokens"), "{stderr}");
}

#[test]
fn json_is_one_object_with_the_story() {
    let world = World::with_fault(Some(("openai", "overloaded")));
    let mut command = world.chat(&["--json", "--fallback", "claude-sonnet-5", "Hello"]);
    command.env("OMEGA_BACKOFF_BASE_DELAY", "0.01").env("OMEGA_BACKOFF_MAX_DELAY", "0.02");
    let (code, stdout, stderr) = run(&mut command);
    assert_eq!(code, 0, "{stderr}");
    let json: Value = serde_json::from_str(&stdout).expect("one JSON object");
    assert_eq!(json["answer"], "You said: Hello");
    assert_eq!(
        (json["provider"].as_str(), json["model"].as_str()),
        (Some("anthropic"), Some("claude-sonnet-5"))
    );
    assert_eq!(json["finish_reason"], "stop");
    assert!(json["queued_ms"].is_u64());
    assert!(json["usage"]["completion_tokens"].as_u64() > Some(0));
    let attempts = json["attempts"].as_array().expect("a list");
    assert_eq!(attempts.len(), 4, "{attempts:?}");
    assert_eq!(
        (attempts[0]["provider"].as_str(), attempts[0]["status"].as_u64()),
        (Some("openai"), Some(503))
    );
    assert_eq!(attempts[3]["outcome"], "answered");
    assert!(stderr.contains("answered by anthropic"), "{stderr}");
    assert!(!stderr.contains("must-not-be-shown"));
}

#[test]
fn piped_text_is_the_prompt_or_follows_it() {
    let world = World::new();
    let ask = |arguments: &[&str], piped: &str| {
        let mut child = world
            .chat(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut stdin = child.stdin.take().expect("it was piped");
        stdin.write_all(piped.as_bytes()).expect("it is read");
        drop(stdin);
        shown(child.wait_with_output().expect("it ends"))
    };
    assert_eq!(ask(&[], "from a pipe\n").1, "You said: from a pipe\n");
    assert_eq!(ask(&["-"], "from a pipe\n").1, "You said: from a pipe\n");
    assert_eq!(ask(&["Explain:"], "the text\n").1, "You said: Explain:\n\nthe text\n");
    assert_eq!(ask(&[], " \n").0, 2);
}

#[test]
fn a_picture_is_sent_and_a_file_that_is_none_is_refused() {
    let world = World::new();
    let picture = TestFile::new("pixel.png", b"\x89PNG\r\n\x1a\n0000");
    let (code, stdout, stderr) = run(&mut world.chat(&["--image", picture.path(), "What is this?"]));
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("Images: 1."), "{stdout}");
    let text = TestFile::new("text.txt", b"no picture");
    let (code, _, stderr) = run(&mut world.chat(&["--image", text.path(), "What is this?"]));
    assert_eq!(code, 2);
    assert!(stderr.contains("none of PNG, JPEG, GIF and WebP"), "{stderr}");
}

#[test]
fn a_missing_key_ends_with_3_and_names_the_variable() {
    let (code, stdout, stderr) = run(&mut omega(&["chat", "Hello"]));
    assert_eq!((code, stdout.as_str()), (3, ""), "{stderr}");
    assert!(stderr.contains("OPENAI_API_KEY") && stderr.contains("omega demo"), "{stderr}");
}

#[test]
fn a_configuration_that_cannot_be_used_ends_with_3() {
    let file = TestFile::new("chat-bad.yaml", b"circuit_breaker:\n  failure_treshold: 3\n");
    let (code, _, stderr) = run(&mut omega(&["--config", file.path(), "chat", "Hello"]));
    assert_eq!(code, 3);
    assert!(stderr.contains("failure_threshold"), "{stderr}");
    let (code, _, stderr) = run(omega(&["chat", "Hello"]).env("OMEGA_MAX_RETRIES", "many"));
    assert_eq!(code, 3);
    assert!(stderr.contains("OMEGA_MAX_RETRIES"), "{stderr}");
}

#[test]
fn a_refusal_by_us_ends_with_4() {
    let world = World::new();
    // A request larger than the limit itself can never go, and is refused without asking anybody.
    let mut command = world.chat(&["--json", "--max-tokens", "5000", "Hello"]);
    command.env("OMEGA_OPENAI_MAX_TPM", "1000");
    let (code, stdout, stderr) = run(&mut command);
    assert_eq!(code, 4, "{stderr}");
    let json: Value = serde_json::from_str(&stdout).expect("one JSON object");
    assert_eq!(
        (json["error"]["kind"].as_str(), json["error"]["origin"].as_str()),
        (Some("rate_limited"), Some("local"))
    );
    assert_eq!(json["error"]["exit_code"], 4);
    assert!(world.emulator().requests().is_empty());
}

#[test]
fn a_refusal_by_the_provider_ends_with_5_and_keeps_its_words() {
    for (fault, word) in [
        ("invalid-request", "400"),
        ("bad-key", "401"),
        ("insufficient-quota", "insufficient_quota"),
        ("context-length", "context_length_exceeded"),
        ("rate-limited:100000", "429"),
    ] {
        let world = World::with_fault(Some(("openai", fault)));
        let (code, stdout, stderr) = run(&mut world.chat(&["--timeout", "5", "Hello"]));
        assert_eq!((code, stdout.as_str()), (5, ""), "{fault}: {stderr}");
        assert!(stderr.contains(word), "{fault}: {stderr}");
        assert!(!stderr.contains("must-not-be-shown"), "{fault}");
    }
}

#[test]
fn silence_and_a_dead_address_end_with_6() {
    let world = World::with_fault(Some(("openai", "hang")));
    let (code, _, stderr) = run(&mut world.chat(&["--timeout", "0.3", "Hello"]));
    assert_eq!(code, 6, "{stderr}");
    // A port that was free a moment ago, and nobody listens on it.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("openai=http://{}/v1", listener.local_addr().expect("an address"));
    drop(listener);
    let (code, _, stderr) = run(&mut world.chat(&["--base-url", &url, "--max-retries", "1", "Hello"]));
    assert_eq!(code, 6, "{stderr}");
}

#[test]
fn a_stream_that_breaks_ends_with_6_and_says_that_the_answer_is_not_complete() {
    let world = World::with_fault(Some(("openai", "cut-after:2")));
    let (code, stdout, stderr) = run(&mut world.chat(&["Hello out there, how are you?"]));
    assert_eq!((code, stdout.as_str()), (6, "You said\n"), "{stderr}");
    assert!(stderr.contains("the answer above is not complete"), "{stderr}");
}

#[test]
fn check_tells_good_files_from_bad_ones() {
    let good = TestFile::new("good.yaml", b"rate_limiting:\n  openai:\n    max_requests_per_minute: 30\n");
    let (code, stdout, _) = run(&mut omega(&["check", good.path()]));
    assert_eq!(code, 0);
    assert!(stdout.contains("the configuration is valid"), "{stdout}");

    let (code, stdout, _) = run(omega(&["check", good.path(), "--explain"]).env("OMEGA_MAX_RETRIES", "2"));
    assert_eq!(code, 0);
    let line = |path: &str| stdout.lines().find(|line| line.starts_with(path)).unwrap_or_default().to_owned();
    assert!(line("rate_limiting.openai.max_requests_per_minute").contains("good.yaml:3"), "{stdout}");
    assert!(line("resilience.max_retries").contains("OMEGA_MAX_RETRIES"), "{stdout}");
    assert!(line("circuit_breaker.failure_threshold").contains("default"), "{stdout}");

    let bad = TestFile::new("bad.yaml", b"circuit_breaker:\n  failure_treshold: 3\n");
    let (code, stdout, stderr) = run(&mut omega(&["check", bad.path()]));
    assert_eq!((code, stdout.as_str()), (3, ""));
    assert!(stderr.contains(":2:3") && stderr.contains("failure_threshold"), "{stderr}");
    let (code, stdout, stderr) = run(&mut omega(&["check", bad.path(), "--json"]));
    let json: Value = serde_json::from_str(&stdout).expect("one JSON object");
    assert_eq!((code, json["valid"].as_bool(), stderr.as_str()), (3, Some(false), ""));
    let (code, ..) = run(&mut omega(&["check", "/nonexistent.yaml"]));
    assert_eq!(code, 3);

    let (code, stdout, _) = run(&mut omega(&["check", "--schema"]));
    let schema: Value = serde_json::from_str(&stdout).expect("a JSON Schema");
    assert_eq!(code, 0);
    assert!(schema["properties"]["circuit_breaker"].is_object());
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, stdout, _) = run(&mut omega(&["completions", shell]));
        assert_eq!(code, 0);
        for word in ["chat", "check", "demo", "emulate", "completions"] {
            assert!(stdout.contains(word), "{shell} does not know {word}");
        }
    }
}

#[test]
fn the_catalogue_of_faults_is_printed_whole() {
    let (code, text, _) = run(&mut omega(&["emulate", "--list-faults"]));
    assert_eq!((code, text.lines().count()), (0, omega_emulator::Fault::ALL.len()));
    let (code, text, _) = run(&mut omega(&["emulate", "--list-faults", "--json"]));
    let json: Value = serde_json::from_str(&text).expect("a JSON list");
    assert_eq!((code, json.as_array().map(Vec::len)), (0, Some(omega_emulator::Fault::ALL.len())));
}

#[cfg(unix)]
fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
    assert!(status.expect("kill exists").success());
}

/// A child process that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(unix)]
#[test]
fn emulate_serves_until_it_is_stopped() {
    for (name, expected) in [("INT", 130), ("TERM", 0)] {
        let mut command =
            omega(&["emulate", "--listen", "127.0.0.1:0", "--json", "--fault", "grok=overloaded"]);
        let child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let mut running = Running(child);
        let mut line = String::new();
        let stdout = running.0.stdout.take().expect("it was piped");
        BufReader::new(stdout).read_line(&mut line).expect("it says where it is");
        let banner: Value = serde_json::from_str(&line).expect("one JSON object");
        let url = |provider: &str| {
            format!("{provider}={}", banner["base_urls"][provider].as_str().expect("an address"))
        };

        let mut chat = omega(&["chat", "--base-url", &url("openai"), "Hello"]);
        let (code, stdout, stderr) = run(chat.env("OPENAI_API_KEY", "k"));
        assert_eq!((code, stdout.as_str()), (0, "You said: Hello\n"), "{stderr}");
        let mut chat =
            omega(&["chat", "-m", "grok-4", "--max-retries", "1", "--base-url", &url("grok"), "Hello"]);
        let (code, _, stderr) = run(chat.env("XAI_API_KEY", "k"));
        assert_eq!(code, 5, "{stderr}");

        signal(&running.0, name);
        let status = running.0.wait().expect("it ends");
        let mut said = String::new();
        running.0.stderr.take().expect("it was piped").read_to_string(&mut said).expect("UTF-8");
        assert_eq!(status.code(), Some(expected), "{said}");
        assert!(said.contains("openai") && said.contains("fault overloaded"), "{said}");
        assert!(said.contains("stopped after 2 requests"), "{said}");
    }
}

/// How many requests an emulator at `url` has seen, asked at its control endpoint.
#[cfg(unix)]
fn requests_seen(url: &str) -> usize {
    let address = url.strip_prefix("http://").expect("plain HTTP");
    let mut stream = std::net::TcpStream::connect(address).expect("it listens");
    let request =
        format!("GET /__emulator/requests HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("UTF-8");
    answer.matches("\"endpoint\"").count()
}

#[cfg(unix)]
#[test]
fn a_second_ctrl_c_does_not_wait_for_running_requests() {
    let mut command = omega(&["emulate", "--listen", "127.0.0.1:0", "--json", "--fault", "hang"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut emulate = Running(child);
    let mut line = String::new();
    BufReader::new(emulate.0.stdout.take().expect("it was piped"))
        .read_line(&mut line)
        .expect("it says where it is");
    let banner: Value = serde_json::from_str(&line).expect("one JSON object");
    let base_url = format!("openai={}", banner["base_urls"]["openai"].as_str().expect("an address"));
    let mut chat = omega(&["chat", "--base-url", &base_url, "Hello"]);
    let chat = chat.env("OPENAI_API_KEY", "k").stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let _chat = Running(chat.expect("the program starts"));
    while requests_seen(banner["url"].as_str().expect("an address")) == 0 {
        std::thread::yield_now();
    }

    signal(&emulate.0, "INT");
    let mut lines = BufReader::new(emulate.0.stderr.take().expect("it was piped")).lines();
    let waiting = lines.by_ref().map(|line| line.expect("UTF-8")).find(|line| line.contains("stopping"));
    assert!(waiting.expect("it says so").contains("waiting for 1 running requests"));
    signal(&emulate.0, "INT");
    assert_eq!(emulate.0.wait().expect("it ends").code(), Some(130));
    assert!(lines.any(|line| line.expect("UTF-8").contains("stopped at once")));
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_call_with_130() {
    let world = World::with_fault(Some(("openai", "stall-after:2")));
    let mut command = world.chat(&["Hello out there, how are you?"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut running = Running(child);
    let mut stdout = running.0.stdout.take().expect("it was piped");
    // Once the answer has begun the program certainly listens for signals.
    let mut begun = [0; 8];
    stdout.read_exact(&mut begun).expect("the answer begins");
    signal(&running.0, "INT");
    assert_eq!(running.0.wait().expect("it ends").code(), Some(130));
    let mut said = String::new();
    running.0.stderr.take().expect("it was piped").read_to_string(&mut said).expect("UTF-8");
    assert!(said.contains("interrupted; the answer above is not complete"), "{said}");
    assert_eq!(&begun, b"You said");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_demonstration_with_130() {
    let mut command = omega(&["demo"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut running = Running(child);
    let stderr = running.0.stderr.take().expect("it was piped");
    let mut lines = BufReader::new(stderr).lines();
    assert!(lines.next().expect("it begins").expect("UTF-8").contains("protected"));
    signal(&running.0, "INT");
    assert_eq!(running.0.wait().expect("it ends").code(), Some(130));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut command = omega(&["check", "--explain"]);
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    // Nobody reads from now on; whatever the program writes after this fails.
    drop(child.stdout.take());
    let (code, _, stderr) = shown(child.wait_with_output().expect("it ends"));
    assert_eq!((code, stderr.as_str()), (0, ""));
}

#[test]
fn the_page_about_the_program_names_every_option() {
    let page = include_str!("../../../docs/cli.md");
    for command in ["chat", "check", "demo", "emulate", "completions"] {
        assert!(page.contains(&format!("## omega {command}")), "docs/cli.md has no part about {command}");
        let (_, help, _) = run(&mut omega(&[command, "--help"]));
        for word in help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')) {
            let is_option =
                word.starts_with("--") && word.len() > 3 && word != "--help" && word != "--version";
            assert!(
                !is_option || page.contains(&format!("`{word}")),
                "docs/cli.md does not name {word} ({command})"
            );
        }
    }
}
