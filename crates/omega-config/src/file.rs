//! Which file configures, and its text: bounded, UTF-8, and known whether it was named or merely lay there.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::environment::Environment;
use crate::error::Problem;
use crate::yaml::MAX_BYTES;

/// Where the file layer comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FileChoice {
    /// This file (`--config`); it must exist.
    Explicit(PathBuf),
    /// The file that `OMEGA_CONFIG` names, which must exist; else `config/resilience.yaml` in the working
    /// directory, if there is one.
    #[default]
    Search,
    /// No file.
    None,
    /// This text, under a name for messages. Trusted like a file that was named.
    Text {
        /// What messages call it.
        name: String,
        /// The YAML.
        yaml: String,
    },
}

/// A file's text.
pub(crate) struct FileText {
    /// The name in messages.
    pub(crate) name: String,
    pub(crate) path: Option<PathBuf>,
    pub(crate) text: String,
    /// Nobody named it: it lay in the working directory.
    pub(crate) found: bool,
    /// It is no file but an argument that is written like one.
    pub(crate) is_argument: bool,
}

/// Where a file is looked for when none is named.
pub(crate) const FOUND: &str = "config/resilience.yaml";

/// The text of the chosen file, `None` where there is none to read.
pub(crate) fn read(choice: &FileChoice, environment: &Environment) -> Result<Option<FileText>, Problem> {
    match choice {
        FileChoice::None => Ok(None),
        FileChoice::Text { name, yaml } => Ok(Some(FileText {
            name: name.clone(),
            path: None,
            text: yaml.clone(),
            found: false,
            is_argument: false,
        })),
        FileChoice::Explicit(path) => read_named(path).map(Some),
        FileChoice::Search => match environment.get("OMEGA_CONFIG") {
            Err(_) => Err(Problem::new("OMEGA_CONFIG", "the value is not valid UTF-8")),
            Ok(Some(path)) => read_named(Path::new(path)).map(Some).map_err(|problem| Problem {
                message: format!("{} (named by OMEGA_CONFIG)", problem.message),
                ..problem
            }),
            Ok(None) => read_found(Path::new(FOUND)),
        },
    }
}

fn read_named(path: &Path) -> Result<FileText, Problem> {
    let text = read_text(path).map_err(|failure| match failure {
        Failure::Missing => Problem::new(path.display().to_string(), "there is no such file"),
        Failure::Other(message) => Problem::new(path.display().to_string(), message),
    })?;
    Ok(FileText {
        name: path.display().to_string(),
        path: Some(path.to_path_buf()),
        text,
        found: false,
        is_argument: false,
    })
}

fn read_found(path: &Path) -> Result<Option<FileText>, Problem> {
    // A pipe that lies there would block whoever opens it, so only a regular file counts as found.
    if path.metadata().is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir()) {
        return Err(Problem::new(path.display().to_string(), "this is not a regular file"));
    }
    match read_text(path) {
        Ok(text) => Ok(Some(FileText {
            name: path.display().to_string(),
            path: Some(path.to_path_buf()),
            text,
            found: true,
            is_argument: false,
        })),
        Err(Failure::Missing) => Ok(None),
        Err(Failure::Other(message)) => Err(Problem::new(path.display().to_string(), message)),
    }
}

enum Failure {
    Missing,
    Other(String),
}

/// At most [`MAX_BYTES`] of UTF-8; works for pipes too (`--config <(…)`).
fn read_text(path: &Path) -> Result<String, Failure> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Failure::Missing,
        ErrorKind::PermissionDenied => {
            Failure::Other(String::from("the file cannot be read: permission denied"))
        }
        ErrorKind::IsADirectory => Failure::Other(String::from("this is a directory; name the file in it")),
        _ => Failure::Other(format!("the file cannot be read: {error}")),
    };
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Failure::Other(format!(
            "the file is larger than {} KiB, which no configuration is",
            MAX_BYTES / 1024
        )));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count() + 1;
        Failure::Other(format!("line {line} is not valid UTF-8; save the file as UTF-8"))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::tests::Directory;

    #[test]
    fn a_file_found_by_itself_is_marked_and_its_absence_is_no_problem() {
        let own = Directory::new("found");
        let path = own.path().join("resilience.yaml");
        assert!(read_found(&path).is_ok_and(|file| file.is_none()));
        fs::write(&path, "model: a").unwrap();
        let file = read_found(&path).ok().flatten().expect("the file is there");
        assert!(file.found);
        assert_eq!((file.text.as_str(), file.path.as_deref()), ("model: a", Some(path.as_path())));
    }

    #[test]
    fn a_named_file_and_a_text_are_the_users_own() {
        let own = Directory::new("any");
        let path = own.path().join("any.yaml");
        fs::write(&path, "model: a").unwrap();
        let named = read(&FileChoice::Explicit(path), &Environment::empty()).unwrap().expect("it is there");
        assert!(!named.found);
        let text = FileChoice::Text { name: String::from("t"), yaml: String::new() };
        assert!(!read(&text, &Environment::empty()).unwrap().expect("it is there").found);
        assert!(read(&FileChoice::None, &Environment::empty()).unwrap().is_none());
    }

    #[test]
    fn what_is_no_regular_file_is_not_opened_when_found() {
        let own = Directory::new("directory");
        let directory = read_found(own.path()).err().expect("a directory is no configuration");
        assert!(directory.message.contains("this is a directory"), "{directory}");
        #[cfg(unix)]
        {
            let device = read_found(Path::new("/dev/zero")).err().expect("a device is no configuration");
            assert!(device.message.contains("not a regular file"), "{device}");
            // Named, it is read, up to the bound.
            let named = read_named(Path::new("/dev/zero")).err().expect("it never ends");
            assert!(named.message.contains("larger than"), "{named}");
        }
    }
}
