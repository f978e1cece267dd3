//! Pods that ask before anybody had time to notice them, and many of them.

use std::collections::BTreeMap;

use podcreds_tests::{
    binary,
    cluster::{Cluster, ClusterPod, Container, Namespace, PodSpec},
    wait::until,
};
use serde_json::{Value, json};

/// How many pods are raced against.
const PODS: usize = 100;
/// How many of them are there at once.
const AT_ONCE: usize = 20;

/// The two answers of a pod: to its very first connect, and in the end.
fn answers(pod: &ClusterPod) -> (Value, Value) {
    let printed = pod.output_of("main");
    let mut lines = printed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    (lines.next().unwrap(), lines.next().unwrap())
}

/// Waits until a number of an object's status is as wanted. The API server may be slow meanwhile.
fn wait_status(namespace: &Namespace, path: &str, field: &str, wanted: usize) {
    until(&format!("{field} of {path} is {wanted}"), || {
        let object = namespace.cluster().api().get(path).unwrap_or_default();
        object["status"][field].as_u64().unwrap_or_default() == wanted as u64
    });
}

#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn the_first_connect_of_a_pod_that_lives_for_a_second_is_answered() {
    let cluster = Cluster::alone();
    let namespace = cluster.namespace("race");
    namespace.associated("app", "race-role");
    // Without a token the answer is 400 as soon as the pod is known, and tells nothing of EKS Auth.
    let client = binary::pod_client().display().to_string();
    let script = format!("{client} get --no-token --timeout-ms 2000; exec {client} patient");
    let container = Container::new("main", ["sh", "-c", &script]);
    let job = json!({
        "metadata": { "name": "race" },
        "spec": {
            "completions": PODS,
            "parallelism": AT_ONCE,
            "template": { "spec": PodSpec::running("race", container).account("app").spec(&cluster) },
        },
    });
    namespace.create(&namespace.path_in("batch/v1", "jobs"), &job);
    let path = namespace.path_in("batch/v1", "jobs/race");
    let left_alone = || {
        let metrics = cluster.agent_metrics();
        let outcomes = ["unknown_pod", "foreign_netns", "failed"];
        let count =
            |outcome| metrics.sum("podcreds_kernel_connects_total", &[("outcome", outcome)]);
        outcomes.map(count).iter().sum::<f64>()
    };
    let before = left_alone();
    for tenth in 1..=10 {
        until("another tenth of the pods has ended", || {
            let job = cluster.api().get(&path).unwrap_or_default();
            job["status"]["succeeded"].as_u64().unwrap_or_default() as usize >= PODS * tenth / 10
        });
    }
    let pods = namespace.pods();
    assert_eq!(pods.len(), PODS, "no pod had to be tried again");
    let mut first = BTreeMap::<String, usize>::new();
    let mut latencies = Vec::new();
    for pod in &pods {
        let (raced, answer) = answers(pod);
        let outcome = raced["error"]
            .as_str()
            .map_or_else(|| raced["status"].to_string(), str::to_owned);
        *first.entry(outcome).or_default() += 1;
        latencies.extend(raced["latency_us"].as_u64());
        assert_eq!(answer["status"], 200, "pod {}: {answer}", pod.name());
        pod.assert_owns(&answer["body"]["Token"]);
    }
    latencies.sort_unstable();
    let at = |quantile: usize| latencies.get((latencies.len() - 1) * quantile / 100);
    eprintln!(
        "first connects of {PODS} pods: {first:?}, of which {} were not redirected; answered within {:?} us at the median, {:?} us at p90, {:?} us at most",
        left_alone() - before,
        at(50),
        at(90),
        at(100)
    );
    assert_eq!(
        first,
        BTreeMap::from([("400".to_owned(), PODS)]),
        "each first connect is answered"
    );
}

#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn a_deployment_comes_and_goes() {
    const REPLICAS: usize = 30;
    let cluster = Cluster::alone();
    let pods_known = || cluster.agent_metrics().sum("podcreds_pods", &[]);
    let namespace = cluster.namespace("scale");
    namespace.associated("app", "scale-role");
    let client = binary::pod_client().display().to_string();
    let script =
        format!("{client} patient > /tmp/answer && touch /tmp/served; exec sleep infinity");
    let ready = json!({ "readinessProbe": {
        "exec": { "command": ["cat", "/tmp/served"] },
        "periodSeconds": 1,
    } });
    let container = Container::new("main", ["sh", "-c", &script]).with(&ready);
    let spec = PodSpec::running("scale", container).account("app");
    let mut template = json!({
        "metadata": { "labels": { "app": "scale" } },
        "spec": spec.spec(&cluster),
    });
    template["spec"]["restartPolicy"] = "Always".into();
    let deployment = json!({
        "metadata": { "name": "scale" },
        "spec": {
            "replicas": 0,
            "selector": { "matchLabels": { "app": "scale" } },
            "template": template,
        },
    });
    namespace.create(&namespace.path_in("apps/v1", "deployments"), &deployment);
    let path = namespace.path_in("apps/v1", "deployments/scale");
    let scale = |replicas: usize| {
        let fields = json!({ "spec": { "replicas": replicas } });
        cluster.api().patch(&path, &fields).unwrap();
    };
    let before = pods_known();
    scale(REPLICAS);
    wait_status(&namespace, &path, "readyReplicas", REPLICAS);
    assert_eq!(pods_known(), before + REPLICAS as f64);
    for pod in namespace.pods() {
        let answer = pod.exec(["cat", "/tmp/answer"]);
        let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
        assert_eq!(answer["status"], 200, "{answer}");
        pod.assert_owns(&answer["body"]["Token"]);
    }
    scale(0);
    until("all pods are gone", || namespace.pods().is_empty());
    until("the agent has forgotten them", || pods_known() <= before);
}
