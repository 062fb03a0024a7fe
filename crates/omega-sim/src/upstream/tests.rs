use super::*;

const SECOND: u64 = 1_000_000_000;

fn provider(requests_per_minute: u64, tokens_per_minute: u64, burst_seconds: f64) -> Provider {
    Provider {
        requests_per_minute,
        tokens_per_minute,
        burst_seconds,
        charge: Charge::Estimate,
        free_429: false,
        blind: false,
    }
}

#[test]
fn a_bucket_starts_full_and_refills_by_the_sixtieth_of_a_minute() {
    let mut bucket = Bucket::full(600, 60.0);
    assert_eq!(bucket.remaining(), 600);
    bucket.take(600);
    assert_eq!(bucket.remaining(), 0);
    bucket.refill(SECOND);
    assert_eq!(bucket.remaining(), 10);
    bucket.refill(1_000 * SECOND);
    assert_eq!(bucket.remaining(), 600, "never above the burst");
}

#[test]
fn a_short_burst_holds_only_its_seconds() {
    assert_eq!(Bucket::full(600, 10.0).remaining(), 100);
    assert_eq!(Bucket::full(600, 1.0).remaining(), 10);
    assert_eq!(Bucket::full(6, 1.0).remaining(), 1, "one always fits, or nothing ever would");
}

#[test]
fn the_wait_is_rounded_up_and_exact() {
    let mut bucket = Bucket::full(7, 60.0);
    bucket.take(7);
    let wait = bucket.wait(1);
    assert_eq!(wait, 8_571_428_572, "60 s / 7, up to the next nanosecond");
    bucket.refill(wait - 1);
    assert!(!bucket.fits(1));
    bucket.refill(wait);
    assert!(bucket.fits(1));
}

#[test]
fn what_is_larger_than_the_bucket_passes_when_it_is_full_and_leaves_a_debt() {
    let mut bucket = Bucket::full(600, 1.0);
    assert!(bucket.fits(40));
    bucket.take(40);
    assert!(!bucket.fits(1));
    assert_eq!(bucket.wait(1), 3_100_000_000, "30 owed and one to have, at ten a second");
    assert_eq!(bucket.remaining(), 0, "headers show no debt");
}

#[test]
fn a_rejected_call_takes_a_request_but_never_one_that_is_not_there() {
    let mut upstream = Upstream::new(provider(2, 1_000, 60.0));
    assert_eq!(upstream.arrive(1_000, 0), Ok(()));
    assert_eq!(upstream.arrive(10, 0).expect_err("no tokens are left").exhausted, Dimension::Tokens);
    assert_eq!(
        upstream.headers().expect("it shows them").requests,
        0,
        "the rejected call took the second request"
    );
    for _ in 0..100 {
        assert!(upstream.arrive(10, 0).is_err());
    }
    assert_eq!(upstream.arrive(10, 30 * SECOND), Ok(()), "a hundred rejections left no debt");
}

#[test]
fn with_free_429s_a_rejected_call_takes_nothing() {
    let mut upstream = Upstream::new(Provider { free_429: true, ..provider(2, 1_000, 60.0) });
    assert_eq!(upstream.arrive(1_000, 0), Ok(()));
    assert!(upstream.arrive(10, 0).is_err());
    assert_eq!(upstream.headers().expect("it shows them").requests, 1);
}

#[test]
fn retry_after_is_the_longer_refill_in_whole_seconds_rounded_up() {
    let mut upstream = Upstream::new(provider(1_000, 600, 60.0));
    assert_eq!(upstream.arrive(600, 0), Ok(()));
    let throttled = upstream.arrive(101, 0).expect_err("the tokens are gone");
    assert_eq!((throttled.retry_after, throttled.exhausted), (11, Dimension::Tokens));
    let mut upstream = Upstream::new(provider(1, 600, 60.0));
    assert_eq!(upstream.arrive(600, 0), Ok(()));
    let throttled = upstream.arrive(10, 0).expect_err("the request is gone too");
    assert_eq!((throttled.retry_after, throttled.exhausted), (60, Dimension::Requests));
}

#[test]
fn the_charge_rules_bill_what_they_say() {
    let bill = |charge| Bill::of(charge, 100, 30, 256);
    assert_eq!(bill(Charge::Estimate), Bill { at_arrival: 356, at_end: 0, back: 0 });
    assert_eq!(bill(Charge::Refund), Bill { at_arrival: 356, at_end: 0, back: 226 });
    assert_eq!(bill(Charge::Actual), Bill { at_arrival: 100, at_end: 30, back: 0 });
    assert_eq!(
        [356, 130, 130],
        [bill(Charge::Estimate).net(), bill(Charge::Refund).net(), bill(Charge::Actual).net()]
    );
}

#[test]
fn real_output_may_take_the_bucket_below_zero_and_a_refund_never_overfills_it() {
    let mut upstream = Upstream::new(Provider { charge: Charge::Actual, ..provider(1_000, 600, 60.0) });
    assert_eq!(upstream.arrive(600, 0), Ok(()));
    upstream.settle(Bill { at_arrival: 600, at_end: 100, back: 0 }, 0);
    assert_eq!(upstream.wait(1), 10_100_000_000);
    upstream.settle(Bill { at_arrival: 0, at_end: 0, back: 10_000 }, 0);
    assert_eq!(upstream.headers().expect("it shows them").tokens, 600);
}

#[test]
fn a_blind_provider_shows_no_headers() {
    assert_eq!(Upstream::new(Provider { blind: true, ..provider(1, 1, 1.0) }).headers(), None);
}
