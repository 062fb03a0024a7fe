//! `omega keys`: secrets for the callers of a gateway.

use clap::{Args, Subcommand};
use secrecy::ExposeSecret as _;
use serde_json::json;

use crate::cli::{Context, Done, Failure};

#[derive(Debug, Args)]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Make a key: print its secret once, and what to write into the configuration
    New(NewArgs),
}

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
struct NewArgs {
    /// What the key is called in the configuration, in logs and in statistics
    #[arg(long, value_name = "NAME", default_value = "my-program", value_parser = name)]
    name: String,
    /// Let it look at /stats and /metrics and reload the configuration
    #[arg(long)]
    admin: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  omega keys new --name team-a
  omega keys new --name prometheus --admin --json | jq -r .secret

The secret is shown here and kept nowhere: the configuration holds its SHA-256. Whoever reads the configuration cannot
call with it.";

pub(crate) fn run(arguments: &KeysArgs, context: &mut Context) -> Result<Done, Failure> {
    let KeysCommand::New(arguments) = &arguments.command;
    let made = omega_gateway::new_key().map_err(|error| Failure::unexpected(error.to_string()))?;
    let secret = made.secret.expose_secret();
    if arguments.json {
        let said = json!({
            "name": arguments.name, "secret": secret, "hash": made.hash, "admin": arguments.admin,
        });
        context.output.json(&said)?;
        return Ok(Done::Well);
    }
    let admin = if arguments.admin { "\n    admin: true" } else { "" };
    context.output.line(&format!(
        "secret, for the caller (shown once):\n  {secret}\n\nfor the configuration:\nkeys:\n  {}:\n    hash: {}{admin}",
        arguments.name, made.hash
    ))?;
    Ok(Done::Well)
}

/// A name that needs no quotes anywhere.
fn name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic());
    match begins && text.len() <= 64 && text.chars().all(fits) {
        true => Ok(text.to_owned()),
        false => {
            Err(String::from("expected a letter and then letters, digits, `-` and `_`, at most 64 in all"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_needs_no_quotes_in_a_file() {
        assert!(name("team-a_1").is_ok());
        for wrong in ["", "1st", "a b", "a:b", &"a".repeat(65)] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
    }
}
