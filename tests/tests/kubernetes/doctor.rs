//! `podcreds doctor`, as it is run on a cluster: in the agent's container, which sees the cgroups
//! for reading only and is in a cgroup namespace of its own.

use podcreds_tests::cluster::{Cluster, PodSpec, agent};
use serde_json::Value;

/// Checks that everything that a doctor looks at is well.
fn assert_green(cluster: &Cluster, what: &[&str]) {
    let daemon_set = format!("daemonset/{}", agent::NAME);
    let start = ["--namespace", agent::NAMESPACE, "exec", &daemon_set, "--"];
    let doctor = ["/podcreds", "doctor", "--output", "json"];
    let words = start.iter().chain(&doctor).chain(what).copied();
    let output = cluster.kubectl(words).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(&printed).unwrap_or_default();
    let said = String::from_utf8_lossy(&output.stderr);
    let checks = report["checks"].as_array();
    let checks = checks.unwrap_or_else(|| panic!("{printed}{said}"));
    // This node is in a cgroup of the machine's, so its own root is none. The doctor warns of that.
    let is_good = |check: &&Value| check["status"] == "pass" || check["check"] == "cgroup";
    let bad: Vec<_> = checks.iter().filter(|it| !is_good(it)).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert!(output.status.success(), "{printed}{said}");
}

#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn a_healthy_node_and_a_healthy_pod_are_all_green_to_a_doctor() {
    let cluster = Cluster::alone();
    let namespace = cluster.namespace("doctor");
    namespace.associated("app", "doctor-role");
    let pod = namespace.start(&PodSpec::new("app").account("app")).ready();
    assert_green(&cluster, &[]);
    let name = format!("{}/{}", namespace.name(), pod.name());
    assert_green(&cluster, &["pod", &name]);
    assert_green(&cluster, &["pod", pod.uid()]);
}
