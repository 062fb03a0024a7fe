//! Real stores: the script against the account it is a copy of, and files and servers that misbehave.

use omega_policy::{BucketAsk, CircuitAsk, Dimension, Pause, SlotAsk, Turn};

use super::*;

fn request(seq: u64) -> WireRequest {
    WireRequest {
        life: 1,
        seq,
        acked: seq - 1,
        label: "host:1".into(),
        weight: 0.25,
        ..WireRequest::default()
    }
}

/// A process that asks for whatever comes to its mind.
#[derive(Default)]
struct Whim {
    life: u32,
    seq: u64,
    acked: u64,
    owed: f64,
    returned: f64,
    turn: u64,
    probes: u32,
}

impl Whim {
    fn request(&mut self, rng: &mut fastrand::Rng, epoch: u64) -> WireRequest {
        let mut chance = |percent: u32| rng.u32(..100) < percent;
        let (repeats, lost, away, leave) = (chance(5), chance(15), chance(5), chance(6));
        let rests = chance(50);
        let (other_epoch, with_cap, urgent) = (chance(2), chance(10), chance(60));
        let (pause, turned, wants_probe) = (chance(4), chance(10), chance(30));
        if away {
            *self = Self { life: self.life + 1, ..Self::default() };
        }
        self.seq += u64::from(!repeats || self.seq == 0);
        self.owed += if rng.bool() { rng.u32(..4).into() } else { 0.0 };
        self.returned += if rng.bool() { rng.u32(..3).into() } else { 0.0 };
        let model = if rng.u32(..4) == 0 { "gpt-5.2/mini" } else { "" };
        let least = if urgent { f64::from(rng.u32(1..90)) } else { 0.0 };
        let request = WireRequest {
            life: self.life,
            acked: if lost { self.acked.saturating_sub(1) } else { self.acked },
            epoch: if other_epoch { 17 } else { epoch },
            away,
            away_for: rng.u32(..3).into(),
            rests: leave && rests,
            leaves: leave && !rests,
            weight: f64::from(rng.u32(..100)) / 100.0,
            buckets: vec![BucketAsk {
                model: model.into(),
                dimension: if rng.bool() { Dimension::Tokens } else { Dimension::Requests },
                limit: 600.0,
                depth: 60.0,
                holding: rng.u32(2..5).into(),
                late: rng.u32(..2).into(),
                owed: self.owed,
                returned: self.returned,
                want: least + f64::from(rng.u32(..10)),
                least,
                patience: rng.u32(..12).into(),
                at_most: with_cap.then(|| rng.u32(..30).into()),
            }],
            slots: vec![SlotAsk {
                model: String::new(),
                limit: 4,
                in_flight: rng.u32(..3),
                want: rng.u32(..6),
            }],
            pauses: match pause {
                true => {
                    let seconds = f64::from(rng.u32(1..20)) / 1_000.0;
                    vec![Pause { model: model.into(), seconds, spent: rng.bool() }]
                }
                false => Vec::new(),
            },
            circuits: vec![CircuitAsk {
                model: String::new(),
                turn: self.turn,
                turned: turned.then(|| if rng.bool() { Turn::Opened(0.004) } else { Turn::Closed }),
                probes: self.probes.min(rng.u32(..3)),
                wants_probe,
                max_probes: 3,
            }],
            ..request(self.seq)
        };
        if request.leaves {
            *self = Self { life: self.life + 1, ..Self::default() };
        }
        request
    }

    fn hear(&mut self, request: &WireRequest, grant: &WireGrant) {
        if !grant.stale && !request.leaves {
            self.acked = grant.seq;
            if let Some(circuit) = grant.circuits.first() {
                (self.turn, self.probes) = (circuit.turn, circuit.probes);
            }
        }
    }
}

fn close(a: f64, b: f64) -> bool {
    // A moment that was written and read is off by a quarter of a microsecond.
    (a - b).abs() < 1e-4
}

fn assert_alike(script: &WireGrant, account: &WireGrant, step: usize, request: &WireRequest) {
    let place = format!("exchange {step}: {request:?}\nscript {script:?}\naccount {account:?}");
    assert_eq!(
        (script.seq, script.stale, script.members),
        (account.seq, account.stale, account.members),
        "{place}"
    );
    assert!(close(script.learning, account.learning) && close(script.weights, account.weights), "{place}");
    assert_eq!(script.slots, account.slots, "{place}");
    assert_eq!(script.buckets.len(), account.buckets.len(), "{place}");
    for (a, b) in script.buckets.iter().zip(&account.buckets) {
        let pairs = [
            (a.amount, b.amount),
            (a.ready, b.ready),
            (a.starts, b.starts),
            (a.refused_for, b.refused_for),
            (a.level, b.level),
            (a.put_off, b.put_off),
        ];
        assert!(a.whole == b.whole && pairs.iter().all(|(a, b)| close(*a, *b)), "{place}");
    }
    let pauses = |grant: &WireGrant| {
        let mut pauses: Vec<_> =
            grant.pauses.iter().map(|pause| (pause.model.clone(), pause.spent)).collect();
        pauses.sort();
        pauses
    };
    assert_eq!(pauses(script), pauses(account), "{place}");
    let circuits = |grant: &WireGrant| {
        let of = grant.circuits.iter().map(|report| (report.turn, report.open, report.probes));
        of.collect::<Vec<_>>()
    };
    assert_eq!(circuits(script), circuits(account), "{place}");
}

mod real_redis;

async fn works(store: &dyn SharedStore) {
    let mut ask = request(1);
    ask.buckets.push(BucketAsk {
        model: String::new(),
        dimension: Dimension::Requests,
        limit: 60.0,
        depth: 6.0,
        holding: 0.0,
        late: 0.0,
        owed: 0.0,
        returned: 0.0,
        want: 4.0,
        least: 4.0,
        patience: 5.0,
        at_most: None,
    });
    assert_eq!(store.report("a").await.expect("it answers"), None);
    let first = store.exchange("a", "one", &ask).await.expect("it answers");
    assert_eq!((first.buckets[0].amount, first.buckets[0].ready, first.members), (4.0, 4.0, 1));
    let second = store.exchange("a", "two", &ask).await.expect("it answers");
    assert_eq!((second.buckets[0].amount, second.members), (4.0, 2));
    assert!((1.9..2.1).contains(&second.buckets[0].ready), "two of six are left: {second:?}");
    let other = store.exchange("b", "two", &ask).await.expect("it answers");
    assert_eq!((other.buckets[0].ready, other.members), (4.0, 1), "another quota");
    let report = store.report("a").await.expect("it answers").expect("there is an account");
    assert_eq!((report.ledger.members, report.holders.len()), (2, 2));
    assert_eq!(report.holders["one"].buckets["requests/"].held, 4.0);
    assert_eq!(report.holders["one"].label, "host:1");
}

#[cfg(unix)]
mod file {
    use super::super::sqlite::SqliteStore;
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_locked_is_opened_all_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.db");
        let other = rusqlite::Connection::open(&path).expect("it opens");
        other.execute_batch("BEGIN EXCLUSIVE; CREATE TABLE other (name TEXT);").expect("it is locked");
        let store = SqliteStore::open(&path, "omega", Duration::from_millis(25)).expect("the path is right");
        let error = store.exchange("a", "one", &request(1)).await.expect_err("it is locked");
        assert!(error.to_string().contains("locked"), "{error}");
        other.execute_batch("COMMIT").expect("it is unlocked");
        store.exchange("a", "one", &request(2)).await.expect("it answers");
    }

    #[tokio::test]
    async fn a_file_shares_a_quota() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.db");
        let timeout = Duration::from_secs(5);
        works(&SqliteStore::open(&path, "omega", timeout).expect("it opens")).await;
        // Another process, and another namespace in the same file.
        let again = SqliteStore::open(&path, "omega", timeout).expect("it opens");
        let report = again.report("a").await.expect("it answers").expect("there is an account");
        assert_eq!(report.ledger.members, 2);
        works(&SqliteStore::open(&path, "other", timeout).expect("it opens")).await;
    }

    #[tokio::test]
    async fn a_file_that_is_removed_is_made_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.db");
        let store = SqliteStore::open(&path, "omega", Duration::from_secs(5)).expect("it opens");
        let first = store.exchange("a", "one", &request(1)).await.expect("it answers");
        for file in std::fs::read_dir(folder.path()).expect("a folder") {
            std::fs::remove_file(file.expect("a file").path()).expect("it is ours");
        }
        let mut ask = request(2);
        ask.epoch = first.epoch;
        let answer = store.exchange("a", "one", &ask).await.expect("it answers");
        assert!(answer.learning > 1.0, "it does not know what was spent: {answer:?}");
    }

    #[test]
    fn a_folder_that_is_not_there_is_said_at_once() {
        let error = SqliteStore::open(Path::new("/nowhere/state.db"), "omega", Duration::from_millis(25))
            .expect_err("there is no such folder");
        assert!(error.to_string().contains("unable to open"), "{error}");
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.db");
        std::fs::write(&path, "these are my notes, and not yours to write over, however long they may be")
            .expect("it is written");
        SqliteStore::open(&path, "omega", Duration::from_millis(25)).expect_err("it is none");
        assert!(std::fs::read_to_string(&path).expect("it is there").starts_with("these are my notes"));
    }
}
