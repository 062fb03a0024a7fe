//! `omega demo`: runs a demonstration of [`crate::demo`] or the table of [`crate::faults`], shows how it goes on, and
//! prints what came of it.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Mutex;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use omega_emulator::Provider;

use crate::cli::interrupt::Stop;
use crate::cli::{Context, Done, Failure, output};
use crate::demo::{self, Demands, Plan, Progress, Run, Settings, Step, Tally, Trace, Unwatched};
use crate::faults;

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct DemoArgs {
    /// Print only JSON: the numbers of the protected run
    #[arg(long)]
    json: bool,
    /// Where chance begins
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How many times faster than it happened the trace is replayed
    #[arg(long, value_name = "N", default_value_t = Settings::TIME_SCALE, conflicts_with = "faults")]
    time_scale: f64,
    /// Another trace to replay: csv or csv.gz with arrival_s, input_tokens, output_tokens
    #[arg(long, value_name = "FILE", conflicts_with = "faults")]
    trace: Option<PathBuf>,
    /// Instead: every fault of the emulator's catalogue, as chat and as stream, with and without a fallback
    #[arg(long)]
    faults: bool,
    /// With --faults: which provider fails
    #[arg(long, value_name = "NAME", default_value = "openai", value_parser = provider, requires = "faults")]
    provider: Provider,
}

const AFTER_HELP: &str = "\
Examples:
  omega demo                       a burst, an outage, failover and recovery; then the same without protection
  omega demo --json | jq .answered_share
  omega demo --trace mine.csv --time-scale 60
  omega demo --faults              what every known failure of a provider comes to

It starts emulated providers in this process and sends real HTTP requests to them over loopback; no key and no
network are needed. Its policies are the specification's defaults, divided by the time scale, and printed; files
and OMEGA_* variables do not change them.

Exit codes: 0 everything held, 1 something did not.";

pub(crate) async fn run(arguments: DemoArgs, context: &mut Context) -> Result<Done, Failure> {
    let mut interrupt = context.interrupt.clone();
    let demonstration = async {
        if arguments.faults { table(&arguments, context).await } else { replay(&arguments, context).await }
    };
    tokio::select! {
        done = demonstration => done,
        stop = interrupt.stopped() => match stop {
            Stop::Interrupted => {
                output::say("interrupted");
                Ok(Done::Interrupted)
            }
            Stop::Terminated => Err(Failure::with_code(143, "terminated")),
        },
    }
}

async fn replay(arguments: &DemoArgs, context: &mut Context) -> Result<Done, Failure> {
    let mut settings =
        Settings { time_scale: arguments.time_scale, seed: arguments.seed, ..Settings::built_in() };
    if let Some(path) = &arguments.trace {
        let bytes = tokio::fs::read(path)
            .await
            .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
        settings.trace = Trace::read(&path.display().to_string(), &bytes)
            .map_err(|error| Failure::usage(format!("{error:#}")))?;
        settings.demands = Demands::NONE;
    } else if arguments.time_scale < Settings::TIME_SCALE {
        // Slower than the default on purpose: it will take longer on purpose.
        settings.demands.wall_seconds = None;
    }
    let plan = Plan::new(&settings.trace, settings.time_scale, settings.seed)
        .map_err(|error| Failure::usage(format!("{error:#}")))?;
    if !arguments.json {
        context.output.line(&demo::render::plan(&plan))?;
        context.output.line("")?;
    }
    let progress = progress(arguments.json, context);
    let report =
        demo::run(&settings, &*progress).await.map_err(|error| Failure::unexpected(format!("{error:#}")))?;
    if arguments.json {
        context.output.json(&report.json())?;
        for check in report.checks.iter().filter(|check| !check.held) {
            output::say(&format!("omega: did not hold: {}; found {}", check.what, check.found));
        }
    } else {
        context.output.line("")?;
        context.output.line(&demo::render::report(&report))?;
    }
    Ok(if report.held() { Done::Well } else { Done::NotHeld })
}

async fn table(arguments: &DemoArgs, context: &mut Context) -> Result<Done, Failure> {
    let settings = faults::Settings {
        provider: arguments.provider,
        seed: arguments.seed,
        ..faults::Settings::default()
    };
    let bar = bar(arguments.json, context);
    let report = faults::run(&settings, &|done, all| {
        if let Some(bar) = &bar {
            bar.set_length(all);
            bar.set_position(done);
            bar.set_message("calls made");
        }
    })
    .await
    .map_err(|error| Failure::unexpected(format!("{error:#}")))?;
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    if arguments.json {
        context.output.json(&report.json())?;
        for check in report.checks.iter().filter(|check| !check.held) {
            output::say(&format!("omega: did not hold: {}; found {}", check.what, check.found));
        }
    } else {
        context.output.line(&faults::render(&report))?;
    }
    Ok(if report.held() { Done::Well } else { Done::NotHeld })
}

fn provider(text: &str) -> Result<Provider, String> {
    Provider::from_name(text)
        .ok_or_else(|| format!("unknown provider `{text}`; known are openai, anthropic, google and grok"))
}

/// A bar on a terminal; plain lines where stderr is a file or a pipe; nothing where only JSON was asked for.
fn progress(json: bool, context: &Context) -> Box<dyn Progress> {
    match bar(json, context) {
        Some(bar) => Box::new(Bar(bar)),
        None if json || context.is_quiet() => Box::new(Unwatched),
        None => Box::new(Lines(Mutex::new(0.0))),
    }
}

fn bar(json: bool, context: &Context) -> Option<ProgressBar> {
    // With --json on a terminal the JSON is probably piped somewhere, and the bar is welcome.
    let watched =
        std::io::stderr().is_terminal() && !context.is_quiet() && !(json && context.output.is_terminal());
    watched.then(|| {
        let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr_with_hz(10));
        let style = ProgressStyle::with_template("{bar:30} {pos:>6}/{len} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        bar
    })
}

struct Bar(ProgressBar);

impl Progress for Bar {
    fn begin(&self, run: Run, plan: &Plan) {
        self.0.set_length(plan.requests);
        self.0.set_position(0);
        self.0.println(title(run));
    }

    fn happened(&self, at_s: f64, what: &str) {
        self.0.println(happened(at_s, what));
    }

    fn step(&self, step: &Step) {
        self.0.set_position(step.requests);
        self.0.set_message(format!(
            "at {:.0} s: {} answered, {} not, {} under way",
            step.at_s, step.answered, step.failed, step.pending
        ));
    }

    fn end(&self, run: Run, tally: &Tally) {
        self.0.println(summary(tally));
        if run == Run::Unprotected {
            self.0.finish_and_clear();
        }
    }
}

/// Plain lines; holds the trace second of the next one.
struct Lines(Mutex<f64>);

impl Lines {
    const EVERY_S: f64 = 50.0;
}

impl Progress for Lines {
    fn begin(&self, run: Run, _: &Plan) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Self::EVERY_S;
        output::say(title(run));
    }

    fn happened(&self, at_s: f64, what: &str) {
        output::say(&happened(at_s, what));
    }

    fn step(&self, step: &Step) {
        let mut next = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if step.at_s >= *next {
            *next = step.at_s + Self::EVERY_S;
            output::say(&format!(
                "  {:6.1} s  {} sent, {} answered, {} not, {} under way",
                step.at_s, step.requests, step.answered, step.failed, step.pending
            ));
        }
    }

    fn end(&self, _: Run, tally: &Tally) {
        output::say(&summary(tally));
    }
}

fn title(run: Run) -> &'static str {
    match run {
        Run::Protected => "protected: limiter, breaker, retries, fallbacks",
        Run::Unprotected => "the same without protection",
    }
}

fn happened(at_s: f64, what: &str) -> String {
    format!("  {at_s:6.1} s  {what}")
}

fn summary(tally: &Tally) -> String {
    format!(
        "  {:6.1} s  all done: {} of {} answered, {} provider 429s",
        tally.ended_s, tally.answered, tally.requests, tally.provider_429s
    )
}
