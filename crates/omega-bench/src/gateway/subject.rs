//! Who is measured: started, known by its process, and stopped whatever happens.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::process;

/// A gateway, a proxy, or nothing in between.
pub struct Subject {
    /// Its name in the report.
    pub name: &'static str,
    /// Where callers find it.
    pub address: SocketAddr,
    /// From its start to its first readiness.
    pub ready: Duration,
    /// Memory before anybody called, in bytes.
    pub at_rest: u64,
    child: Option<Child>,
}

impl Subject {
    /// The upstream itself.
    pub fn direct(address: SocketAddr) -> Self {
        Self { name: "direct", address, ready: Duration::ZERO, at_rest: 0, child: None }
    }

    /// Its process; none for the upstream.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts `command` and waits until something answers at its address.
    ///
    /// # Errors
    /// It cannot be started, or is not ready within a minute and a half (some peers take that long).
    pub fn start(name: &'static str, address: SocketAddr, mut command: Command) -> io::Result<Self> {
        command.stderr(Stdio::null());
        Self::spawn(name, address, command)
    }

    /// The same, with what it writes to its standard error in this file.
    ///
    /// # Errors
    /// As [`Subject::start`]; or the file cannot be made.
    pub fn start_logged(
        name: &'static str,
        address: SocketAddr,
        mut command: Command,
        log: &Path,
    ) -> io::Result<Self> {
        command.stderr(std::fs::File::create(log)?);
        Self::spawn(name, address, command)
    }

    fn spawn(name: &'static str, address: SocketAddr, mut command: Command) -> io::Result<Self> {
        const PATIENCE: Duration = Duration::from_secs(90);
        let began = Instant::now();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let mut this = Self { name, address, ready: Duration::ZERO, at_rest: 0, child: Some(child) };
        while std::net::TcpStream::connect(address).is_err() {
            if let Some(ended) = this.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                return Err(io::Error::other(format!("{name} ended at once: {ended}")));
            }
            if began.elapsed() > PATIENCE {
                return Err(io::Error::other(format!("{name} is not ready after {PATIENCE:?}")));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        this.ready = began.elapsed();
        // What it still does by itself, it does now.
        std::thread::sleep(Duration::from_millis(500));
        this.at_rest = this.pid().map_or(0, process::resident);
        Ok(this)
    }

    /// Ends it, orderly if it does so within `patience`; whether it did.
    pub fn end(mut self, patience: Duration) -> bool {
        self.end_within(patience)
    }

    fn end_within(&mut self, patience: Duration) -> bool {
        let Some(mut child) = self.child.take() else { return true };
        // Orderly first: a master process then ends its workers.
        let _ = Command::new("kill").arg(child.id().to_string()).status();
        let began = Instant::now();
        while began.elapsed() < patience {
            if child.try_wait().ok().flatten().is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        let _ = child.wait();
        false
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        self.end_within(Duration::from_secs(3));
    }
}

/// An address of this computer that nobody listens on.
///
/// # Errors
/// There is none.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// nginx as a plain reverse proxy: one worker for each processor, connections to the upstream kept, nothing buffered.
///
/// # Errors
/// It cannot be started.
pub fn nginx(folder: &Path, upstream: SocketAddr) -> io::Result<Subject> {
    let address = free_address()?;
    let folder = folder.join("nginx");
    std::fs::create_dir_all(&folder)?;
    let here = folder.display();
    let config = format!(
        "worker_processes auto; daemon off; pid {here}/pid; error_log /dev/null;\n\
         events {{ worker_connections 8192; }}\n\
         http {{ access_log off; client_body_temp_path {here}/a; proxy_temp_path {here}/b; fastcgi_temp_path {here}/c;\n\
         uwsgi_temp_path {here}/d; scgi_temp_path {here}/e; keepalive_requests 100000000;\n\
         upstream u {{ server {upstream}; keepalive 1024; keepalive_requests 100000000; }}\n\
         server {{ listen {address} backlog=4096; location / {{ proxy_pass http://u; proxy_http_version 1.1;\n\
         proxy_set_header Connection \"\"; proxy_buffering off; }} }} }}\n"
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, config)?;
    let mut command = Command::new("nginx");
    command.arg("-c").arg(file).arg("-p").arg(&folder);
    Subject::start("nginx", address, command)
}

/// HAProxy as a plain reverse proxy.
///
/// # Errors
/// It cannot be started.
pub fn haproxy(folder: &Path, upstream: SocketAddr) -> io::Result<Subject> {
    let address = free_address()?;
    let config = format!(
        "global\n  maxconn 8192\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  \
         http-reuse always\nfrontend f\n  bind {address}\n  default_backend b\nbackend b\n  server u {upstream}\n"
    );
    let file = folder.join("haproxy.cfg");
    std::fs::write(&file, config)?;
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(file);
    Subject::start("haproxy", address, command)
}

/// OMEGA with limits, circuit and metrics on; the limits are out of the way.
///
/// # Errors
/// It cannot be started.
pub fn omega(
    folder: &Path,
    program: &Path,
    workers: Option<usize>,
    upstream: SocketAddr,
) -> io::Result<Subject> {
    let address = free_address()?;
    Subject::start("omega", address, omega_command(folder, program, workers, address, upstream)?)
}

/// What starts `omega serve` at `address`, with every layer on and a quota that never binds.
///
/// # Errors
/// Its configuration cannot be written.
pub fn omega_command(
    folder: &Path,
    program: &Path,
    workers: Option<usize>,
    address: SocketAddr,
    upstream: SocketAddr,
) -> io::Result<Command> {
    let config = format!(
        "providers:\n  openai: {{base_url: 'http://{upstream}/v1'}}\n  anthropic: {{base_url: 'http://{upstream}'}}\n  \
         google: {{base_url: 'http://{upstream}'}}\nrate_limiting:\n  openai: &plenty {{max_requests_per_minute: 100000000, max_tokens_per_minute: 100000000000, \
         max_concurrent_requests: 100000}}\n  anthropic: *plenty\n  google: *plenty\n"
    );
    let file = folder.join("omega.yaml");
    std::fs::write(&file, config)?;
    let mut command = Command::new(program);
    command.arg("serve").arg("--config").arg(file).arg("--listen").arg(address.to_string());
    command.envs(["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"].map(|key| (key, "sk-bench")));
    if let Some(workers) = workers {
        command.arg("--workers").arg(workers.to_string());
    }
    Ok(command)
}

/// LiteLLM's proxy from this virtual environment.
///
/// # Errors
/// It cannot be started.
pub fn litellm(folder: &Path, environment: &Path, upstream: SocketAddr) -> io::Result<Subject> {
    let address = free_address()?;
    let config = format!(
        "model_list:\n  - model_name: gpt-5.2\n    litellm_params: {{model: openai/gpt-5.2, api_base: 'http://{upstream}/v1', api_key: sk-bench}}\n"
    );
    let file = folder.join("litellm.yaml");
    std::fs::write(&file, config)?;
    let mut command = Command::new(environment.join("bin/litellm"));
    command.arg("--config").arg(file).args(["--host", "127.0.0.1", "--port"]).arg(address.port().to_string());
    command.env("LITELLM_LOCAL_MODEL_COST_MAP", "True");
    // It would not start without a key of its own, which nobody here would check.
    command.env("LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY", "true");
    Subject::start("litellm", address, command)
}

/// Where the program is that was built beside this one.
pub fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    // target/release/examples/gateway → target/release/omega
    own.parent().and_then(Path::parent).map(|folder| folder.join("omega")).unwrap_or_default()
}
