//! A store of the run's own: a Redis server that can be killed, stopped and emptied, or a file.

use std::io;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A server on a port of its own.
#[derive(Debug)]
pub struct Redis {
    child: Child,
    /// Where it is.
    pub port: u16,
}

impl Redis {
    /// Starts one that writes nothing down.
    ///
    /// # Errors
    /// `redis-server` is not installed.
    pub fn start(folder: &Path, port: Option<u16>) -> io::Result<Self> {
        let port = match port {
            Some(port) => port,
            None => TcpListener::bind("127.0.0.1:0")?.local_addr()?.port(),
        };
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--save", "", "--appendonly", "no", "--dir"])
            .arg(folder)
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| {
                io::Error::new(error.kind(), format!("redis-server (apt-get install redis-server): {error}"))
            })?;
        let server = Self { child, port };
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::yield_now();
        }
        Ok(server)
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Its process, for signals.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends one command and reads its answer.
    ///
    /// # Errors
    /// It does not answer.
    pub fn command(&self, words: &[&str]) -> io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        let mut text = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| text.push_str(&format!("${}\r\n{word}\r\n", word.len())));
        stream.write_all(text.as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        signal(self.pid(), "CONT");
        self.kill();
    }
}

/// Sends a process a signal by name.
pub fn signal(pid: u32, name: &str) {
    let mut kill = Command::new("kill");
    let _ = kill.args([&format!("-{name}"), &pid.to_string()]).stderr(Stdio::null()).status();
}
