//! What changes in the life of a pod: its role, its token, its containers, its node.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use podcreds_tests::{
    binary,
    cluster::{BUSYBOX, Cluster, ClusterPod, Container, PodSpec},
    wait::until,
};
use serde_json::{Value, json};

const TOKEN: &str = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token";

/// The token that kubelet has put into a pod, unless kubelet cannot be asked.
fn token(pod: &ClusterPod) -> Option<String> {
    let output = pod.exec(["cat", TOKEN]);
    let token = String::from_utf8(output.stdout).ok()?;
    output.status.success().then_some(token)
}

#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn a_role_comes_late_and_goes_away() {
    let cluster = Cluster::visit();
    let namespace = cluster.namespace("late");
    namespace.associated("app", "first-role");
    let [pod, other] =
        ["pod", "other"].map(|name| namespace.start(&PodSpec::new(name).account("app")).ready());
    namespace.dissociate("app");
    let refused = pod.client(["get"]);
    assert_eq!(refused["status"], 404, "{refused}");
    assert!(
        refused.to_string().contains("ResourceNotFoundException"),
        "{refused}"
    );
    namespace.associate("app", "second-role");
    let mut answer = Value::Null;
    until("the pod gets the role that came late", || {
        answer = pod.client(["get"]);
        answer["status"] == 200
    });
    pod.assert_owns(&answer["body"]["Token"]);
    assert!(answer.to_string().contains("second-role"), "{answer}");
    namespace.dissociate("app");
    let refused = other.client(["get"]);
    assert_eq!(
        refused["status"], 404,
        "a pod that has nothing yet gets nothing: {refused}"
    );
    let kept = pod.client(["get"]);
    assert_eq!(
        kept["status"], 200,
        "what was fetched is good until it expires: {kept}"
    );
}

#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn a_token_that_kubelet_rotates_keeps_its_credentials() {
    let cluster = Cluster::alone();
    let namespace = cluster.namespace("rotated");
    namespace.associated("app", "rotated-role");
    let pod = namespace.start(&PodSpec::new("pod").account("app")).ready();
    let before = pod.client(["get"]);
    assert_eq!(before["status"], 200, "{before}");
    let old = token(&pod).unwrap();
    // A kubelet that starts knows of no token, and gets new ones.
    cluster.kill_component("kubelet");
    until("kubelet rotates the token", || {
        token(&pod).is_some_and(|token| token != old)
    });
    let after = pod.client(["get"]);
    assert_eq!(after["status"], 200, "{after}");
    let key = |answer: &Value| answer["body"]["AccessKeyId"].clone();
    assert_eq!(key(&after), key(&before), "EKS Auth was not asked again");
    let with_old = pod.client(["get", "--token", &old]);
    assert_eq!(
        key(&with_old),
        key(&before),
        "who has read the old one is served: {with_old}"
    );
}

#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn a_container_that_is_added_for_debugging_is_the_pod() {
    let cluster = Cluster::visit();
    let namespace = cluster.namespace("debug");
    namespace.associated("app", "debug-role");
    let pod = namespace.start(&PodSpec::new("pod").account("app")).ready();
    let ask = format!(
        "wget -qO- --header \"Authorization: $(cat /proc/1/root{TOKEN})\" http://169.254.170.23/v1/credentials"
    );
    let image = format!("--image={BUSYBOX}");
    let options = [
        "--image-pull-policy=Never",
        "--target=main",
        "--profile=general",
    ];
    let target = [
        "debug",
        "--namespace",
        namespace.name(),
        "pod",
        "--container=debugger",
    ];
    let command = ["--", "sh", "-c", &ask];
    let words = target.into_iter().chain([image.as_str()]);
    cluster.run_kubectl(words.chain(options).chain(command));
    until("the debugger has ended", || {
        let status = pod.object()["status"]["ephemeralContainerStatuses"][0].clone();
        status["state"]["terminated"].is_object()
    });
    let log = pod.log("debugger");
    let answer: Value = serde_json::from_str(&log).unwrap_or_else(|why| panic!("{why}: {log}"));
    pod.assert_owns(&answer["Token"]);
}

#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn a_node_is_drained() {
    let cluster = Cluster::alone();
    let pods_known = || cluster.agent_metrics().sum("podcreds_pods", &[]);
    let namespace = cluster.namespace("drain");
    namespace.associated("app", "drain-role");
    let before = pods_known();
    let client = binary::pod_client().display().to_string();
    // Asks for the first time when it is told to end, as who saves its work does.
    let script = format!("trap '{client} patient; exit' TERM; echo up; sleep infinity & wait");
    let container = Container::new("main", ["sh", "-c", &script]);
    let spec = PodSpec::running("pod", container).account("app");
    let pod = namespace
        .start(&spec.with(&json!({ "terminationGracePeriodSeconds": 30 })))
        .ready();
    let mut follow = cluster
        .kubectl(["logs", "--follow", "--namespace", namespace.name(), "pod"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "up");
    cluster.run_kubectl(["drain", "node", "--ignore-daemonsets", "--force"]);
    let last = lines.next().unwrap().unwrap();
    follow.wait().unwrap();
    let answer: Value = serde_json::from_str(&last).unwrap();
    assert_eq!(answer["status"], 200, "{answer}");
    pod.assert_owns(&answer["body"]["Token"]);
    until("the agent has forgotten the pod", || pods_known() == before);
    cluster.run_kubectl(["uncordon", "node"]);
    let pod = namespace.start(&PodSpec::client("after", ["patient"]).account("app"));
    let answer = pod.result();
    pod.assert_owns(&answer["body"]["Token"]);
}
