//! Takes up a changed configuration while requests run: validated first, refused as a whole if it is wrong.
//!
//! The *directory* of the file is watched, because editors and Kubernetes replace files instead of writing them; what
//! happens within a moment is taken together.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use crate::error::GatewayError;
use crate::state::Shared;

/// Changes that follow each other within this are one change.
const SETTLED: Duration = Duration::from_millis(200);

/// Reads the configuration again, in a thread that may wait for a disk.
pub(crate) async fn now(shared: &Arc<Shared>, why: &str) -> Result<(), GatewayError> {
    let worker = Arc::clone(shared);
    let reloaded = tokio::task::spawn_blocking(move || worker.reload()).await;
    let reloaded = reloaded.map_err(|error| GatewayError::Worker(std::io::Error::other(error)))?;
    match &reloaded {
        Ok(()) => tracing::info!("configuration reloaded ({why})"),
        Err(error) => {
            shared.metrics.reloaded(false);
            tracing::error!("configuration not reloaded ({why}); what runs goes on as it was: {error}");
        }
    }
    reloaded
}

/// Reloads whenever something changes beside the file, until the gateway stops.
///
/// - `file`: the configuration file in force.
pub(crate) async fn watch(shared: Arc<Shared>, file: std::path::PathBuf) {
    let (sender, mut changes) = mpsc::channel(1);
    let told = move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // One that waits already stands for this one too.
            let _ = sender.try_send(());
        }
    };
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let watching = notify::recommended_watcher(told)
        .and_then(|mut watcher| watcher.watch(folder, RecursiveMode::NonRecursive).map(|()| watcher));
    let _watcher = match watching {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::warn!(
                "cannot watch {}: {error}; changes of the configuration are taken up on SIGHUP or POST /reload",
                folder.display()
            );
            return;
        }
    };
    let mut known = contents(&file).await;
    loop {
        tokio::select! {
            () = shared.stopping.given() => return,
            changed = changes.recv() => if changed.is_none() { return },
        }
        tokio::time::sleep(SETTLED).await;
        let _ = changes.try_recv();
        let found = contents(&file).await;
        // Other files of the folder are none of our business, and a file in the middle of being replaced is not there.
        if found.is_some() && found != known {
            known = found;
            let _ = now(&shared, "the file changed").await;
        }
    }
}

async fn contents(file: &Path) -> Option<Vec<u8>> {
    let file = file.to_owned();
    tokio::task::spawn_blocking(move || std::fs::read(file).ok()).await.ok().flatten()
}
