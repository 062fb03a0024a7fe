//! The numbers that protection has to reach, and what each mechanism contributes to them.
//!
//! ```sh
//! cargo run --release -p omega-sim --example goodput                 # every row, on the four traces
//! cargo run --release -p omega-sim --example goodput -- load faults  # some sections
//! cargo run --release -p omega-sim --example goodput -- --trace mine.csv load
//! ```
//!
//! Sections: `load`, `charges`, `burst`, `faults`, `fleet`, `tenants`, `ablations`. A row names its preset; a figure that
//! misses its bar is marked with `!`, and then the command ends with 1. The bars are those of `docs/simulator.md`.

use std::path::PathBuf;
use std::process::ExitCode;

use omega_config::{Config, Environment, FileChoice, Sources};
use omega_sim::{Charge, Fleet, Policy, Quota, Report, Request, Scenario, Skew, Store, Trace};

const TRACES: [&str; 4] = ["azure2023_code", "azure2023_conv", "servegen_mlarge_d2", "servegen_r1_am"];
const SECTIONS: [&str; 7] = ["load", "charges", "burst", "faults", "fleet", "tenants", "ablations"];
const SECOND: u64 = 1_000_000_000;

type Section = fn(&mut Study) -> Result<(), String>;
/// Variables and their values.
type Settings<'a> = &'a [(&'a str, &'a str)];

fn main() -> ExitCode {
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(missed) => {
            eprintln!("{missed} figures miss their bar");
            ExitCode::FAILURE
        }
        Err(problem) => {
            eprintln!("goodput: {problem}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<u32, String> {
    let mut traces = Vec::new();
    let mut sections = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--trace" {
            let path = arguments.next().ok_or("--trace needs a file")?;
            traces.push(Named::read(PathBuf::from(path))?);
        } else if SECTIONS.contains(&argument.as_str()) {
            sections.push(argument);
        } else {
            return Err(format!("unknown section {argument:?}; known: {}", SECTIONS.join(", ")));
        }
    }
    if traces.is_empty() {
        let home = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../traces");
        for name in TRACES {
            traces.push(Named::read(home.join(format!("{name}.csv.gz")))?);
        }
    }
    let mut study = Study { traces, missed: std::cell::Cell::new(0) };
    let wanted = |name: &str| sections.is_empty() || sections.iter().any(|section| section == name);
    let all: [(&str, Section); 7] = [
        ("load", Study::load),
        ("charges", Study::charges),
        ("burst", Study::burst),
        ("faults", Study::faults),
        ("fleet", Study::fleet),
        ("tenants", Study::tenants),
        ("ablations", Study::ablations),
    ];
    for (name, section) in all {
        if wanted(name) {
            section(&mut study)?;
        }
    }
    Ok(study.missed.get())
}

struct Named {
    name: String,
    trace: Trace,
}

impl Named {
    fn read(path: PathBuf) -> Result<Self, String> {
        let trace = Trace::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Self { name: file.split('.').next().unwrap_or_default().to_owned(), trace })
    }
}

/// A bar: met or not.
#[derive(Clone, Copy)]
enum Bar {
    AtLeast(f64),
    AtMost(f64),
    None,
}

struct Study {
    traces: Vec<Named>,
    missed: std::cell::Cell<u32>,
}

const SPEC: Settings<'static> = &[];
const ADAPTIVE: Settings<'static> = &[("OMEGA_PRESET", "adaptive")];

impl Study {
    /// Up to 1.2 times the quota at least 99 % of the oracle, at twice 98 %; hardly a 429.
    fn load(&mut self) -> Result<(), String> {
        for (preset, settings) in [("spec", SPEC), ("adaptive", ADAPTIVE)] {
            heading(&format!("preset {preset}: % of the oracle (429s per 1,000) by load"));
            let loads = [0.5, 0.9, 1.0, 1.2, 2.0];
            self.table(&loads.map(|load| load.to_string()), |load, scenario| {
                scenario.config = config(settings)?;
                scenario.quota = Quota::Load(loads[load]);
                let (good, most) = match loads[load] {
                    load if load <= 1.0 => (99.0, 1.0),
                    load if load <= 1.2 => (99.0, f64::INFINITY),
                    _ => (98.0, 2.0),
                };
                Ok((Bar::AtLeast(good), Bar::AtMost(most)))
            })?;
        }
        Ok(())
    }

    /// The same under the other charge rules, where what a call will cost is not known when it is let go.
    fn charges(&mut self) -> Result<(), String> {
        for (name, charge) in [("refund", Charge::Refund), ("actual", Charge::Actual)] {
            heading(&format!("preset spec, charge rule {name}: % of the oracle (429s per 1,000) by load"));
            let loads = [0.5, 0.9, 1.0, 1.2, 2.0];
            self.table(&loads.map(|load| load.to_string()), |load, scenario| {
                scenario.config = config(SPEC)?;
                scenario.charge = charge;
                scenario.quota = Quota::Load(loads[load]);
                Ok((Bar::AtLeast(98.5), Bar::AtMost(2.0)))
            })?;
        }
        Ok(())
    }

    /// A provider that shows no limits and whose burst nobody knows.
    fn burst(&mut self) -> Result<(), String> {
        for burst in [10.0, 1.0] {
            heading(&format!(
                "preset spec, unknown burst ({burst} s, no headers): % of the oracle (429s per 1,000) by load"
            ));
            let loads = [0.9, 1.0, 1.2, 2.0];
            self.table(&loads.map(|load| load.to_string()), |load, scenario| {
                scenario.config = config(SPEC)?;
                scenario.blind = true;
                scenario.burst_seconds = burst;
                scenario.quota = Quota::Load(loads[load]);
                // The row names no load: at twice the quota, at least what the study's best candidate reached.
                let good = if loads[load] <= 1.2 { 97.0 } else { 93.8 };
                Ok((Bar::AtLeast(good), Bar::AtMost(10.0)))
            })?;
        }
        Ok(())
    }

    /// Outages, brown-outs and overload, at half of the quota and at five requests per second.
    fn faults(&mut self) -> Result<(), String> {
        let steady = steady(&self.traces);
        self.traces.push(Named { name: String::from("steady 5/s"), trace: steady });
        let result = self.each_fault();
        self.traces.pop();
        result
    }

    fn each_fault(&mut self) -> Result<(), String> {
        for (fault, what) in [
            ("down@600+300", "down for 5 minutes"),
            ("hang@600+300", "silent for 5 minutes"),
            ("brown:0.3@600+1200", "30 % fail for 20 minutes"),
            ("overload:0.7@600+300", "70 % get 529 for 5 minutes"),
        ] {
            heading(&format!("{what}, load 0.5"));
            println!(
                "{:<20} {:<9} {:>9} {:>9} {:>8} {:>12}",
                "trace", "run", "% oracle", "429/1,000", "wasted", "recovered s"
            );
            for at in 0..self.traces.len() {
                let sdk = self.fault_row(at, fault, "sdk", SPEC, Policy::Sdk, None)?;
                self.fault_row(at, fault, "spec", SPEC, Policy::Omega, None)?;
                self.fault_row(at, fault, "adaptive", ADAPTIVE, Policy::Omega, Some(sdk))?;
            }
        }
        Ok(())
    }

    /// `sdk`: what the official SDK reaches, for the row that has bars to meet.
    fn fault_row(
        &mut self,
        at: usize,
        fault: &str,
        name: &str,
        settings: Settings<'_>,
        policy: Policy,
        sdk: Option<f64>,
    ) -> Result<f64, String> {
        let mut scenario = Scenario { policy, quota: Quota::Load(0.5), ..Scenario::default() };
        scenario.config = config(settings)?;
        scenario.faults.push(fault.parse()?);
        let report = simulate(&scenario, &self.traces[at].trace)?;
        let share = report.goodput_of_oracle * 100.0;
        let steady = self.traces[at].name.starts_with("steady");
        let (good, wasted) = match (sdk, fault.split(['@', ':']).next().unwrap_or_default()) {
            (None, _) => (Bar::None, Bar::None),
            // The bars on wasted calls are for five requests per second.
            (_, "down") => (Bar::None, if steady { Bar::AtMost(60.0) } else { Bar::None }),
            (_, "hang") => (Bar::None, if steady { Bar::AtMost(100.0) } else { Bar::None }),
            (_, "brown") => (Bar::AtLeast(99.0), Bar::None),
            (Some(sdk), _) => (Bar::AtLeast(sdk), Bar::None),
        };
        let recovery = match (sdk, fault.starts_with("down") || fault.starts_with("hang")) {
            (Some(_), true) => Bar::AtMost(16.0),
            _ => Bar::None,
        };
        println!(
            "{:<20} {:<9} {:>9} {:>9} {:>8} {:>12}",
            self.traces[at].name,
            name,
            self.judge(share, 2, good),
            self.judge(report.rate_limited_per_1000, 2, Bar::None),
            self.judge(report.wasted_calls as f64, 0, wasted),
            report.recovery_first_s.map_or_else(String::new, |after| self.judge(after, 1, recovery)),
        );
        Ok(share)
    }

    /// Sixty-four clients with one quota.
    fn fleet(&mut self) -> Result<(), String> {
        heading("preset spec, 64 clients, load 1.2: % of the oracle (429s per 1,000)");
        let kinds = ["leases", "store down 5 min", "shared", "static shares", "nobody knows"];
        self.table(&kinds.map(String::from), |kind, scenario| {
            scenario.config = config(SPEC)?;
            scenario.quota = Quota::Load(1.2);
            let fleet = Fleet { clients: 64, ..Fleet::default() };
            let (fleet, bars) = match kind {
                0 => (fleet, (Bar::AtLeast(99.0), Bar::None)),
                1 => {
                    let store_down = Some("600+300".parse()?);
                    (Fleet { store_down, ..fleet }, (Bar::AtLeast(97.0), Bar::AtMost(10.0)))
                }
                2 => (Fleet { store: Store::Shared, ..fleet }, (Bar::AtLeast(99.0), Bar::None)),
                3 => (Fleet { store: Store::Static, skew: Skew::Zipf(1.0), ..fleet }, (Bar::None, Bar::None)),
                _ => (Fleet { store: Store::None, ..fleet }, (Bar::None, Bar::None)),
            };
            scenario.fleet = fleet;
            Ok(bars)
        })
    }

    /// A light tenant beside one that asks for 1.2 times the quota.
    fn tenants(&mut self) -> Result<(), String> {
        heading(
            "a light tenant beside a neighbour of twenty times its size at 1.2 times the quota, preset spec",
        );
        println!(
            "{:<20} {:<12} {:>9} {:>13} {:>13} {:>13}",
            "trace", "run", "% oracle", "light success", "light p99 s", "heavy success"
        );
        for at in 0..self.traces.len() {
            let (trace, load) = with_neighbour(&self.traces[at].trace);
            for fair in [false, true] {
                let mut scenario = Scenario { quota: Quota::Load(load), fair, ..Scenario::default() };
                scenario.config = config(SPEC)?;
                let report = simulate(&scenario, &trace)?;
                let [heavy, light] = report.tenants.as_slice() else {
                    return Err(String::from("two tenants were expected"));
                };
                let bar = |bar| if fair { bar } else { Bar::None };
                let share = report.goodput_of_oracle * 100.0;
                println!(
                    "{:<20} {:<12} {:>9} {:>13} {:>13} {:>13}",
                    self.traces[at].name,
                    if fair { "fair" } else { "first come" },
                    self.judge(share, 2, bar(Bar::AtLeast(97.0))),
                    self.judge(light.success * 100.0, 2, bar(Bar::AtLeast(99.0))),
                    self.judge(light.wait_p99_s, 2, bar(Bar::AtMost(2.0))),
                    self.judge(heavy.success * 100.0, 2, Bar::None),
                );
            }
        }
        Ok(())
    }

    /// Each mechanism switched off, where it matters.
    fn ablations(&mut self) -> Result<(), String> {
        let (down, hang) = ("down@600+300", "hang@600+300");
        let (brown, overload) = ("brown:0.3@600+1200", "overload:0.7@600+300");
        let (plain, unknown) = ("", "1 s, unknown");
        let rows: [(&str, &str, &str, Settings<'_>); 20] = [
            ("load 1.0", "spec", plain, &[]),
            ("load 1.0", "no limiter", plain, &[("OMEGA_RATE_LIMITING_ENABLED", "false")]),
            ("unknown 1 s burst", "spec", unknown, &[]),
            (
                "unknown 1 s burst",
                "no learn_burst",
                unknown,
                &[("OMEGA_RATE_LIMITING_OPENAI_LEARN_BURST", "false")],
            ),
            ("down", "adaptive", down, ADAPTIVE),
            ("down", "no breaker", down, &[ADAPTIVE[0], ("OMEGA_CIRCUIT_BREAKER_ENABLED", "false")]),
            (
                "down",
                "no queue_when_open",
                down,
                &[ADAPTIVE[0], ("OMEGA_CIRCUIT_BREAKER_QUEUE_WHEN_OPEN", "false")],
            ),
            (
                "down",
                "any success resets",
                down,
                &[ADAPTIVE[0], ("OMEGA_CIRCUIT_BREAKER_FRESH_EVIDENCE", "false")],
            ),
            ("hang", "adaptive", hang, ADAPTIVE),
            ("hang", "no breaker", hang, &[ADAPTIVE[0], ("OMEGA_CIRCUIT_BREAKER_ENABLED", "false")]),
            (
                "hang",
                "no learned clock",
                hang,
                &[ADAPTIVE[0], ("OMEGA_STREAMING_LEARNED_WITHOUT_FALLBACK", "false")],
            ),
            ("brown-out", "adaptive", brown, ADAPTIVE),
            ("brown-out", "3 attempts", brown, &[ADAPTIVE[0], ("OMEGA_MAX_RETRIES", "3")]),
            ("brown-out", "5 failures open", brown, &[ADAPTIVE[0], ("OMEGA_CIRCUIT_FAILURE_THRESHOLD", "5")]),
            (
                "brown-out",
                "retry budget 10 %",
                brown,
                &[ADAPTIVE[0], ("OMEGA_RETRY_BUDGET_RATIO", "0.1"), ("OMEGA_RETRY_BUDGET_PER_SECOND", "0")],
            ),
            (
                "brown-out",
                "no learned clock",
                brown,
                &[ADAPTIVE[0], ("OMEGA_STREAMING_LEARNED_WITHOUT_FALLBACK", "false")],
            ),
            ("overload", "adaptive", overload, ADAPTIVE),
            (
                "overload",
                "529 opens the circuit",
                overload,
                &[ADAPTIVE[0], ("OMEGA_CIRCUIT_BREAKER_OVERLOAD_COUNTS", "true")],
            ),
            ("overload", "retry budget 100 %", overload, &[ADAPTIVE[0], ("OMEGA_RETRY_BUDGET_RATIO", "1")]),
            (
                "overload",
                "no ease_off",
                overload,
                &[ADAPTIVE[0], ("OMEGA_RATE_LIMITING_OPENAI_EASE_OFF", "false")],
            ),
        ];
        heading("ablations: % of the oracle (429s per 1,000; wasted calls)");
        print!("{:<18} {:<22}", "scenario", "run");
        self.traces.iter().for_each(|named| print!(" {:>26}", named.name));
        println!();
        for (name, run, trouble, settings) in rows {
            print!("{name:<18} {run:<22}");
            for named in &self.traces {
                let mut scenario = Scenario { quota: Quota::Load(1.0), ..Scenario::default() };
                // Settings of a provider need one that is configured; its burst as for one that is not.
                scenario.provider = String::from("openai");
                let unnamed = ("OMEGA_RATE_LIMITING_OPENAI_BURST_SECONDS", "6");
                scenario.config = config(&[settings, &[unnamed]].concat())?;
                if trouble == unknown {
                    (scenario.blind, scenario.burst_seconds) = (true, 1.0);
                } else if !trouble.is_empty() {
                    scenario.quota = Quota::Load(0.5);
                    scenario.faults.push(trouble.parse()?);
                }
                let report = simulate(&scenario, &named.trace)?;
                let share = report.goodput_of_oracle * 100.0;
                let cell =
                    format!("{share:.2} ({:.1}; {})", report.rate_limited_per_1000, report.wasted_calls);
                print!(" {cell:>26}");
            }
            println!();
        }
        Ok(())
    }

    /// A row per trace and a column per variant; `set` prepares the variant and names its bars.
    fn table(
        &mut self,
        columns: &[String],
        set: impl Fn(usize, &mut Scenario) -> Result<(Bar, Bar), String>,
    ) -> Result<(), String> {
        print!("{:<20}", "trace");
        columns.iter().for_each(|column| print!(" {column:>18}"));
        println!();
        for at in 0..self.traces.len() {
            print!("{:<20}", self.traces[at].name);
            for column in 0..columns.len() {
                let mut scenario = Scenario::default();
                let (good, limited) = set(column, &mut scenario)?;
                let report = simulate(&scenario, &self.traces[at].trace)?;
                let share = self.judge(report.goodput_of_oracle * 100.0, 2, good);
                let limited = self.judge(report.rate_limited_per_1000, 2, limited);
                print!(" {:>18}", format!("{share} ({limited})"));
            }
            println!();
        }
        Ok(())
    }

    /// A figure, marked when it misses its bar.
    fn judge(&self, value: f64, digits: usize, bar: Bar) -> String {
        // What is printed is what is judged.
        let printed = format!("{value:.digits$}");
        let shown: f64 = printed.parse().unwrap_or(value);
        let met = match bar {
            Bar::AtLeast(least) => shown >= least,
            Bar::AtMost(most) => shown <= most,
            Bar::None => true,
        };
        if met {
            return printed;
        }
        self.missed.set(self.missed.get() + 1);
        printed + "!"
    }
}

fn heading(text: &str) {
    println!("\n{text}");
}

fn simulate(scenario: &Scenario, trace: &Trace) -> Result<Report, String> {
    scenario.run(trace, &mut |_| {}).map_err(|error| error.to_string())
}

fn config(variables: Settings<'_>) -> Result<Config, String> {
    let pairs = variables.iter().map(|(name, value)| (String::from(*name), String::from(*value)));
    let environment = Environment::from_pairs(pairs);
    let sources = Sources { file: FileChoice::None, environment, ..Sources::default() };
    Config::load(&sources).map(|loaded| loaded.config).map_err(|error| error.to_string())
}

/// Half an hour of five requests per second, evenly spread by chance, with the sizes of the traces in turn.
fn steady(traces: &[Named]) -> Trace {
    let sizes: Vec<&Request> =
        traces.iter().flat_map(|named| named.trace.requests().iter().step_by(7)).collect();
    let mut chance = fastrand::Rng::with_seed(5);
    let (mut at, mut requests) = (0.0, Vec::new());
    while at < 1_800.0 {
        at += -(1.0 - chance.f64()).ln() / 5.0;
        let size = sizes[chance.usize(..sizes.len())];
        requests.push(Request { arrival: (at * 1e9) as u64, model: 0, tenant: 0, ..*size });
    }
    Trace::from_requests(requests)
}

/// The trace as one heavy tenant, and a light one of a twentieth of its requests, evenly spread by chance; and the load at which
/// the heavy one alone asks for 1.2 times the quota.
fn with_neighbour(heavy: &Trace) -> (Trace, f64) {
    let tokens = |requests: &[Request]| -> f64 {
        let most = f64::from(heavy.max_tokens());
        requests.iter().map(|request| f64::from(request.input_tokens) + most).sum()
    };
    let mut requests: Vec<Request> =
        heavy.requests().iter().map(|request| Request { tenant: 0, ..*request }).collect();
    let alone = tokens(&requests);
    let mut chance = fastrand::Rng::with_seed(7);
    let per_second = heavy.requests().len() as f64 / (heavy.span() as f64 / 1e9) / 20.0;
    let mut at = 0.0;
    loop {
        at += -(1.0 - chance.f64()).ln() / per_second;
        let arrival = (at * SECOND as f64) as u64;
        if arrival >= heavy.span() {
            break;
        }
        let size = heavy.requests()[chance.usize(..heavy.requests().len())];
        requests.push(Request { arrival, tenant: 1, ..size });
    }
    let load = 1.2 * tokens(&requests) / alone;
    (Trace::from_requests(requests), load)
}
