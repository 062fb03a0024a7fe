//! `omega completions`: a script that teaches a shell to complete omega's commands and options.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::{Cli, Done, Failure, Output};

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

const AFTER_HELP: &str = "\
Examples:
  source <(omega completions bash)                                   for this shell only
  omega completions zsh > ~/.zfunc/_omega                            for every shell
  omega completions fish > ~/.config/fish/completions/omega.fish";

pub(crate) fn run(arguments: &CompletionsArgs, output: &mut Output) -> Result<Done, Failure> {
    // Into memory first: the generator panics when its writer fails, and a pipe may close.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "omega", &mut script);
    output.write(&String::from_utf8_lossy(&script))?;
    Ok(Done::Well)
}
