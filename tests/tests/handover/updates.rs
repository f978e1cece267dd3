//! Updates under load lose no request.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use podcreds_tests::{
    agent::{Agent, AgentBuilder},
    binary, needs_privileges, program,
    scenario::assert_owned,
};

use crate::scene::{HOST_PODS, HostPort, Load, PODS, Report, Scene, wait_answers, wait_role};

/// How many requests each agent answers before the next one starts.
const ANSWERS: f64 = 500.0;

/// Replaces an agent, as a DaemonSet with `maxSurge: 1` does: the next one gets ready, then this
/// one is told to end.
fn replace(agent: &mut Agent, next: AgentBuilder) {
    wait_answers(agent, ANSWERS);
    let next = next.start();
    let mut before = std::mem::replace(agent, next);
    let status = before.terminate();
    assert!(status.success(), "{status}");
    wait_role(agent, "leader");
}

/// Prints what the pods got, and checks that no request failed and that EKS Auth was not called.
#[track_caller]
fn assert_nothing_failed(what: &str, scene: &Scene, report: &Report) {
    println!(
        "{what}: {} requests, {} failed {:?}, {} calls to EKS Auth, worst latency {:?}",
        report.requests,
        report.failed(),
        report.outcomes,
        scene.eks_auth.call_count(),
        report.worst,
    );
    assert_eq!(report.failed(), 0, "{report:?}");
    assert_eq!(scene.eks_auth.call_count(), 0);
}

/// Updates under the load of redirected pods, so many times. `agent` makes each agent by its
/// number.
fn update(times: usize, agent: impl Fn(&Scene, usize) -> AgentBuilder) {
    let scene = Scene::new();
    let mut current = agent(&scene, 0).start();
    let pods = scene.served_pods(PODS - HOST_PODS, HOST_PODS);
    scene.eks_auth.forget_calls();
    let load = Load::start(&pods);
    for number in 1..=times {
        replace(&mut current, agent(&scene, number));
    }
    wait_answers(&current, ANSWERS);
    assert_nothing_failed(&format!("{times} updates"), &scene, &load.finish());
    for pod in &pods {
        assert_owned(&pod.run(["get"]), pod);
    }
}

#[test]
fn an_update_under_load_loses_no_request() {
    needs_privileges!();
    update(2, |scene, _| scene.agent());
}

#[test]
#[ignore = "takes a while: cargo test -p podcreds-tests --test handover ten_updates -- --ignored --nocapture"]
fn ten_updates_in_a_row_lose_no_request() {
    needs_privileges!();
    update(10, |scene, _| scene.agent());
}

/// As in an update that does not wait until the new agent is ready.
#[test]
fn a_terminated_agent_waits_until_its_successor_serves() {
    needs_privileges!();
    let scene = Scene::new();
    let mut agent = scene.agent().start();
    let pods = scene.served_pods(PODS, 0);
    scene.eks_auth.forget_calls();
    let load = Load::start(&pods);
    for _ in 0..3 {
        wait_answers(&agent, ANSWERS);
        let next = scene.agent().spawn();
        next.metrics_address();
        let mut before = std::mem::replace(&mut agent, next);
        assert!(before.terminate().success());
    }
    wait_answers(&agent, ANSWERS);
    assert_nothing_failed("3 hasty updates", &scene, &load.finish());
}

/// Another build, as far as it can be told from this one: its revision.
fn other_build(folder: &Path) -> String {
    let version = |program: &Path| {
        let output = Command::new(program).arg("--version").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let this = binary::podcreds();
    let revision = version(&this);
    let revision = revision.split(['(', ')']).nth(1).unwrap();
    let (old, new) = (
        format!("({revision})"),
        format!("({})", "0".repeat(revision.len())),
    );
    let mut bytes = fs::read(&this).unwrap();
    let at = bytes
        .windows(old.len())
        .position(|part| part == old.as_bytes());
    let at = at.unwrap();
    bytes[at..at + new.len()].copy_from_slice(new.as_bytes());
    let other = folder.join("podcreds-other");
    program::write(&other, bytes);
    assert!(version(&other).contains(&new));
    other.to_str().unwrap().to_owned()
}

#[test]
fn an_update_to_another_build_and_back_loses_no_request() {
    needs_privileges!();
    let folder = tempfile::tempdir().unwrap();
    let other = other_build(folder.path());
    update(2, |scene, number| match number {
        1 => scene.agent().binary(&other),
        _ => scene.agent(),
    });
}

/// Each agent gets the listeners of the node path from the one before it. One successor is
/// terminated before it leads.
#[test]
fn an_update_on_the_node_path_loses_no_request() {
    needs_privileges!();
    let (scene, port) = (Scene::new(), HostPort::find());
    let start = || scene.with_folder(port.serve(Agent::on(&scene.node, &scene.eks_auth), "node"));
    let mut agent = start().start();
    let pods = scene.host_pods(&port);
    scene.eks_auth.forget_calls();
    let load = Load::to(&pods, &port.destinations());
    replace(&mut agent, start());
    wait_answers(&agent, ANSWERS);
    let mut retracted = start().start();
    wait_answers(&retracted, ANSWERS);
    assert!(retracted.terminate().success());
    replace(&mut agent, start());
    wait_answers(&agent, ANSWERS);
    assert_nothing_failed("updates on the node path", &scene, &load.finish());
    // A program that listens on the same port would be sent other pods' tokens.
    assert!(!port.lets_others_in());
}

/// Updates of both paths under the load of redirected pods and of direct callers, so many times.
fn update_both_paths(times: usize, choose: impl Fn(AgentBuilder, usize) -> AgentBuilder) {
    let (scene, port) = (Scene::new(), HostPort::find());
    let start = |number| {
        let agent = port.serve(Agent::on(&scene.node, &scene.eks_auth), "auto");
        scene.with_folder(choose(agent, number))
    };
    let mut agent = start(0).start();
    let (redirected, direct) = (scene.served_pods(PODS, 0), scene.host_pods(&port));
    scene.eks_auth.forget_calls();
    let loads = [
        Load::start(&redirected),
        Load::to(&direct, &port.destinations()),
    ];
    for number in 1..=times {
        replace(&mut agent, start(number));
    }
    wait_answers(&agent, ANSWERS);
    for (what, load) in ["redirected pods", "direct callers"].into_iter().zip(loads) {
        assert_nothing_failed(what, &scene, &load.finish());
    }
}

#[test]
fn an_update_of_both_paths_at_once_loses_no_request() {
    needs_privileges!();
    update_both_paths(2, |agent, _| agent);
}

/// The agent of an earlier release, where the environment names one.
fn earlier_release() -> Option<PathBuf> {
    let path = env::var_os("PODCREDS_OLD_AGENT").map(PathBuf::from);
    if path.is_none() {
        eprintln!("skipped: PODCREDS_OLD_AGENT does not name the agent of an earlier release");
    }
    path
}

#[test]
fn an_update_from_an_earlier_release_and_back_loses_no_request() {
    needs_privileges!();
    let Some(earlier) = earlier_release() else {
        return;
    };
    update(2, |scene, number| match number {
        1 => scene.agent(),
        _ => scene.agent().binary(&earlier),
    });
}

#[test]
fn an_update_of_both_paths_from_an_earlier_release_and_back_loses_no_request() {
    needs_privileges!();
    let Some(earlier) = earlier_release() else {
        return;
    };
    update_both_paths(2, |agent, number| match number {
        1 => agent,
        _ => agent.binary(&earlier),
    });
}
