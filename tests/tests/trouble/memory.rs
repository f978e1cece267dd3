//! What is remembered, for how long, and how much of it.

use std::time::{Duration, Instant};

use podcreds_tests::{
    eks_auth::Fault,
    needs_privileges,
    scenario::{Scenario, assert_owned, wait_known, wait_served},
    wait::until,
};
use serde_json::json;

#[test]
fn a_crash_loop_without_a_role_costs_little_and_a_new_role_works_within_seconds() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = scene.pod("crashing").account("shop", "nobody").start();
    wait_known([&pod]);
    let started = Instant::now();
    let storm = pod.run([
        "storm",
        "--threads",
        "4",
        "--requests",
        "400",
        "--rate",
        "80",
    ]);
    assert_eq!(storm["outcomes"], json!({ "404": 400 }), "{storm}");
    let calls = scene.eks_auth.calls_for_pod(pod.uid()).len();
    // The first refusal is believed for three seconds, the second for six.
    let seconds = started.elapsed().as_secs_f64();
    assert!(
        calls as f64 <= 2.0 + seconds / 3.0,
        "{calls} in {seconds} s"
    );

    scene.eks_auth.associate("shop", "nobody", "late");
    let associated = Instant::now();
    let answer = wait_served(&pod, []);
    assert_owned(&answer, &pod);
    println!(
        "400 requests in {seconds:.1} s cost {calls} calls; a new association works after {:.1} s",
        associated.elapsed().as_secs_f64()
    );
}

/// A pod's cgroup goes and is made again with the same UID, as kubelet does it.
#[test]
fn a_pod_that_comes_back_with_its_uid_is_cached_as_before() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = scene.served_pod("web");
    let uid = pod.uid().to_owned();
    drop(pod);
    for life in 2..=3 {
        until("the agent has forgotten the pod", || {
            scene.agent.map_entries("PODS") == 0
        });
        scene.eks_auth.forget_calls();
        let pod = scene.pod("web").uid(&uid).start();
        wait_served(&pod, []);
        let storm = pod.run(["storm", "--threads", "4", "--requests", "100"]);
        assert_eq!(storm["outcomes"], json!({ "200": 100 }), "{storm}");
        let calls = scene.eks_auth.calls_for_pod(&uid).len();
        assert_eq!(calls, 1, "in its life number {life}");
    }
}

#[test]
fn a_full_cache_makes_room_and_serves_all() {
    needs_privileges!();
    let scene = Scenario::with_args(["--max-cache-size", "2", "--max-service-qps", "100"]);
    let pods = ["one", "two", "three", "four"].map(|name| scene.served_pod(name));
    let entries = |count| scene.agent.metrics().sum("podcreds_cache_entries", &[]) == count;
    assert!(entries(2.0));
    let evicted = scene
        .agent
        .metrics()
        .sum("podcreds_cache_evictions_total", &[]);
    assert_eq!(evicted, 2.0);
    // The last two are cached, and stay so while others come: in turn, the least recently used
    // goes.
    assert_owned(&pods[2].run(["get"]), &pods[2]);
    assert_owned(&pods[3].run(["get"]), &pods[3]);
    assert_eq!(scene.eks_auth.call_count(), 4);
    assert_owned(&pods[2].run(["get"]), &pods[2]);
    assert_owned(&pods[0].run(["get"]), &pods[0]);
    assert_owned(&pods[2].run(["get"]), &pods[2]);
    assert_eq!(scene.eks_auth.call_count(), 5);
    assert!(entries(2.0));
}

#[test]
fn without_a_cache_every_request_is_a_call_and_a_crowd_still_one() {
    needs_privileges!();
    for off in [
        ["--max-cache-size", "0"],
        ["--max-credential-retention-before-renewal", "0"],
    ] {
        let scene = Scenario::with_args(off.into_iter().chain(["--max-service-qps", "100"]));
        let pod = scene.known_pod("web");
        for calls in 1..=3 {
            assert_owned(&pod.run(["get"]), &pod);
            assert_eq!(scene.eks_auth.call_count(), calls, "{off:?}");
        }
        scene.eks_auth.fail(Fault::Slow(Duration::from_millis(500)));
        let crowd = pod.spawn(["storm", "--threads", "50", "--requests", "50"]);
        let tally = crowd.finish().pop().unwrap_or_default();
        assert_eq!(tally["outcomes"], json!({ "200": 50 }), "{tally}");
        assert_eq!(scene.eks_auth.call_count(), 4, "{off:?}");

        // Slower than a request waits: a pod that asks again gets the answer, after one call.
        scene.eks_auth.heal();
        scene
            .eks_auth
            .fail_next(1, Fault::Slow(Duration::from_secs(2)));
        let answer = pod.run(["patient"]);
        assert_owned(&answer, &pod);
        assert!(answer["tries"].as_u64() > Some(1), "{answer}");
        assert_eq!(scene.eks_auth.call_count(), 5, "{off:?}");
        until("nothing is kept", || {
            scene.agent.metrics().sum("podcreds_cache_entries", &[]) == 0.0
        });
    }
}
