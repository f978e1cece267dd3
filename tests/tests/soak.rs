//! Two minutes of `cargo xtask soak`, which goes on for an hour.

use std::time::Duration;

use podcreds_tests::{
    needs_privileges,
    soak::{self, Plan},
};

#[test]
#[ignore = "takes minutes, and may find what a change has nothing to do with: cargo xtask soak"]
fn while_everything_changes_at_once_every_answer_is_right() {
    needs_privileges!();
    let plan = Plan {
        seed: 1,
        time: Duration::from_secs(120),
        pods: 12,
        clients: 2,
        progress: Duration::from_secs(30),
    };
    match soak::run(&plan) {
        Ok(report) => eprintln!("{report}"),
        Err(why) => panic!("{why}"),
    }
}
