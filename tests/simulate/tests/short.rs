//! A day and a fleet in small: a break in renewals, in what is forgotten or in the pace of calls
//! shows here before it shows in a cluster.

use std::time::Duration;

use podcreds_simulate::{HOUR, day, day_report, fleet, fleet_report};

#[test]
fn a_node_calls_at_most_half_as_often_as_the_other_rule_and_never_for_pods_that_are_gone() {
    let options = day::DayOptions {
        pods: 40,
        hours: 12,
        seed: 7,
    };
    let outcome = day::run(&options).unwrap();
    let report = day_report::DayReport::new(&options, &outcome);
    println!("{}", report.table());
    assert_eq!(report.complaints(), [""; 0]);
    let all = report.kinds.last().unwrap();
    assert!(all.calls > 40 && all.asked > 1000, "{all:?}");
}

/// The aims are for large fleets; in a small one a few calls more or less are a large share.
#[test]
fn a_fleet_recovers_from_an_outage_nearly_as_fast_as_its_quota_allows() {
    let options = fleet::FleetOptions {
        nodes: 60,
        pods: 40,
        quota: 2.4,
        roll_out: Duration::from_secs(300),
        seed: 7,
        until: HOUR * 4,
    };
    let outcome = fleet::run(&options, |_| {}).unwrap();
    let report = fleet_report::FleetReport::new(&options, &outcome);
    println!("{}", report.table());
    let outage = report.phases.iter().find(|it| it.is_outage).unwrap();
    assert!(outage.waited > 400, "{outage:?}");
    assert!(outage.times_quota() < 1.6, "{outage:?}");
    assert!(outage.throttled < 0.6, "{outage:?}");
}
