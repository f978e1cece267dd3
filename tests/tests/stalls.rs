//! An agent that stands still, as a whole or in one of its threads, and how soon pods are served again.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::{
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use podcreds_tests::{
    agent::Agent,
    eks_auth::EksAuth,
    needs_privileges,
    node::Node,
    scenario::{Scenario, assert_owned, wait_served},
};

/// From sysexits.h: EX_SOFTWARE.
const STALLED: Option<i32> = Some(70);
/// How soon an agent of which a part stands still must have ended.
const LIMIT: Duration = Duration::from_secs(10);
/// How long the whole process stands still: longer than one of its parts may.
const SUSPENDED: Duration = Duration::from_secs(12);

/// Stops a thread, and sees that the agent ends and says which, and that the next agent serves.
fn the_next_agent_serves_after(thread: &str, named: &str) {
    let mut scene = Scenario::start();
    let pod = scene.served_pod("web");
    let stopped = scene.agent.stop_thread(thread);
    let start = Instant::now();
    stopped.wait_gone();
    let status = scene.agent.wait_exit();
    let took = start.elapsed();
    println!("{thread} stood still: ended after {took:?}");
    let words = scene.agent.logs().to_the_end().pop().unwrap();
    assert_eq!(status.code(), STALLED, "{words:?}");
    assert_eq!(words.level, "ERROR", "{words:?}");
    let said = format!("{named} has done nothing for ");
    assert!(words.message.starts_with(&said), "{words:?}");
    assert!(took < LIMIT, "{took:?}");
    let _next = Agent::on(&scene.node, &scene.eks_auth).start();
    wait_served(&pod, []);
}

#[test]
fn a_serving_thread_that_stands_still_ends_the_agent() {
    needs_privileges!();
    the_next_agent_serves_after("podcreds", "the serving runtime");
}

#[test]
fn a_control_thread_that_stands_still_ends_the_agent() {
    needs_privileges!();
    the_next_agent_serves_after("control", "the control runtime");
}

#[test]
fn a_datapath_thread_that_stands_still_ends_the_agent() {
    needs_privileges!();
    the_next_agent_serves_after("datapath", "the datapath's thread");
}

#[test]
fn a_standby_serves_in_place_of_an_agent_that_stands_still() {
    needs_privileges!();
    let folder = tempfile::tempdir().unwrap();
    let meet = ["--handover-dir", folder.path().to_str().unwrap()];
    let mut scene = Scenario::run(Node::new(), EksAuth::start(), |agent| {
        agent.set(meet[0], meet[1])
    });
    let pod = scene.served_pod("web");
    let standby = Agent::on(&scene.node, &scene.eks_auth).set(meet[0], meet[1]);
    let _standby = standby.start();
    let stopped = scene.agent.stop_thread("podcreds");
    let start = Instant::now();
    stopped.wait_gone();
    assert_eq!(scene.agent.wait_exit().code(), STALLED);
    wait_served(&pod, []);
    let took = start.elapsed();
    println!("beside a standby: served again after {took:?}");
    assert!(took < LIMIT, "{took:?}");
    assert_eq!(scene.eks_auth.call_count(), 1);
}

/// The time is what this is about, so it has to pass.
#[test]
fn an_agent_that_was_suspended_goes_on() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = scene.served_pod("web");
    for _ in 0..2 {
        scene.agent.signal(Signal::SIGSTOP);
        thread::sleep(SUSPENDED);
        scene.agent.signal(Signal::SIGCONT);
        // More than one look of the watchdog's.
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(2) {
            assert_owned(&pod.run(["get", "--timeout-ms", "5000"]), &pod);
        }
    }
    assert_eq!(scene.agent.probe("/healthz"), 200);
}
