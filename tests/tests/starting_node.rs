//! A node that starts with many pods. A program of its own, so that no other test takes the
//! processors while hundreds of clients want them.
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a wrong answer fails the test"
)]

use std::collections::BTreeMap;

use podcreds_tests::{
    eks_auth::{Call, Outcome},
    needs_privileges,
    pod::Client,
    scenario::{Scenario, assert_owned},
    wait::until,
};

/// How many pods start together on a large node, and two quotas under which EKS Auth throttles none
/// of their calls.
const LARGE_NODE: usize = 300;
const QUOTAS: [usize; 2] = [100, 1000];
/// How often it is tried.
const ATTEMPTS: usize = 8;

#[test]
fn three_hundred_pods_at_once_are_served_at_the_second_try() {
    needs_privileges!();
    for quota in QUOTAS {
        // A machine that is busy for a second makes pods ask again as well.
        assert!(
            (0..ATTEMPTS).any(|_| nobody_needs_a_third_try(quota)),
            "with {quota} calls/s at EKS Auth, a pod needed a third try each time"
        );
    }
}

/// Starts all pods at once. Whether each was served at its first or second try.
fn nobody_needs_a_third_try(quota: usize) -> bool {
    let scene = Scenario::start();
    scene.eks_auth.throttle_above(quota);
    scene.eks_auth.associate("a", "app", "role");
    let pod = |number| scene.node.pod(&format!("a-{number}"));
    let pods = (0..LARGE_NODE).map(|number| pod(number).account("a", "app").host_network());
    let pods: Vec<_> = pods.map(|pod| pod.start()).collect();
    until("the agent knows all pods", || {
        scene.agent.map_entries("PODS") == pods.len()
    });
    let clients = pods
        .iter()
        .map(|pod| pod.spawn(["patient", "--on-end-of-input"]));
    let mut clients: Vec<_> = clients.collect();
    clients.iter_mut().for_each(Client::end_input);
    let mut tries = BTreeMap::<u64, usize>::new();
    let mut longest = 0;
    for (pod, client) in pods.iter().zip(clients) {
        let answer = client.finish().pop().unwrap();
        assert_owned(&answer, pod);
        *tries.entry(answer["tries"].as_u64().unwrap()).or_default() += 1;
        longest = longest.max(answer["waited_ms"].as_u64().unwrap());
    }
    let calls = scene.eks_auth.calls();
    println!(
        "{LARGE_NODE} pods at once, EKS Auth bears {quota} calls/s: tries {tries:?}, the last pod \
         served after {longest} ms; {} calls, {} throttled",
        calls.len(),
        throttled(&calls),
    );
    assert_eq!(calls.len() - throttled(&calls), LARGE_NODE);
    throttled(&calls) == 0 && tries.keys().all(|tries| *tries <= 2)
}

fn throttled(calls: &[Call]) -> usize {
    let is_throttled = |call: &&Call| matches!(call.outcome, Outcome::Faulted(_));
    calls.iter().filter(is_throttled).count()
}
