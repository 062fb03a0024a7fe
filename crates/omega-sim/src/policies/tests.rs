use super::*;

fn chance() -> fastrand::Rng {
    fastrand::Rng::with_seed(1)
}

const THROTTLED: fn(u32) -> Answer =
    |retry_after| Answer::Throttled { retry_after, exhausted: None, headers: None };

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

#[test]
fn without_protection_nothing_is_sent_again() {
    assert_eq!(NoProtection.retry(1, Answer::ServerError, &mut chance()), None);
}

#[test]
fn the_sdk_waits_half_a_second_then_one_less_up_to_a_quarter_and_gives_up() {
    let mut chance = chance();
    for _ in 0..1_000 {
        let first = seconds(OfficialSdk.retry(1, Answer::ServerError, &mut chance).expect("a first retry"));
        let second = seconds(OfficialSdk.retry(2, Answer::Overloaded, &mut chance).expect("a second"));
        assert!((0.375..=0.5).contains(&first) && (0.75..=1.0).contains(&second), "{first} {second}");
    }
    assert_eq!(OfficialSdk.retry(3, Answer::ServerError, &mut chance), None);
}

#[test]
fn the_sdk_honours_a_retry_after_of_up_to_a_minute() {
    assert_eq!(OfficialSdk.retry(1, THROTTLED(60), &mut chance()), Some(60 * SECOND));
    let own = seconds(OfficialSdk.retry(1, THROTTLED(61), &mut chance()).expect("its own delay"));
    assert!(own <= 0.5, "{own}");
}

#[test]
fn tenacity_draws_between_one_second_and_twice_as_much_each_time_and_tries_six_times() {
    let mut chance = chance();
    for (attempt, most) in [(1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 16.0)] {
        let waits: Vec<f64> = (0..500)
            .map(|_| seconds(Tenacity.retry(attempt, THROTTLED(1), &mut chance).expect("one more")))
            .collect();
        let highest = waits.iter().copied().fold(0.0, f64::max);
        assert!(waits.iter().all(|wait| (1.0..=most).contains(wait)), "{attempt}");
        assert!(highest > most * 0.9, "{attempt}: {highest}");
    }
    assert_eq!(Tenacity.retry(6, THROTTLED(1), &mut chance), None);
}
