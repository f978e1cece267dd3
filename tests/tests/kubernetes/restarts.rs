//! Components of the node that die and come back, while pods go on asking.

use podcreds_tests::{
    cluster::{Cluster, PodSpec, Solitude},
    wait::until,
};

use crate::load::Load;

/// Kills a component under load, and sees that neither pods that are there notice, nor pods that come.
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
