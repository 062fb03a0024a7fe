//! The command line: what can be said, what is printed, and which exit code says what.
//!
//! Data goes to stdout, everything else to stderr, and meaning never rests on colour alone. Each command lives in a
//! file of its own and ends with [`Done`] or a [`Failure`]; only this file turns those into words and exit codes.

mod chat;
mod check;
mod completions;
mod demo;
mod emulate;
mod interrupt;
mod keys;
mod logging;
mod output;
mod serve;
mod simulate;
mod stats;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use omega_config::{Environment, FileChoice, Sources};

pub(crate) use interrupt::Interrupt;
pub(crate) use output::Output;

/// Protected calls to LLM providers: inside their quotas, alive through their failures.
#[derive(Debug, Parser)]
#[command(name = "omega", version, propagate_version = true, after_help = AFTER_HELP, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// The configuration file [default: $OMEGA_CONFIG, else config/resilience.yaml if there is one]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Common options")]
    config: Option<PathBuf>,
    /// Say more on stderr: -v what happens, -vv why, -vvv everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Common options")]
    verbose: u8,
    /// Say nothing on stderr but errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Common options")]
    quiet: bool,
    /// Which log lines to show, for instance `info` or `omega_client=debug`; wins over -v and -q
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        env = "OMEGA_LOG",
        hide_env_values = true,
        help_heading = "Common options"
    )]
    log: Option<String>,
    /// How log lines are written
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        value_enum,
        default_value_t,
        help_heading = "Common options"
    )]
    log_format: logging::LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ask a model, protected; the answer streams to stdout
    Chat(Box<chat::ChatArgs>),
    /// Check the configuration: what is wrong, what is in force, and where it comes from
    Check(check::CheckArgs),
    /// See every layer work against emulated providers: no key and no network needed
    Demo(demo::DemoArgs),
    /// Pretend to be OpenAI, Anthropic, Google and xAI: quotas, latency and faults over real HTTP
    Emulate(Box<emulate::EmulateArgs>),
    /// Serve OpenAI's, Anthropic's and Gemini's protocols in front of any provider, protected
    Serve(serve::ServeArgs),
    /// Show how a running gateway is doing
    Stats(stats::StatsArgs),
    /// Make keys for the callers of a gateway
    Keys(keys::KeysArgs),
    /// Replay a trace against a modelled provider, in virtual time: what would be answered, waited for and wasted
    Simulate(Box<simulate::SimulateArgs>),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
}

const AFTER_HELP: &str = "\
Examples:
  omega demo                                    see it work; needs no key and no network
  OPENAI_API_KEY=... omega chat \"Hello\"         one protected call
  omega chat --fallback claude-sonnet-5 \"Hi\"    turn to another provider if the first one fails
  omega serve                                   a gateway: protect any program by changing one URL
  omega check --explain                         every setting and where it comes from
  omega emulate --fault openai=overloaded       a provider that is down, to test a program against

Exit codes:
  0    answered, or done
  1    a demonstration did not hold, or something unexpected
  2    the command line is wrong
  3    the configuration cannot be used, or a key is missing
  4    refused by OMEGA: an open circuit or a limit
  5    refused by the provider
  6    timeout, or the provider could not be reached or broke off
  130  interrupted

Variables: OMEGA_CONFIG names the configuration file, OMEGA_LOG the log filter, OMEGA_* any setting
(`omega check --explain` lists them), NO_COLOR switches colours off.";

/// A command did what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// All is well.
    Well,
    /// It ran, and what it was to show did not hold; it has said why.
    NotHeld,
    /// Ctrl-C, and everything is tidied up.
    Interrupted,
}

/// Why a command could not do what it was asked, with the exit code for it.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// Something unexpected.
    pub(crate) fn unexpected(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into() }
    }

    /// The command line is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: 2, message: message.into() }
    }

    /// The configuration cannot be used.
    pub(crate) fn configuration(message: impl Into<String>) -> Self {
        Self { code: 3, message: message.into() }
    }

    /// With an exit code of the table; the message may be empty when everything was said.
    pub(crate) fn with_code(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Writing to stdout failed. A reader that went away (`omega … | head`) is no failure: the program ends quietly.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self { code: 0, message: String::new() },
            _ => Self::unexpected(format!("cannot write to stdout: {error}")),
        }
    }
}

/// What a command works with.
pub(crate) struct Context {
    pub(crate) common: Common,
    pub(crate) output: Output,
    pub(crate) interrupt: Interrupt,
}

impl Context {
    /// The sources of the configuration: the file that was named (or found), this process's environment, no arguments.
    pub(crate) fn sources(&self) -> Sources {
        let file = self.common.config.clone().map_or(FileChoice::Search, FileChoice::Explicit);
        Sources { file, environment: Environment::process(), ..Sources::default() }
    }

    /// Says something on stderr, unless `--quiet`.
    pub(crate) fn note(&self, text: &str) {
        if !self.common.quiet {
            output::say(text);
        }
    }

    pub(crate) fn is_verbose(&self) -> bool {
        self.common.verbose > 0
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.common.quiet
    }
}

/// Runs the program: reads the command line, does what it says, and gives back the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // clap writes help and version to stdout and mistakes to stderr; a reader that went away is no mistake.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match start(cli) {
        Ok(Done::Well) => ExitCode::SUCCESS,
        Ok(Done::NotHeld) => ExitCode::from(1),
        Ok(Done::Interrupted) => ExitCode::from(interrupt::EXIT_CODE),
        Err(failure) => {
            if !failure.message.is_empty() {
                output::say(&format!("omega: {}", failure.message));
            }
            ExitCode::from(failure.code)
        }
    }
}

fn start(cli: Cli) -> Result<Done, Failure> {
    let Cli { common, command } = cli;
    logging::start(&common, matches!(command, Command::Demo(_)))?;
    if let Command::Completions(arguments) = &command {
        return completions::run(arguments, &mut Output::stdout());
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if matches!(command, Command::Serve(_)) {
        // The gateway has workers of its own; what is left to do here is to wait for signals.
        builder.worker_threads(1);
    }
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| Failure::unexpected(format!("cannot start the runtime: {error}")))?;
    let interrupt = Interrupt::listen(&runtime)?;
    let mut context = Context { common, output: Output::stdout(), interrupt };
    let done = runtime.block_on(async {
        match command {
            Command::Chat(arguments) => chat::run(*arguments, &mut context).await,
            Command::Check(arguments) => check::run(&arguments, &mut context),
            Command::Demo(arguments) => demo::run(arguments, &mut context).await,
            Command::Emulate(arguments) => emulate::run(*arguments, &mut context).await,
            Command::Serve(arguments) => serve::run(arguments, &mut context).await,
            Command::Stats(arguments) => stats::run(arguments, &mut context).await,
            Command::Keys(arguments) => keys::run(&arguments, &mut context),
            Command::Simulate(arguments) => simulate::run(*arguments, &mut context).await,
            Command::Completions(arguments) => completions::run(&arguments, &mut context.output),
        }
    });
    // A blocking read of stdin cannot be cancelled; the process must not wait for it.
    runtime.shutdown_background();
    done
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        let failure = Failure::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!((failure.code, failure.message.as_str()), (0, ""));
        let failure = Failure::from(std::io::Error::from(std::io::ErrorKind::StorageFull));
        assert_eq!(failure.code, 1);
    }
}
