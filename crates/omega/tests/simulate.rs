//! `omega simulate` as people meet it: arguments in; stdout, stderr, files and exit code out.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

fn trace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../traces/azure2023_demo.csv.gz")
}

/// Runs the program on the trace of the repository, without this environment's settings.
fn simulate(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_omega"));
    command.env_clear().current_dir(std::env::temp_dir()).stdin(Stdio::null());
    command.arg("simulate").arg("--trace").arg(trace()).args(arguments);
    let output = command.output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the program prints UTF-8");
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

fn json(arguments: &[&str]) -> Value {
    let (code, stdout, stderr) = simulate(&[arguments, &["--json"]].concat());
    assert_eq!((code, stderr.as_str()), (0, ""));
    serde_json::from_str(&stdout).expect("one JSON value")
}

/// A file of this test, removed when dropped.
struct TestFile(PathBuf);

impl TestFile {
    fn new(name: &str, content: &str) -> Self {
        let path = std::env::temp_dir().join(format!("omega-simulate-{}-{name}", std::process::id()));
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

#[test]
fn a_trace_and_nothing_else_is_enough_for_a_table() {
    let (code, stdout, stderr) = simulate(&[]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    for word in ["policy", "omega", "answered in time", "429s per 1,000", "wait p50 / p99", "tenant"] {
        assert!(stdout.contains(word), "{word} is missing:\n{stdout}");
    }
}

#[test]
fn the_same_arguments_print_the_same_bytes_and_another_seed_does_not() {
    let arguments = ["--load", "1.3", "--fault", "brown:0.4@60+60", "--json"];
    let first = simulate(&arguments);
    assert_eq!(first, simulate(&arguments));
    assert_ne!(first.1, simulate(&[arguments.as_slice(), &["--seed", "2"]].concat()).1);
}

#[test]
fn json_is_one_object_or_a_row_for_each_policy() {
    let one = json(&["--load", "1.2"]);
    assert_eq!(one["policy"], "omega");
    assert_eq!(
        one["requests"].as_u64(),
        one["tenants"][0]["requests"]
            .as_u64()
            .zip(one["tenants"][1]["requests"].as_u64())
            .map(|(a, b)| a + b)
    );
    let rows = json(&["--load", "1.2", "--policy", "none,oracle"]);
    assert_eq!((&rows[0]["name"], &rows[1]["name"]), (&Value::from("none"), &Value::from("oracle")));
    assert_eq!(rows[1]["goodput_of_oracle"], 1.0);
    assert!(rows[0]["rate_limited_per_1000"].as_f64() > Some(0.0));
}

#[test]
fn every_part_of_the_provider_can_be_set() {
    let report = json(&[
        "--rpm",
        "700",
        "--tpm",
        "90000",
        "--burst-seconds",
        "10",
        "--charge",
        "actual",
        "--blind",
        "--free-429",
        "--max-tokens",
        "512",
        "--deadline",
        "20",
    ]);
    assert_eq!(report["requests_per_minute"], 700);
    assert_eq!(report["tokens_per_minute"], 90_000);
    assert_eq!(report["burst_seconds"], 10.0);
    assert_eq!(report["charge"], "actual");
    assert_eq!(report["max_tokens"], 512);
    assert_eq!(report["deadline_s"], 20.0);
}

#[test]
fn a_fleet_without_a_store_is_told_off_by_the_provider() {
    let fleet = ["--clients", "16", "--load", "1.2", "--skew", "zipf"];
    let shared = json(&[fleet.as_slice(), &["--store-down", "100+50"]].concat());
    let apart = json(&[fleet.as_slice(), &["--store", "none"]].concat());
    assert!(apart["rate_limited_per_1000"].as_f64() > shared["rate_limited_per_1000"].as_f64());
}

#[test]
fn configurations_are_compared_by_their_files() {
    let cautious = TestFile::new("cautious.yaml", "resilience:\n  max_retries: 1\n");
    let plain = TestFile::new("plain.yaml", "resilience:\n  max_retries: 3\n");
    let rows = json(&["--fault", "overload:0.5@50+100", "--compare", cautious.path(), plain.path()]);
    assert_eq!(
        (&rows[0]["name"], &rows[1]["name"]),
        (&Value::from(cautious.path()), &Value::from(plain.path()))
    );
    assert!(rows[0]["upstream_calls"].as_u64() < rows[1]["upstream_calls"].as_u64(), "{rows}");
}

#[test]
fn the_report_is_one_page_with_plots() {
    let page = TestFile::new("report.html", "");
    let (code, _, stderr) = simulate(&["--fault", "down@100+30", "--report", page.path()]);
    assert_eq!(code, 0);
    assert_eq!(stderr, format!("the report is in {}\n", page.path()));
    let html = std::fs::read_to_string(&page.0).expect("it was written");
    assert!(
        html.starts_with("<!doctype html>") && html.contains("Circuit breaker") && html.contains("</svg>")
    );
}

#[test]
fn limits_are_suggested_for_a_goal_and_not_where_quota_is_not_the_trouble() {
    let found = json(&["--suggest", "--goal", "0.95"]);
    assert!(found["tokens_per_minute"].as_u64() > Some(0));
    assert!(found["report"]["good"].as_f64() >= found["report"]["requests"].as_f64().map(|all| all * 0.95));
    let (code, stdout, stderr) = simulate(&["--suggest", "--fault", "down@0+99999"]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("no quota reaches this goal"), "{stderr}");
}

#[test]
fn what_is_wrong_is_said_with_an_exit_code_of_2() {
    for (arguments, said) in [
        (&["--fault", "melt"][..], "down@600+300"),
        (&["--policy", "luck"], "known are omega"),
        (&["--load", "0"], "the load must be above 0"),
        (&["--rpm", "5"], "--tpm"),
        (&["--clients", "0"], "0 is not in"),
        (&["--store", "static", "--store-down", "1+1"], "only a shared store"),
        (&["--provider", "nobody"], "unknown provider `nobody`"),
        (&["--suggest", "--policy", "none,sdk"], "name one"),
    ] {
        let (code, stdout, stderr) = simulate(arguments);
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}: {stderr}");
        assert!(stderr.contains(said), "{arguments:?}: {stderr}");
    }
}

#[test]
fn a_broken_trace_is_named_with_its_line() {
    let broken = TestFile::new("broken.csv", "arrival_s,input_tokens,output_tokens\n0,1,2\n1,two,3\n");
    let mut command = Command::new(env!("CARGO_BIN_EXE_omega"));
    command.env_clear().current_dir(std::env::temp_dir()).args(["simulate", "--trace", broken.path()]);
    let output = command.output().expect("the program starts");
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(stderr, format!("omega: {}: line 3: input_tokens is not a number: \"two\"\n", broken.path()));
}

#[test]
fn the_page_about_the_simulator_names_every_option() {
    let page = include_str!("../../../docs/simulator.md");
    let (_, help, _) = simulate(&["--help"]);
    for word in help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')) {
        let is_option = word.starts_with("--") && word.len() > 3;
        let is_common =
            ["--help", "--version", "--verbose", "--quiet", "--log", "--log-format"].contains(&word);
        assert!(
            !is_option || is_common || page.contains(&format!("`{word}")),
            "docs/simulator.md does not name {word}"
        );
    }
}
