//! Agents that are killed under load: how long pods get nothing, and what they see of it.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use podcreds_tests::{
    agent::Agent,
    needs_privileges,
    pod::Pod,
    privileged::can_run,
    scenario::wait_served,
    sdk::{Got, Sdk},
};

use crate::scene::{Load, PODS, Report, Scene, wait_answers, wait_role};

/// What each agent answers before something happens to it.
const ANSWERS: f64 = 500.0;
/// All that a client may see: the answer, that it is to come back in a second, a connection that was cut, or that nobody
/// is there. None waits in vain.
const POSSIBLE: [&str; 7] = [
    "200",
    "503",
    "ENETUNREACH",
    "ECONNREFUSED",
    "ECONNRESET",
    "EPIPE",
    "closed",
];
/// Pods in which somebody uses boto3 just then.
const APPLICATIONS: usize = 3;

fn kill(mut agent: Agent) -> Instant {
    agent.signal(Signal::SIGKILL);
    agent.wait_exit();
    Instant::now()
}

/// Says what the clients saw of an agent's death.
#[track_caller]
fn tell(what: &str, report: &Report, gap: Duration) {
    println!(
        "{what}: {} requests, {} failed {:?}, served again after {gap:?}, worst latency {:?}",
        report.requests,
        report.failed(),
        report.outcomes,
        report.worst,
    );
    let outcomes: BTreeSet<_> = report.outcomes.keys().map(String::as_str).collect();
    assert!(outcomes.is_subset(&POSSIBLE.into()), "{report:?}");
}

/// An application that gets its credentials through boto3, and what comes of it.
fn application(pod: &Pod) {
    let got = Sdk::Boto3.run(|program| pod.command(program)).unwrap();
    let Got::Credentials(owner) = got else {
        panic!("boto3 got none: {got:?}");
    };
    assert_eq!(owner.uid, pod.uid());
}

#[test]
fn boto3_rides_over_an_agent_that_is_killed_and_started_anew() {
    needs_privileges!();
    if !can_run(Sdk::Boto3.check()) {
        return;
    }
    let scene = Scene::new();
    let agent = scene.agent().start();
    let pods = scene.served_pods(PODS, 0);
    let load = Load::start(&pods);
    wait_answers(&agent, ANSWERS);
    let killed = kill(agent);
    let next = scene.agent().spawn();
    // Nobody serves yet, but on the slowest machine somebody will before boto3 gives up.
    wait_role(&next, "leader");
    let gap = thread::scope(|scope| {
        for pod in &pods[..APPLICATIONS] {
            scope.spawn(|| application(pod));
        }
        wait_served(&pods[APPLICATIONS], []);
        killed.elapsed()
    });
    wait_answers(&next, ANSWERS);
    tell("killed alone", &load.finish(), gap);
}

#[test]
fn an_agent_that_is_killed_beside_its_heir_is_hardly_missed() {
    needs_privileges!();
    let scene = Scene::new();
    let agent = scene.agent().start();
    let pods = scene.served_pods(PODS, 0);
    scene.eks_auth.forget_calls();
    let load = Load::start(&pods);
    let heir = scene.agent().start();
    wait_answers(&agent, ANSWERS);
    let killed = kill(agent);
    wait_served(&pods[0], []);
    let gap = killed.elapsed();
    wait_answers(&heir, ANSWERS);
    tell("killed beside its heir", &load.finish(), gap);
    assert_eq!(scene.eks_auth.call_count(), 0);
    wait_role(&heir, "leader");
}
