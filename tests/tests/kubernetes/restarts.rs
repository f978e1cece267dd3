//! Components of the node that die and come back, while pods go on asking.

use std::time::{Duration, Instant};

use podcreds_tests::{
    cluster::{Cluster, PodSpec, Solitude, agent},
    wait::until,
};

use crate::load::Load;

/// How soon pods must be served again when the agent stands still.
const REPLACED: Duration = Duration::from_secs(30);

/// Kills a component under load, and sees that neither pods that are there notice, nor pods that
/// come.
fn nobody_notices_the_end_of(component: &str, is_back: impl Fn(&Solitude) -> bool) {
    let cluster = Cluster::alone();
    let namespace = cluster.namespace("restart");
    namespace.associated("app", "restart-role");
    let load = Load::start(&namespace);
    cluster.kill_component(component);
    until(&format!("{component} is back"), || is_back(&cluster));
    let pod = namespace.start(&PodSpec::client("after", ["patient"]).account("app"));
    let answer = pod.result();
    assert_eq!(answer["status"], 200, "{answer}");
    pod.assert_owns(&answer["body"]["Token"]);
    let (requests, longest) = load.finish();
    eprintln!("{component} killed under load: {requests} requests, 0 failed, {longest} ms at most");
}

#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn kubelet_may_end() {
    nobody_notices_the_end_of("kubelet", |_| true);
}

#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn containerd_may_end() {
    nobody_notices_the_end_of("containerd", |_| true);
}

#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn the_api_server_may_end() {
    nobody_notices_the_end_of("apiserver", |cluster| cluster.api().is_ready());
}

/// Kubelet's liveness probe is all that notices a process that stands still as a whole.
#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn an_agent_that_is_stopped_is_replaced_within_half_a_minute() {
    let cluster = Cluster::alone();
    let namespace = cluster.namespace("stopped");
    namespace.associated("app", "stopped-role");
    let pod = namespace.start(&PodSpec::new("app").account("app")).ready();
    let is_served = || {
        let answer = pod.client(["get", "--timeout-ms", "1000"]);
        if answer["status"] == 200 {
            pod.assert_owns(&answer["body"]["Token"]);
        }
        answer["status"] == 200
    };
    until("the pod is served", is_served);
    cluster.stop_agent();
    let start = Instant::now();
    assert!(!is_served(), "the agent still answers");
    until("the pod is served again", is_served);
    let took = start.elapsed();
    eprintln!("the agent was stopped: pods were served again after {took:?}");
    assert!(took < REPLACED, "{took:?}");
    until("the agent is ready", || agent::is_rolled_out(cluster.api()));
}
