//! A file that the processes of one machine share: one transaction for each exchange.
//!
//! There is no server and so no server's clock: time is the machine's since its boot, which all its processes read alike
//! and nobody can set, and the boot's identity says when it began anew. A thread of its own does the work, so that no
//! task waits for a disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use futures_util::future::BoxFuture;
use omega_policy::{Holder, LEASE_EXPIRY, Ledger};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Params, Row, TransactionBehavior, params};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;

use super::{FleetReport, OwnProcess, SharedStore, StoreError, WireGrant, WireRequest};

/// The layout of the file. Another one gets other tables, so that processes of different versions do not disturb each
/// other.
const LAYOUT: &str = "
    CREATE TABLE IF NOT EXISTS omega_v1_ledger (
        scope TEXT PRIMARY KEY, boot TEXT NOT NULL, until REAL NOT NULL, record TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS omega_v1_process (
        scope TEXT NOT NULL, name TEXT NOT NULL, seen REAL NOT NULL, record TEXT NOT NULL,
        PRIMARY KEY (scope, name)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS omega_v1_process_seen ON omega_v1_process (scope, seen);
";

/// Between two looks at a file that another process has locked.
const LOCKED: Duration = Duration::from_micros(200);
/// Processes that start together make the file, its mode and its tables, one after the other; to SQLite a file that changes
/// its mode is locked at once, without a wait. So many looks, this far apart; each may wait for as long as a call would.
const OPENING: (usize, Duration) = (40, Duration::from_millis(5));

/// A file.
#[derive(Debug)]
pub(super) struct SqliteStore {
    path: PathBuf,
    namespace: String,
    timeout: Duration,
    /// The way to the thread, once somebody has asked for something.
    work: OwnProcess<OnceLock<mpsc::Sender<Work>>>,
}

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

#[derive(Debug)]
enum Work {
    Exchange { scope: String, process: String, request: Box<WireRequest>, reply: Reply<WireGrant> },
    Report { scope: String, reply: Reply<Option<FleetReport>> },
}

impl SqliteStore {
    /// Opens the file, or makes it. Its folder must be there.
    pub(super) fn open(path: &Path, namespace: &str, timeout: Duration) -> Result<Self, StoreError> {
        // A wrong path is found out now and not by the first call. One that stays locked is right, and out of reach.
        let file = File::new(path, timeout);
        for _ in 0..OPENING.0 {
            match file.opened() {
                Err(error) if is_locked(&error) => thread::sleep(OPENING.1),
                Err(error) => return Err(failed(error)),
                Ok(_) => break,
            }
        }
        let (path, namespace) = (path.to_owned(), namespace.to_owned());
        Ok(Self { path, namespace, timeout, work: OwnProcess::new() })
    }

    async fn order<T>(&self, order: impl FnOnce(Reply<T>) -> Work) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let gone = || StoreError(String::from("its thread is gone"));
        self.work.get().get_or_init(|| self.hire()).send(order(reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Starts the thread. Without one, orders are sent to nobody, and said to be.
    fn hire(&self) -> mpsc::Sender<Work> {
        let (work, orders) = mpsc::channel();
        let file = File::new(&self.path, self.timeout);
        let namespace = self.namespace.clone();
        let thread = thread::Builder::new().name(String::from("omega-sqlite"));
        drop(thread.spawn(move || file.serve(&namespace, &orders)));
        work
    }
}

impl SharedStore for SqliteStore {
    fn exchange<'a>(
        &'a self,
        scope: &'a str,
        process: &'a str,
        request: &'a WireRequest,
    ) -> BoxFuture<'a, Result<WireGrant, StoreError>> {
        let (scope, process) = (scope.to_owned(), process.to_owned());
        let request = Box::new(request.clone());
        Box::pin(self.order(|reply| Work::Exchange { scope, process, request, reply }))
    }

    fn report<'a>(&'a self, scope: &'a str) -> BoxFuture<'a, Result<Option<FleetReport>, StoreError>> {
        let scope = scope.to_owned();
        Box::pin(self.order(|reply| Work::Report { scope, reply }))
    }
}

/// The file, as its thread sees it.
struct File {
    path: PathBuf,
    timeout: Duration,
    /// Which boot of the machine this is: no process outlives one.
    boot: String,
    connection: Option<Connection>,
}

impl File {
    fn new(path: &Path, timeout: Duration) -> Self {
        Self { path: path.to_owned(), timeout, boot: boot_id(), connection: None }
    }

    fn serve(mut self, namespace: &str, orders: &mpsc::Receiver<Work>) {
        for order in orders {
            match order {
                Work::Exchange { scope, process, request, reply } => {
                    // Nobody waits for it any more: it would only hold up those who do.
                    if reply.is_closed() {
                        continue;
                    }
                    let scope = format!("{namespace}:{scope}");
                    let _ = reply.send(self.mended(|file| file.exchange(&scope, &process, &request)));
                }
                Work::Report { scope, reply } => {
                    let scope = format!("{namespace}:{scope}");
                    let _ = reply.send(self.mended(|file| file.report(&scope)));
                }
            }
        }
    }

    /// After an error the file is opened anew: it may have been removed, or replaced by another.
    fn mended<T>(&mut self, work: impl Fn(&mut Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let result = work(self);
        if result.is_err() {
            self.connection = None;
        }
        result
    }

    fn connection(&mut self) -> Result<&mut Connection, StoreError> {
        // A file that was removed while it was open would be shared with nobody.
        if self.connection.is_some() && !self.path.exists() {
            self.connection = None;
        }
        if self.connection.is_none() {
            self.connection = Some(self.opened().map_err(failed)?);
        }
        self.connection.as_mut().ok_or_else(|| StoreError(String::from("it is closed")))
    }

    fn opened(&self) -> rusqlite::Result<Connection> {
        let mut connection = Connection::open(&self.path)?;
        let tries = (self.timeout.as_micros() / LOCKED.as_micros()).max(1);
        // SQLite's own wait doubles up to a tenth of a second; transactions here take a fraction of a millisecond.
        thread_local! {
            static TRIES: std::cell::Cell<u128> = const { std::cell::Cell::new(0) };
        }
        TRIES.set(tries);
        connection.busy_handler(Some(|tried| {
            thread::sleep(LOCKED);
            u128::try_from(tried).unwrap_or(0) < TRIES.get()
        }))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // A crash of the machine may lose the last exchanges, and with them nothing: it is another boot then.
        connection.pragma_update(None, "synchronous", "OFF")?;
        connection.execute_batch(LAYOUT)?;
        Ok(connection)
    }

    fn exchange(
        &mut self,
        scope: &str,
        process: &str,
        request: &WireRequest,
    ) -> Result<WireGrant, StoreError> {
        let behavior = TransactionBehavior::Immediate;
        let boot = self.boot.clone();
        let transaction = self.connection()?.transaction_with_behavior(behavior).map_err(failed)?;
        let account = Account { transaction: &transaction, scope };
        let now = seconds_since_boot();
        let mut ledger = account.ledger(&boot, now)?;
        if ledger.members == 0 {
            // Those of an account that is no more.
            account.forget_everybody()?;
        }
        for (name, holder) in account.expired(now)? {
            ledger.forget(&name, &holder);
            account.forget(&name)?;
        }
        let mut holder = account.holder(process)?;
        let grant = ledger.exchange(process, &mut holder, request, now);
        account.keep(&boot, now + ledger.kept_for(now), &ledger)?;
        match &holder {
            Some(holder) => account.remember(process, holder)?,
            None => account.forget(process)?,
        }
        transaction.commit().map_err(failed)?;
        Ok(grant)
    }

    fn report(&mut self, scope: &str) -> Result<Option<FleetReport>, StoreError> {
        let boot = self.boot.clone();
        let transaction = self.connection()?.transaction().map_err(failed)?;
        let account = Account { transaction: &transaction, scope };
        let now = seconds_since_boot();
        let ledger = account.ledger(&boot, now)?;
        if ledger.epoch == 0 {
            return Ok(None);
        }
        Ok(Some(FleetReport { now, ledger, holders: account.everybody()? }))
    }
}

/// The account of one quota, inside a transaction.
struct Account<'t> {
    transaction: &'t Connection,
    scope: &'t str,
}

impl Account<'_> {
    fn ledger(&self, boot: &str, now: f64) -> Result<Ledger, StoreError> {
        let kept: Option<(String, f64, String)> = self
            .transaction
            .prepare_cached("SELECT boot, until, record FROM omega_v1_ledger WHERE scope = ?1")
            .and_then(|mut select| {
                let row = select.query_row([self.scope], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
                row.optional()
            })
            .map_err(failed)?;
        match kept {
            None => Ok(Ledger::default()),
            Some((then, _, _)) if then != boot => Ok(Ledger::after_loss(now)),
            Some((_, until, _)) if until < now => Ok(Ledger::default()),
            Some((_, _, record)) => serde_json::from_str(&record).map_err(misread),
        }
    }

    fn keep(&self, boot: &str, until: f64, ledger: &Ledger) -> Result<(), StoreError> {
        self.change(
            "INSERT OR REPLACE INTO omega_v1_ledger (scope, boot, until, record) VALUES (?1, ?2, ?3, ?4)",
            params![self.scope, boot, until, written(ledger)?],
        )
    }

    /// Those who have not been heard of for too long; a few at a time, so that no exchange takes long.
    fn expired(&self, now: f64) -> Result<Vec<(String, Holder)>, StoreError> {
        let before = now - LEASE_EXPIRY.as_secs_f64();
        let mut select = self
            .transaction
            .prepare_cached(
                "SELECT name, record FROM omega_v1_process WHERE scope = ?1 AND seen < ?2 LIMIT 50",
            )
            .map_err(failed)?;
        let rows = select.query_map(params![self.scope, before], named).map_err(failed)?;
        rows.map(|row| row.map_err(failed).and_then(read)).collect()
    }

    fn everybody(&self) -> Result<BTreeMap<String, Holder>, StoreError> {
        let mut select = self
            .transaction
            .prepare_cached("SELECT name, record FROM omega_v1_process WHERE scope = ?1")
            .map_err(failed)?;
        let rows = select.query_map([self.scope], named).map_err(failed)?;
        rows.map(|row| row.map_err(failed).and_then(read)).collect()
    }

    fn holder(&self, process: &str) -> Result<Option<Holder>, StoreError> {
        let record: Option<String> = self
            .transaction
            .prepare_cached("SELECT record FROM omega_v1_process WHERE scope = ?1 AND name = ?2")
            .and_then(|mut select| select.query_row([self.scope, process], |row| row.get(0)).optional())
            .map_err(failed)?;
        record.map(|record| serde_json::from_str(&record).map_err(misread)).transpose()
    }

    fn remember(&self, process: &str, holder: &Holder) -> Result<(), StoreError> {
        self.change(
            "INSERT OR REPLACE INTO omega_v1_process (scope, name, seen, record) VALUES (?1, ?2, ?3, ?4)",
            params![self.scope, process, holder.seen, written(holder)?],
        )
    }

    fn forget(&self, process: &str) -> Result<(), StoreError> {
        let statement = "DELETE FROM omega_v1_process WHERE scope = ?1 AND name = ?2";
        self.change(statement, params![self.scope, process])
    }

    fn forget_everybody(&self) -> Result<(), StoreError> {
        self.change("DELETE FROM omega_v1_process WHERE scope = ?1", params![self.scope])
    }

    fn change(&self, statement: &str, values: impl Params) -> Result<(), StoreError> {
        let done = self.transaction.prepare_cached(statement).and_then(|mut change| change.execute(values));
        done.map(drop).map_err(failed)
    }
}

fn named(row: &Row<'_>) -> rusqlite::Result<(String, String)> {
    Ok((row.get(0)?, row.get(1)?))
}

fn read((name, record): (String, String)) -> Result<(String, Holder), StoreError> {
    Ok((name, serde_json::from_str(&record).map_err(misread)?))
}

/// Seconds since the machine was started, suspensions included where the system counts them.
fn seconds_since_boot() -> f64 {
    #[cfg(target_os = "linux")]
    let clock = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = ClockId::Monotonic;
    let time = clock_gettime(clock);
    // A year of nanoseconds in a double is exact to a few of them.
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// What the system calls this boot. Where it has no name for it, a clock that is behind the file's says as much.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn written(record: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(record).map_err(|error| StoreError(error.to_string()))
}

fn is_locked(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

fn failed(error: rusqlite::Error) -> StoreError {
    StoreError(error.to_string())
}

fn misread(error: serde_json::Error) -> StoreError {
    StoreError(format!("what stands in the file was not understood: {error}"))
}
