//! Ctrl-C: the first one asks for an orderly end, the second one ends at once.

use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::cli::{Failure, output};

/// What shells report for a program that SIGINT ended: 128 + 2.
pub(crate) const EXIT_CODE: u8 = 130;

/// Tells when somebody asked the program to stop. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(watch::Receiver<Asked>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Nothing,
    Interrupt,
    Terminate,
}

/// Who asked for the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// A person, with Ctrl-C.
    Interrupted,
    /// A supervisor, with SIGTERM.
    Terminated,
}

impl Interrupt {
    /// Begins to listen. From now on the first Ctrl-C only sets the flag; commands must watch it.
    pub(crate) fn listen(runtime: &Runtime) -> Result<Self, Failure> {
        let (sender, receiver) = watch::channel(Asked::Nothing);
        let _guard = runtime.enter();
        let mut signals = Signals::new()
            .map_err(|error| Failure::unexpected(format!("cannot listen for signals: {error}")))?;
        // The runtime itself owns this task: it lives as long as the program and holds nothing to be cleaned up.
        runtime.spawn(async move {
            let first = signals.next().await;
            let _ = sender.send(first);
            signals.next().await;
            output::say("stopped at once");
            std::process::exit(EXIT_CODE.into());
        });
        Ok(Self(receiver))
    }

    /// Waits until somebody asks for the end.
    pub(crate) async fn stopped(&mut self) -> Stop {
        match self.0.wait_for(|asked| *asked != Asked::Nothing).await {
            Ok(asked) if *asked == Asked::Terminate => Stop::Terminated,
            Ok(_) => Stop::Interrupted,
            // The listening task is gone: nobody can ask any more.
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Interrupt,
            _ = self.terminate.recv() => Asked::Terminate,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Asked {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Asked::Interrupt,
            Err(_) => std::future::pending().await,
        }
    }
}
