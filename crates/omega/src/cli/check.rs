//! `omega check`: reads the configuration as a client would and says what is wrong, or what is in force and why.

use std::path::PathBuf;

use clap::Args;
use omega_config::{Config, FileChoice};

use crate::cli::{Context, Done, Failure};

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct CheckArgs {
    /// The file to check [default: the one that --config, OMEGA_CONFIG or the working directory gives]
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    /// Print every setting with its value and where it comes from
    #[arg(long)]
    explain: bool,
    /// Print the JSON Schema of the file, for editors
    #[arg(long, conflicts_with_all = ["explain", "file"])]
    schema: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  omega check                              the configuration a call made here would use
  omega check config/resilience.yaml       this file, with the environment's OMEGA_* over it
  omega check --explain                    every setting: its value and its origin
  omega check --schema > resilience.schema.json

Exit codes: 0 the configuration is valid, 3 it is not.";

pub(crate) fn run(arguments: &CheckArgs, context: &mut Context) -> Result<Done, Failure> {
    if arguments.schema {
        let schema = serde_json::to_string_pretty(&omega_config::schema())
            .map_err(|error| Failure::unexpected(format!("cannot write the schema: {error}")))?;
        context.output.line(&schema)?;
        return Ok(Done::Well);
    }
    let mut sources = context.sources();
    if let Some(file) = &arguments.file {
        sources.file = FileChoice::Explicit(file.clone());
    }
    let result = Config::load(&sources);
    if arguments.json {
        context.output.json(&omega_config::check_json(&result))?;
        return match result {
            Ok(_) => Ok(Done::Well),
            Err(_) => Err(Failure::with_code(3, "")),
        };
    }
    let loaded = result.map_err(|error| {
        let count = error.problems.len();
        let problems = if count == 1 { String::from("1 problem") } else { format!("{count} problems") };
        Failure::configuration(format!("the configuration cannot be used: {problems}\n{error}"))
    })?;
    let text = if arguments.explain {
        omega_config::render_explain(&loaded)
    } else {
        omega_config::render_check(&loaded)
    };
    context.output.line(&text)?;
    Ok(Done::Well)
}
