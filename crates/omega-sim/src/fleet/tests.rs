use super::*;

fn shares(clients: u32, skew: Skew) -> Shares {
    Shares::new(Fleet { clients, skew, ..Fleet::default() }, 1)
}

fn counts(clients: u32, skew: Skew) -> Vec<usize> {
    let shares = shares(clients, skew);
    let mut counts = vec![0; clients as usize];
    (0..40_000).for_each(|number| counts[shares.client(number)] += 1);
    counts
}

#[test]
fn requests_fall_evenly_or_by_zipfs_law() {
    for count in counts(4, Skew::Even) {
        assert!((9_600..10_400).contains(&count), "{count}");
    }
    // 1 + 1/2 + 1/3 + 1/4 = 25/12: the first has 12/25 of all, the last 3/25.
    let zipf = counts(4, Skew::Zipf(1.0));
    assert!((18_700..19_700).contains(&zipf[0]) && (4_500..5_100).contains(&zipf[3]), "{zipf:?}");
}

#[test]
fn a_request_stays_with_its_client() {
    let (one, other) = (shares(64, Skew::Even), shares(64, Skew::Even));
    assert!((0..1_000).all(|number| one.client(number) == other.client(number)));
}

#[test]
fn last_shares_follow_what_was_sent_and_leave_the_quiet_a_little() {
    let mut shares = shares(2, Skew::Zipf(10.0));
    // Nearly everything falls to the first.
    (0..1_000).for_each(|number| shares.sent(number, 30 * SECOND));
    let last = shares.last(70 * SECOND);
    assert!((last[0] - 0.995).abs() < 0.01 && (0.003..0.02).contains(&last[1]), "{last:?}");
    assert!((last.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    assert_eq!(shares.last(500 * SECOND), [0.5, 0.5], "what was sent long ago says nothing");
}

#[test]
fn skews_are_read_and_nonsense_is_refused() {
    assert_eq!("even".parse(), Ok(Skew::Even));
    assert_eq!("zipf".parse(), Ok(Skew::Zipf(1.0)));
    assert_eq!("zipf:1.2".parse(), Ok(Skew::Zipf(1.2)));
    for text in ["", "zipf:", "zipf:-1", "zipf:NaN", "pareto"] {
        assert!(text.parse::<Skew>().is_err(), "{text}");
    }
}
