//! The whole way from sources to a configuration.

mod callers;
mod documents;
mod environment;
mod found_file;
mod gateway;
mod precedence;
mod problems;
mod table;

use crate::{Arguments, Config, ConfigError, Environment, FileChoice, Loaded, Origin, Sources};

/// Loads `yaml` (as a file that was named) with these variables.
fn load(yaml: &str, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    load_with(yaml, variables, Arguments::default())
}

fn load_with(yaml: &str, variables: &[(&str, &str)], arguments: Arguments) -> Result<Loaded, ConfigError> {
    Config::load(&Sources {
        file: FileChoice::Text { name: String::from("test.yaml"), yaml: String::from(yaml) },
        environment: Environment::from_pairs(variables.iter().copied()),
        arguments,
    })
}

/// The only problem's text.
fn problem(result: Result<Loaded, ConfigError>) -> String {
    let error = result.expect_err("this configuration is wrong");
    assert_eq!(error.problems.len(), 1, "{error}");
    error.to_string()
}

/// The effective value at `path`, and where it came from.
fn setting(loaded: &Loaded, path: &str) -> (serde_json::Value, Origin) {
    let setting = loaded.settings.iter().find(|setting| setting.path == path);
    let setting = setting.unwrap_or_else(|| panic!("there is no setting `{path}`"));
    (setting.value.clone(), setting.origin.clone())
}

/// A directory of one test's own, gone when the test ends.
pub(crate) struct Directory(std::path::PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("omega-config-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
