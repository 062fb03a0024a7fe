//! The way to the store, on which everything can go wrong: passes bytes on, holds them up, or swallows them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Every byte is held up for so many milliseconds; at [`SWALLOWS`] none ever arrives.
#[derive(Clone, Debug, Default)]
pub struct Mood(Arc<AtomicU64>);

/// Nothing gets through, and nobody is told.
pub const SWALLOWS: u64 = u64::MAX;

impl Mood {
    /// From now on.
    pub fn set(&self, milliseconds: u64) {
        self.0.store(milliseconds, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Opens a way to `port` of this machine, and says at which port it begins.
///
/// # Errors
/// There is no port to be had.
pub async fn open(port: u16, mood: Mood) -> io::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let here = listener.local_addr()?.port();
    let mut ways = tokio::task::JoinSet::new();
    let accepting = async move {
        while let Ok((near, _)) = listener.accept().await {
            let mood = mood.clone();
            ways.spawn(async move {
                let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                let _ = (near.set_nodelay(true), far.set_nodelay(true));
                let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
                tokio::join!(carry(near_read, far_write, mood.clone()), carry(far_read, near_write, mood));
            });
        }
    };
    tokio::runtime::Handle::current().spawn(accepting);
    Ok(here)
}

#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock itself")]
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mood: Mood) {
    let (sender, mut receiver) = mpsc::unbounded_channel::<(tokio::time::Instant, Vec<u8>)>();
    let reading = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count) = from.read(&mut buffer).await {
            if count == 0 {
                break;
            }
            match mood.now() {
                SWALLOWS => {}
                held => {
                    let at = tokio::time::Instant::now() + Duration::from_millis(held);
                    if sender.send((at, buffer[..count].to_vec())).is_err() {
                        break;
                    }
                }
            }
        }
    };
    let writing = async move {
        while let Some((at, bytes)) = receiver.recv().await {
            tokio::time::sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
    };
    tokio::join!(reading, writing);
}
