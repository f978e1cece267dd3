//! Agents that are killed under load: for how long pods get no credentials, and which errors they
//! get.

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

/// How many requests each agent answers before it is killed.
const ANSWERS: f64 = 500.0;
/// All that a client may get: credentials, a 503, a connection that was reset, or one that was
/// refused. No client times out.
const POSSIBLE: [&str; 7] = [
    "200",
    "503",
    "ENETUNREACH",
    "ECONNREFUSED",
    "ECONNRESET",
    "EPIPE",
    "closed",
];
/// Pods in which an application uses boto3 meanwhile.
const APPLICATIONS: usize = 3;

fn kill(mut agent: Agent) -> Instant {
    agent.signal(Signal::SIGKILL);
    agent.wait_exit();
    Instant::now()
}

/// Prints what clients got while an agent was killed, and checks that it is [`POSSIBLE`].
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

/// Gets a pod's credentials through boto3, and checks that they are the pod's.
fn application(pod: &Pod) {
    let got = Sdk::Boto3.run(|program| pod.command(program)).unwrap();
    let Got::Credentials(owner) = got else {
        panic!("boto3 got none: {got:?}");
    };
    assert_eq!(owner.uid, pod.uid());
}

#[test]
fn boto3_gets_credentials_while_the_agent_is_killed_and_restarted() {
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
    // No agent serves yet, but the next one does before boto3 gives up.
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
fn the_successor_serves_at_once_when_its_leader_is_killed() {
    needs_privileges!();
    let scene = Scene::new();
    let agent = scene.agent().start();
    let pods = scene.served_pods(PODS, 0);
    scene.eks_auth.forget_calls();
    let load = Load::start(&pods);
    let successor = scene.agent().start();
    wait_answers(&agent, ANSWERS);
    let killed = kill(agent);
    wait_served(&pods[0], []);
    let gap = killed.elapsed();
    wait_answers(&successor, ANSWERS);
    tell("killed beside its successor", &load.finish(), gap);
    assert_eq!(scene.eks_auth.call_count(), 0);
    wait_role(&successor, "leader");
}
