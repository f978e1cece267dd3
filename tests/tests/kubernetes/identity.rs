//! Who is who on a real node.

use std::process::Command;

use podcreds_tests::{
    binary,
    cluster::{Cluster, ClusterPod, Container, Namespace, PodSpec},
};
use serde_json::{Value, json};

/// Where kubelet keeps the token of a pod that the webhook has seen.
fn token_of(pod: &ClusterPod) -> String {
    format!(
        "/var/lib/kubelet/pods/{}/volumes/kubernetes.io~projected/eks-pod-identity-token",
        pod.uid()
    )
}

/// A pod that only stands there, with a token of its own.
fn victim(namespace: &Namespace) -> ClusterPod {
    namespace.associated("victim", "victims-role");
    namespace
        .start(&PodSpec::new("victim").account("victim"))
        .ready()
}

fn assert_refused(answer: &Value) {
    assert_eq!(answer["status"], 403, "{answer}");
    assert!(answer.to_string().contains("TokenOfAnotherPod"), "{answer}");
}

#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn another_pods_token_is_refused_however_it_came() {
    let cluster = Cluster::visit();
    let namespace = cluster.namespace("thief");
    let victim = victim(&namespace);
    namespace.associated("thief", "thiefs-role");
    let mount = json!({ "volumeMounts": [{ "name": "stolen", "mountPath": "/stolen" }] });
    let volume =
        json!({ "volumes": [{ "name": "stolen", "hostPath": { "path": token_of(&victim) } }] });
    let stolen = ["get", "--token-file", "/stolen/eks-pod-identity-token"];
    for (name, fields) in [
        ("thief", json!({})),
        ("thief-on-host-network", json!({ "hostNetwork": true })),
    ] {
        let thief = Container::client("main", stolen).with(&mount);
        let spec = PodSpec::running(name, thief).account("thief");
        let answer = namespace.start(&spec.with(&volume).with(&fields)).result();
        assert_refused(&answer);
    }
    // The same token is good where it belongs.
    let answer = victim.client(["get"]);
    assert_eq!(answer["status"], 200, "{answer}");
    victim.assert_owns(&answer["body"]["Token"]);
}

#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn cgroups_that_a_privileged_pod_makes_below_its_own_change_nothing() {
    let cluster = Cluster::visit();
    let namespace = cluster.namespace("cgroups");
    let victim = victim(&namespace);
    namespace.associated("app", "own-role");
    let volumes = json!({ "volumes": [
        { "name": "stolen", "hostPath": { "path": token_of(&victim) } },
        { "name": "cgroups", "hostPath": { "path": "/sys/fs/cgroup" } },
    ] });
    let mounts = json!({
        "securityContext": { "privileged": true },
        "volumeMounts": [
            { "name": "stolen", "mountPath": "/stolen" },
            { "name": "cgroups", "mountPath": "/cgroups" },
        ],
    });
    let client = binary::pod_client().display().to_string();
    // Where cgroup2 is mounted differs from machine to machine.
    let script = format!(
        "set -e
        own=$(sed -n 's/^0:://p' /proc/self/cgroup)
        for root in /cgroups /cgroups/unified; do
            test -e $root/cgroup.procs && test -d $root$own && break
        done
        below=$root$own/kubepods/burstable/pod{uid}
        mkdir -p $below
        {client} get --move-to $below --token-file /stolen/eks-pod-identity-token
        {client} get --move-to $below",
        uid = victim.uid()
    );
    let container = Container::new("main", ["sh", "-c", &script]).with(&mounts);
    let spec = PodSpec::running("privileged", container)
        .account("app")
        .with(&volumes);
    let pod = namespace.start(&spec);
    let printed = pod.output_of("main");
    let answers: Vec<Value> = printed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [with_the_victims, with_its_own] = &answers[..] else {
        panic!("two answers, not {printed}");
    };
    assert_refused(with_the_victims);
    assert_eq!(with_its_own["status"], 200, "{with_its_own}");
    pod.assert_owns(&with_its_own["body"]["Token"]);
}

#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn nothing_of_the_node_itself_is_redirected() {
    let cluster = Cluster::alone();
    let namespace = cluster.namespace("node");
    namespace.associated("app", "own-role");
    let connects = |outcome: &str| {
        let metrics = cluster.agent_metrics();
        metrics.sum("podcreds_kernel_connects_total", &[("outcome", outcome)])
    };
    let outcomes = [
        "redirected_ipv4",
        "redirected_ipv6",
        "unknown_pod",
        "foreign_netns",
    ];
    let before = outcomes.map(connects);
    // One pod asks once. The agent calls EKS Auth for it, and kubelet probes the agent, meanwhile.
    let answer = namespace
        .start(&PodSpec::client("app", ["get"]).account("app"))
        .result();
    assert_eq!(answer["status"], 200, "{answer}");
    // A process of the node asks, as kubelet would. What answers it, if anything, is the node's own
    // address.
    let asked = Command::new(binary::pod_client())
        .args(["get", "--no-token", "--timeout-ms", "500"])
        .output()
        .unwrap();
    assert!(asked.status.success(), "{asked:?}");
    let after = outcomes.map(connects);
    let more = [0, 1, 2, 3].map(|at| after[at] - before[at]);
    assert_eq!(more, [1.0, 0.0, 1.0, 0.0], "{outcomes:?}");
}
