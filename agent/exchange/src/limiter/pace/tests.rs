//! The pace against an EKS Auth that bears so much.

use super::{super::bucket::Bucket, *};

const SECOND: Duration = Duration::from_secs(1);
const START: f64 = 100.0;

fn pod(number: u32) -> Subject {
    Subject::Pod(u128::from(number).into())
}

/// Has `most` calls go out as soon as they may, each answered by `answer`. Says how many went out
/// in `seconds`.
fn run(
    pace: &mut Pace,
    now: &mut Instant,
    seconds: f64,
    most: usize,
    mut answer: impl FnMut(&mut Pace, Instant),
) -> usize {
    let end = *now + Duration::from_secs_f64(seconds);
    let mut calls = 0;
    while *now < end && calls < most {
        match pace.ready(*now) {
            Ok(()) => {
                pace.spend();
                calls += 1;
                answer(pace, *now);
            }
            Err(then) => *now = then.min(end),
        }
    }
    calls
}

#[test]
fn a_node_that_starts_has_its_first_calls_out_at_once_and_300_within_two_and_a_half_seconds() {
    let mut now = Instant::now();
    let started = now;
    let mut pace = Pace::new(START, now);
    assert_eq!(run(&mut pace, &mut now, 0.001, 300, |_, _| {}), 64);
    run(&mut pace, &mut now, 60.0, 236, |_, _| {});
    let took = now - started;
    assert!(took < SECOND * 5 / 2, "{took:?}");
}

#[test]
fn an_upstream_that_bears_as_much_as_the_start_is_not_asked_for_more_by_300_pods() {
    let mut now = Instant::now();
    let mut pace = Pace::new(START, now);
    let mut upstream = Bucket::new(START, now);
    run(&mut pace, &mut now, 60.0, 300, |_, now| {
        assert!(upstream.ready(now).is_ok(), "throttled");
        upstream.spend();
    });
}

#[test]
fn the_pace_rises_while_calls_wait_and_nothing_is_throttled() {
    let mut now = Instant::now();
    let mut pace = Pace::new(START, now);
    run(&mut pace, &mut now, 10.0, usize::MAX, |_, _| {});
    assert!(pace.per_second() > 2.5 * START, "{}", pace.per_second());
    run(&mut pace, &mut now, 60.0, usize::MAX, |_, _| {});
    assert_eq!(pace.per_second(), MOST * START);
    now += SECOND * 60;
    pace.update(now);
    pace.update(now);
    assert_eq!(pace.per_second(), START, "nobody has waited");
}

fn answered(pace: &mut Pace, now: Instant) {
    pace.answered(now, now);
}

/// One that was throttled so many times in a row, a tenth of a second apart.
fn throttled(times: usize, now: &mut Instant) -> Pace {
    let mut pace = Pace::new(START, *now);
    for _ in 0..times {
        *now += SECOND / 10;
        pace.throttled(*now, *now);
    }
    pace
}

#[test]
fn throttling_lowers_the_pace_once_for_all_calls_in_flight_and_not_to_nothing() {
    let mut now = Instant::now();
    let started = now;
    let mut pace = throttled(1, &mut now);
    pace.throttled(started, now + SECOND / 10);
    assert!((50.0..60.0).contains(&pace.per_second()), "twice the same");
    let pace = throttled(100, &mut now);
    assert_eq!(pace.per_second(), FLOOR);
    assert!(pace.is_lowered());
}

#[test]
fn throttled_calls_are_in_a_row_until_one_is_answered_or_long_after() {
    let mut now = Instant::now();
    let mut pace = throttled(2, &mut now);
    // As if EKS Auth had asked to be left alone meanwhile.
    now += SECOND * 600;
    pace.update(now);
    assert!(!pace.is_lowered());
    pace.throttled(now, now);
    assert_eq!(pace.per_second(), FLOOR);

    let mut pace = throttled(2, &mut now);
    now += APART;
    pace.throttled(now, now);
    assert!(pace.per_second() > FLOOR, "{}", pace.per_second());

    let mut pace = throttled(2, &mut now);
    now += SECOND * 600;
    answered(&mut pace, now);
    pace.throttled(now, now);
    assert!(pace.per_second() > FLOOR, "{}", pace.per_second());
}

#[test]
fn answers_to_calls_from_before_the_pace_was_lowered_do_not_raise_it() {
    let mut now = Instant::now();
    let started = now;
    let mut pace = throttled(3, &mut now);
    for _ in 0..20 {
        now += SECOND / 10;
        pace.answered(started, now);
    }
    pace.update(now);
    assert!(pace.per_second() < 1.1 * FLOOR, "{}", pace.per_second());
    pace.throttled(now, now);
    assert_eq!(pace.per_second(), FLOOR, "still in a row");
}

#[test]
fn the_pace_comes_back_within_seconds_after_one_throttled_call() {
    let mut now = Instant::now();
    let mut pace = throttled(1, &mut now);
    now += SECOND * 3;
    pace.update(now);
    assert!(pace.is_lowered());
    now += SECOND * 4;
    pace.update(now);
    assert!(!pace.is_lowered(), "{}", pace.per_second());
    assert_eq!(pace.per_second(), START);
}

/// Pods of a node that uses the quota alone do not pay for what thousands of nodes need: SDKs try
/// for some seconds.
#[test]
fn a_node_that_is_alone_serves_its_pods_soon_after_some_throttled_calls() {
    for (times, first, all) in [(1, 0.1, 1.0), (2, 1.6, 12.0), (10, 26.0, 60.0)] {
        let mut now = Instant::now();
        let mut pace = throttled(times, &mut now);
        let healed = now;
        assert_eq!(run(&mut pace, &mut now, 600.0, 1, answered), 1);
        let took = (now - healed).as_secs_f64();
        assert!(took < first, "{took} s for the first after {times}");
        assert_eq!(run(&mut pace, &mut now, 600.0, 19, answered), 19);
        let took = (now - healed).as_secs_f64();
        println!("after {times} throttled calls 20 went out within {took:.1} s");
        assert!(took < all, "{took} s after {times}");
    }
}

#[test]
fn a_pace_that_many_share_does_not_come_back_before_a_call_was_answered() {
    let mut now = Instant::now();
    let mut pace = throttled(3, &mut now);
    now += SECOND * 10;
    pace.update(now);
    assert!(pace.per_second() < 1.2 * FLOOR, "{}", pace.per_second());
    pace.answered(now, now);
    pace.update(now);
    assert!(pace.per_second() > 1.2 * FLOOR, "{}", pace.per_second());
    assert!(pace.per_second() < 2.0 * FLOOR, "{}", pace.per_second());
    // Nothing was throttled for a quarter of an hour: it may try.
    now += SECOND * 900;
    pace.update(now);
    assert!(!pace.is_lowered(), "{}", pace.per_second());
}

#[test]
fn an_outage_of_a_minute_ends_slowly_and_a_short_one_at_once() {
    let mut now = Instant::now();
    let mut pace = Pace::new(START, now);
    // A failed call long after others is no outage.
    for number in 0..20 {
        assert!(!pace.failed(pod(number), now));
    }
    now += APART;
    assert!(!pace.failed(pod(1), now));
    answered(&mut pace, now);
    for second in 0..59 {
        pace.failed(pod(second % 2), now);
        now += SECOND;
    }
    assert_eq!(pace.per_second(), START);
    for second in 0..600 {
        pace.failed(pod(second % 2), now);
        now += SECOND;
    }
    let slow = pace.per_second();
    assert!((SLOW_START..SLOW_START * 1.1).contains(&slow), "{slow}");
    assert_eq!(run(&mut pace, &mut now, 30.0, 20, answered), 20);
}

#[test]
fn one_pod_whose_calls_fail_makes_no_outage() {
    let mut now = Instant::now();
    let mut pace = Pace::new(START, now);
    for _ in 0..600 {
        assert!(!pace.failed(pod(1), now));
        now += SECOND;
    }
    pace.update(now);
    assert!(!pace.is_lowered(), "{}", pace.per_second());
    assert_eq!(pace.crowded(now), None);
    // A second one is a witness.
    assert!(pace.failed(pod(2), now));
}

#[test]
fn no_failure_of_an_outage_delays_the_next_call() {
    let started = Instant::now();
    let mut pace = Pace::new(START, started);
    let mut calls = 0;
    for tenth in 0..3600 {
        let now = started + SECOND / 10 * tenth;
        pace.failed(pod(tenth % 2), now);
        if now > started + OUTAGE && pace.ready(now).is_ok() {
            pace.spend();
            calls += 1;
        }
    }
    let due = 300.0 * SLOW_START;
    assert!(
        (due * 0.9..due * 1.1).contains(&f64::from(calls)),
        "{calls}"
    );
}

#[test]
fn what_can_wait_does_so_for_minutes_once_a_quota_is_shared() {
    let mut now = Instant::now();
    assert_eq!(throttled(2, &mut now).crowded(now), None);
    let mut pace = throttled(3, &mut now);
    let left = pace.crowded(now).unwrap();
    assert!((CROWDED..CROWDED * 2).contains(&left), "{left:?}");
    // What is throttled meanwhile prolongs it.
    now += CROWDED / 2;
    pace.throttled(now, now);
    assert!(pace.crowded(now).unwrap() >= CROWDED);
    assert_eq!(pace.crowded(now + CROWDED * 2), None);
}

#[test]
fn it_settles_near_what_upstream_bears() {
    for bears in [2.0, 30.0] {
        let mut now = Instant::now();
        let mut pace = Pace::new(START, now);
        let mut upstream = Bucket::new(bears, now);
        let mut served = 0;
        let calls = run(&mut pace, &mut now, 600.0, usize::MAX, |pace, now| {
            if upstream.ready(now).is_ok() {
                upstream.spend();
                pace.answered(now, now);
                served += 1;
            } else {
                pace.throttled(now, now);
            }
        });
        println!(
            "of {} that it bears: {served} in {calls} calls",
            bears * 600.0
        );
        assert!(
            f64::from(served) > bears * 600.0 * 0.6,
            "{served} of {calls}"
        );
        assert!(calls < served as usize * 3 / 2, "{served} of {calls}");
    }
}

#[test]
fn retry_after_is_honoured_but_not_for_ever() {
    let now = Instant::now();
    let mut pace = Pace::new(START, now);
    pace.blocked(now, SECOND * 7);
    pace.blocked(now, SECOND);
    assert_eq!(pace.ready(now), Err(now + SECOND * 7));
    assert!(pace.ready(now + SECOND * 7).is_ok());
    pace.blocked(now, SECOND * 100_000);
    assert_eq!(pace.ready(now), Err(now + LONGEST_WAIT));
}
