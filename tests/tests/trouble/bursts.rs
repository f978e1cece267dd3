//! Many cold callers at once: of one pod, and of a whole node.

use std::{thread, time::Duration};

use podcreds_tests::{
    eks_auth::{Call, Fault, Outcome},
    needs_privileges,
    node::Node,
    pod::{Client, Pod},
    scenario::{Scenario, assert_owned},
    wait::until,
};
use serde_json::json;

/// Where the callers connect to, and how many there are beside the first one.
const FAMILIES: [(&str, &str); 2] = [("169.254.170.23:80", "249"), ("[fd00:ec2::23]:80", "250")];

#[test]
fn five_hundred_cold_callers_of_one_pod_cost_one_call() {
    needs_privileges!();
    // A busy machine must not make the agent answer any of them with a 503.
    let scene = Scenario::with_args(["--max-request-wait", "4s"]);
    let pod = scene.known_pod("web");
    scene.eks_auth.fail(Fault::Slow(Duration::from_millis(300)));
    // The first caller hangs up once its call is under way. That cancels nothing for the others.
    pod.run(["get", "--hang-up", "requested"]);
    until("the first caller's call is under way", || {
        scene.eks_auth.in_flight() == 1
    });
    let storms = FAMILIES.map(|(destination, callers)| {
        let load = ["--threads", callers, "--requests", callers];
        pod.spawn([&["storm", "--dst", destination], &load[..]].concat())
    });
    for (storm, (_, callers)) in storms.into_iter().zip(FAMILIES) {
        let tally = storm.finish().pop().unwrap();
        let callers: u64 = callers.parse().unwrap();
        assert_eq!(tally["outcomes"], json!({ "200": callers }), "{tally}");
        assert_eq!(tally["owners"], json!({ pod.uid(): callers }), "{tally}");
        println!("{callers} callers: slowest {} us", tally["max_us"]);
    }
    assert_eq!(scene.eks_auth.call_count(), 1);
}

/// How many pods of each namespace start together.
const NAMESPACES: [(&str, usize); 5] = [("a", 240), ("b", 240), ("c", 60), ("d", 30), ("e", 30)];
/// What EKS Auth bears, in calls a second: a quarter of what the agent would make, and less than it
/// makes on a machine that is busy with other things.
const QUOTA: usize = 25;

#[test]
fn six_hundred_cold_pods_are_served_through_throttling() {
    needs_privileges!();
    let scene = Scenario::start();
    scene.eks_auth.throttle_above(QUOTA);
    let pods: Vec<_> = thread::scope(|scope| {
        let threads = NAMESPACES.map(|(namespace, count)| {
            scene.eks_auth.associate(namespace, "app", "role");
            let node = &scene.node;
            scope.spawn(move || start(node, namespace, count))
        });
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    until("the agent knows all pods", || {
        scene.agent.map_entries("PODS") == pods.len()
    });
    let clients = pods
        .iter()
        .map(|pod| pod.spawn(["patient", "--on-end-of-input"]));
    let mut clients: Vec<_> = clients.collect();
    clients.iter_mut().for_each(Client::end_input);
    let mut waits = Vec::new();
    for (pod, client) in pods.iter().zip(clients) {
        let answer = client.finish().pop().unwrap();
        assert_owned(&answer, pod);
        waits.push((answer["waited_ms"].as_u64().unwrap(), pod.name().to_owned()));
    }

    waits.sort();
    let (worst, worst_pod) = &waits[waits.len() - 1];
    let calls = scene.eks_auth.calls();
    let rate = scene
        .agent
        .metrics()
        .sum("podcreds_limiter_calls_per_second", &[]);
    println!(
        "{} pods at once, EKS Auth bears {QUOTA} calls/s: half served after {} ms, all after {worst} ms \
         ({worst_pod}); {} calls, {} throttled, {} of the last 100; {rate:.1} calls/s in the end",
        pods.len(),
        waits[waits.len() / 2].0,
        calls.len(),
        throttled(&calls),
        throttled(&calls[calls.len() - 100..]),
    );
    assert!(throttled(&calls) > 0, "nothing was throttled");
    assert!(
        throttled(&calls[calls.len() - 100..]) < 25,
        "the limiter has not found what EKS Auth bears"
    );
}

fn start(node: &Node, namespace: &str, count: usize) -> Vec<Pod> {
    let pod = |number| node.pod(&format!("{namespace}-{number}"));
    let pods =
        (0..count).map(|number| pod(number).account(namespace, "app").host_network().start());
    pods.collect()
}

fn throttled(calls: &[Call]) -> usize {
    let is_throttled = |call: &&Call| matches!(call.outcome, Outcome::Faulted(_));
    calls.iter().filter(is_throttled).count()
}
