//! Pods of every shape: each gets its own role's credentials, over the address that it was told.

use podcreds_tests::{
    binary,
    cluster::{Cluster, Container, Namespace, PodSpec, Visit},
};
use serde_json::{Value, json};

const ROLE: &str = "shape-role";

/// A namespace with a service account `app` that has a role.
fn scene(cluster: &Visit) -> Namespace {
    let namespace = cluster.namespace("shapes");
    namespace.associated("app", ROLE);
    namespace
}

/// One request, as soon as the container starts; a second if it is told to come back.
fn patient() -> Container {
    Container::client("main", ["patient"])
}

/// Runs a pod to its end, and checks what its first container got.
fn gets_its_own(namespace: &Namespace, spec: PodSpec) -> Value {
    let pod = namespace.start(&spec.account("app"));
    let answer = pod.result();
    assert_eq!(answer["status"], 200, "{answer}");
    pod.assert_owns(&answer["body"]["Token"]);
    answer
}

#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn pods_of_each_class_are_found() {
    let cluster = Cluster::visit();
    let namespace = scene(&cluster);
    let resources = json!({ "cpu": "20m", "memory": "32Mi" });
    for (class, fields) in [
        (
            "Guaranteed",
            json!({ "limits": resources, "requests": resources }),
        ),
        ("Burstable", json!({ "requests": resources })),
        ("BestEffort", json!({})),
    ] {
        let container = patient().with(&json!({ "resources": fields }));
        let spec = PodSpec::running(&class.to_lowercase(), container).account("app");
        let pod = namespace.start(&spec);
        let answer = pod.result();
        assert_eq!(pod.object()["status"]["qosClass"], class);
        assert_eq!(answer["status"], 200, "{class}: {answer}");
        pod.assert_owns(&answer["body"]["Token"]);
    }
}

#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn all_containers_of_a_pod_are_the_pod() {
    let cluster = Cluster::visit();
    let namespace = scene(&cluster);
    // The init container cannot do without: the others start only if it succeeds.
    let init = Container::client("first", ["patient"]).init();
    // It must go on running: the others wait until kubelet has seen it run.
    let asks = format!(
        "{} storm --requests 5 --rate 10
        trap exit TERM
        sleep infinity & wait",
        binary::pod_client().display()
    );
    let sidecar = Container::new("beside", ["sh", "-ec", &asks])
        .init()
        .with(&json!({ "restartPolicy": "Always" }));
    let second = Container::client("second", ["patient"]);
    let spec = PodSpec::running("several", patient())
        .account("app")
        .container(init)
        .container(sidecar)
        .container(second);
    let pod = namespace.start(&spec);
    for container in ["main", "first", "second"] {
        let printed = pod.output_of(container);
        let answer: Value = serde_json::from_str(printed.trim()).unwrap();
        assert_eq!(answer["status"], 200, "{container}: {answer}");
        pod.assert_owns(&answer["body"]["Token"]);
    }
    let printed = pod.output_of("beside");
    let storm: Value = serde_json::from_str(printed.lines().next().unwrap()).unwrap();
    assert_eq!(storm["owners"], json!({ pod.uid(): 5 }), "{storm}");
}

#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn pods_in_the_nodes_namespaces_are_told_apart() {
    let cluster = Cluster::visit();
    let namespace = scene(&cluster);
    for (name, fields) in [
        ("host-network", json!({ "hostNetwork": true })),
        ("host-network-too", json!({ "hostNetwork": true })),
        ("host-pid", json!({ "hostPID": true })),
        (
            "host-both",
            json!({ "hostNetwork": true, "hostPID": true, "hostIPC": true }),
        ),
    ] {
        gets_its_own(&namespace, PodSpec::running(name, patient()).with(&fields));
    }
}

#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn a_network_policy_on_link_local_addresses_does_not_matter() {
    let cluster = Cluster::visit();
    let namespace = scene(&cluster);
    let rules = "nft add table inet egress
        nft add chain inet egress out '{ type filter hook output priority 0; }'
        nft add rule inet egress out ip daddr 169.254.0.0/16 counter drop";
    let policy = Container::new("policy", ["sh", "-ec", rules])
        .init()
        .with(&json!({ "securityContext": { "capabilities": { "add": ["NET_ADMIN"] } } }));
    gets_its_own(
        &namespace,
        PodSpec::running("behind-a-policy", patient()).container(policy.clone()),
    );
    // The rule does drop what is not redirected.
    let other = [
        "get",
        "--no-token",
        "--dst",
        "169.254.170.24:80",
        "--timeout-ms",
        "500",
    ];
    let spec = PodSpec::client("dropped", other).container(policy);
    let dropped = namespace.start(&spec).result();
    assert_eq!(dropped["error"], "timeout", "{dropped}");
}

#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn a_pod_without_ipv4_is_served() {
    let cluster = Cluster::visit();
    let namespace = scene(&cluster);
    // Without the way to the node's own address either: what answers is in the pod.
    let only_ipv6 = "ip -4 address flush dev eth0
        ip -4 address flush dev lo
        nft add table inet egress
        nft add chain inet egress out '{ type filter hook output priority 0; }'
        nft add rule inet egress out ip6 daddr fd00:ec2::/32 counter drop";
    let init = Container::new("only-ipv6", ["sh", "-ec", only_ipv6])
        .init()
        .with(&json!({ "securityContext": { "capabilities": { "add": ["NET_ADMIN"] } } }));
    let client = Container::client(
        "main",
        [
            "patient",
            "--dst",
            "[fd00:ec2::23]:80",
            "--v6only",
            "--host",
            "[fd00:ec2::23]",
        ],
    );
    gets_its_own(
        &namespace,
        PodSpec::running("only-ipv6", client).container(init),
    );
}
