//! The simulations in small: a break in renewals or in what is forgotten shows here before it shows
//! in a cluster.

use std::time::Duration;

use podcreds_simulate::{HOUR, day, day_report, fleet, fleet_report};

#[test]
fn a_node_calls_at_most_half_as_often_as_the_other_rule_and_never_for_pods_that_are_gone() {
    let options = day::Options {
        pods: 40,
        hours: 12,
        seed: 7,
    };
    let outcome = day::run(&options).unwrap();
    let report = day_report::Report::new(&options, &outcome);
    println!("{}", report.table());
    assert_eq!(report.complaints(), [""; 0]);
    let all = report.kinds.last().unwrap();
    assert!(all.calls > 40 && all.asked > 1000, "{all:?}");
}

/// A small fleet is at the mercy of chance, so the bounds are wider than those of the command. A
/// limiter that comes back by time alone has nine calls in ten throttled.
#[test]
fn a_fleet_shares_one_quota_without_exceeding_it_for_long() {
    let options = fleet::Options {
        nodes: 100,
        pods: 20,
        quota: 4.0,
        roll_out: Duration::from_secs(120),
        seed: 7,
        until: HOUR * 4,
    };
    let outcome = fleet::run(&options, |_| {}).unwrap();
    let report = fleet_report::Report::new(&options, &outcome);
    println!("{}", report.table());
    for phase in &report.phases[..2] {
        assert!(phase.waited > 200, "{phase:?}");
        assert!(phase.throttled < 0.6, "{phase:?}");
        assert!(phase.crowded_seconds < 60, "{phase:?}");
        assert!(phase.times_quota() < 2.5, "{phase:?}");
    }
}
