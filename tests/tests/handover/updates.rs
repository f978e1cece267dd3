//! Updates under load: nobody notices.

use podcreds_tests::{
    agent::{Agent, AgentBuilder},
    needs_privileges,
    scenario::assert_owned,
};

use crate::scene::{Load, Report, Scene, wait_answers, wait_role};

/// What each agent answers before the next one comes.
const ANSWERS: f64 = 500.0;

/// Replaces an agent, as a DaemonSet with `maxSurge: 1` does: the next one gets ready, then this one is told to end.
fn replace(agent: &mut Agent, next: AgentBuilder) {
    wait_answers(agent, ANSWERS);
    let next = next.start();
    let mut before = std::mem::replace(agent, next);
    let status = before.terminate();
    assert!(status.success(), "{status}");
    wait_role(agent, "leader");
}

/// Updates so many times, and says what the pods saw of it.
fn update(times: usize) -> (Scene, Report) {
    let scene = Scene::new();
    let mut agent = scene.agent().start();
    let pods = scene.served_pods();
    scene.eks_auth.forget_calls();
    let load = Load::start(&pods);
    for _ in 0..times {
        replace(&mut agent, scene.agent());
    }
    wait_answers(&agent, ANSWERS);
    let report = load.finish();
    println!(
        "{times} updates, {} pods: {} requests, {} failed {:?}, {} calls to EKS Auth, worst latency {:?}",
        pods.len(),
        report.requests,
        report.failed(),
        report.outcomes,
        scene.eks_auth.call_count(),
        report.worst,
    );
    for pod in &pods {
        assert_owned(&pod.run(["get"]), pod);
    }
    (scene, report)
}

#[track_caller]
fn assert_unnoticed(scene: &Scene, report: &Report) {
    assert_eq!(report.failed(), 0, "{report:?}");
    assert_eq!(scene.eks_auth.call_count(), 0);
}

#[test]
fn an_update_under_load_is_noticed_by_nobody() {
    needs_privileges!();
    let (scene, report) = update(2);
    assert_unnoticed(&scene, &report);
}

#[test]
#[ignore = "takes minutes: cargo test -p podcreds-tests --test handover ten_updates -- --ignored --nocapture"]
fn ten_updates_in_a_row_are_noticed_by_nobody() {
    needs_privileges!();
    let (scene, report) = update(10);
    assert_unnoticed(&scene, &report);
}
