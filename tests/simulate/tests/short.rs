//! A day in small: a break in renewals or in what is forgotten shows here before it shows in a
//! cluster.

use podcreds_simulate::{day, day_report};

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
