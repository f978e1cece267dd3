//! Whatever EKS Auth does, what is valid is served, and what is missing comes once it is over.

use std::time::{Duration, SystemTime};

use podcreds_tests::{
    eks_auth::{Call, Fault, Outcome},
    needs_privileges,
    pod::Pod,
    scenario::{Scenario, assert_owned, wait_known, wait_served},
    wait::{DEADLINE, poll, until},
};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Every way to fail, by the name of the pod that it happens to.
fn faults() -> [(&'static str, Fault); 12] {
    [
        ("throttled", Fault::Throttle { retry_after: None }),
        (
            "throttled-for-a-second",
            Fault::Throttle {
                retry_after: Some(1),
            },
        ),
        ("internal", Fault::internal()),
        ("unavailable", Fault::unavailable()),
        ("slow", Fault::Slow(Duration::from_secs(3))),
        ("silent", Fault::Hang),
        ("reset", Fault::Reset),
        ("truncated", Fault::Truncated),
        ("nonsense", Fault::Nonsense),
        ("incomplete", Fault::Missing("/credentials/sessionToken")),
        ("expired", Fault::Expired),
        // What AWS says to a node whose clock is wrong.
        (
            "clock-skew",
            Fault::Error {
                status: 403,
                code: "InvalidSignatureException",
            },
        ),
    ]
}

/// One pod for each fault. Enough calls a second that they do not wait for each other.
fn pods(scene: &Scenario) -> Vec<(Pod, Fault)> {
    let start = |(name, fault)| (scene.pod(name).start(), fault);
    faults().into_iter().map(start).collect()
}

const MANY_CALLS: [&str; 2] = ["--max-service-qps", "100"];

#[test]
fn each_fault_during_a_first_exchange_ends_in_credentials() {
    needs_privileges!();
    let scene = Scenario::with_args(MANY_CALLS);
    let pods = pods(&scene);
    wait_known(pods.iter().map(|(pod, _)| pod));
    let clients: Vec<_> = pods
        .iter()
        .map(|(pod, fault)| {
            scene.eks_auth.fail_pod(pod.uid(), 1, fault.clone());
            pod.spawn(["patient"])
        })
        .collect();
    for ((pod, fault), client) in pods.iter().zip(clients) {
        let answer = client.finish().pop().unwrap();
        // Anything but 503 would have ended it.
        assert_owned(&answer, pod);
        let calls = scene.eks_auth.calls_for_pod(pod.uid()).len();
        println!(
            "{}: {} tries of the client, {} ms, {calls} calls",
            pod.name(),
            answer["tries"],
            answer["waited_ms"]
        );
        let slow = matches!(fault, Fault::Slow(_));
        assert_eq!(calls, if slow { 1 } else { 2 }, "{}", pod.name());
    }
}

#[test]
fn each_fault_during_a_renewal_fails_no_request() {
    needs_privileges!();
    let renewal = ["--max-credential-retention-before-renewal", "2s"];
    let scene = Scenario::with_args(MANY_CALLS.into_iter().chain(renewal));
    let pods = pods(&scene);
    for (pod, _) in &pods {
        wait_served(pod, []);
    }
    let storms: Vec<_> = pods
        .iter()
        .map(|(pod, fault)| {
            scene.eks_auth.fail_pod(pod.uid(), 1, fault.clone());
            let load = ["--until-end-of-input", "--threads", "2", "--rate", "20"];
            pod.spawn([&["storm"], &load[..]].concat())
        })
        .collect();
    for (pod, _) in &pods {
        let calls = || scene.eks_auth.calls_for_pod(pod.uid());
        let met = poll(DEADLINE * 2, || has_recovered(&calls()).then_some(()));
        assert!(met.is_some(), "{}: {:?}", pod.name(), outcomes(&calls()));
    }
    for ((pod, _), storm) in pods.iter().zip(storms) {
        let tally = storm.finish().pop().unwrap();
        let requests = tally["requests"].clone();
        assert_eq!(tally["outcomes"], json!({ "200": requests }), "{tally}");
        assert_eq!(tally["owners"], json!({ pod.uid(): requests }), "{tally}");
        let keys = tally["keys"].as_object().unwrap().len();
        assert!(keys >= 2, "{} got newer credentials: {tally}", pod.name());
    }
    let metrics = scene.agent.metrics();
    let failed = [("purpose", "refresh"), ("outcome", "failed")];
    let failed = metrics.sum("podcreds_exchange_attempts_total", &failed);
    // All but the slow one.
    assert_eq!(failed, (pods.len() - 1) as f64);
}

/// Errors that EKS Auth, or a proxy on the way there, has for what is in one request.
const REJECTIONS: [(u16, &str); 3] = [
    (400, "InvalidParameterException"),
    (400, "InvalidRequestException"),
    (413, "RequestEntityTooLargeException"),
];

#[test]
fn a_request_that_is_rejected_is_one_tokens_trouble_and_no_outage() {
    needs_privileges!();
    let scene = Scenario::start();
    let pods = REJECTIONS.map(|(status, code)| {
        let pod = scene.known_pod(&code.to_lowercase());
        let fault = Fault::Error { status, code };
        scene.eks_auth.fail_pod(pod.uid(), 1000, fault);
        pod
    });
    for (pod, (_, code)) in pods.iter().zip(REJECTIONS) {
        let answer = pod.run(["get"]);
        assert_eq!(answer["status"], 503, "{answer}");
        let message = answer["body"]["message"].as_str().unwrap_or_default();
        assert!(
            message.contains("EKS Auth rejects the request for this token"),
            "{answer}"
        );
        assert!(message.contains(code), "{answer}");
        let storm = pod.run([
            "storm",
            "--threads",
            "2",
            "--requests",
            "200",
            "--rate",
            "200",
        ]);
        assert_eq!(storm["outcomes"], json!({ "503": 200 }), "{storm}");
        let calls = scene.eks_auth.calls_for_pod(pod.uid()).len();
        assert!(calls <= 2, "{code}: {calls} calls in a second");
    }
    let good = scene.known_pod("good");
    assert_owned(&good.run(["get"]), &good);
    let metrics = scene.agent.metrics();
    let calls = |outcome| {
        let labels = [("outcome", outcome)];
        metrics.sum("podcreds_upstream_request_duration_seconds_count", &labels)
    };
    assert!(calls("rejected") >= 3.0);
    assert_eq!(calls("unavailable"), 0.0);
    assert_eq!(
        metrics.sum("podcreds_upstream_consecutive_failures", &[]),
        0.0
    );
    scene.eks_auth.heal();
    for pod in &pods {
        wait_served(pod, []);
    }
}

/// Whether a call failed, and a later one did not.
fn has_recovered(calls: &[Call]) -> bool {
    let faulted = |call: &Call| matches!(call.outcome, Outcome::Faulted(_));
    let after = calls.iter().skip_while(|call| !faulted(call)).skip(1);
    after.into_iter().any(|call| !faulted(call))
}

fn outcomes(calls: &[Call]) -> Vec<&Outcome> {
    calls.iter().map(|call| &call.outcome).collect()
}

#[test]
fn credentials_are_served_to_their_last_second_and_again_after_the_outage() {
    needs_privileges!();
    let scene = Scenario::start();
    let lifetime = Duration::from_secs(6);
    scene
        .eks_auth
        .associate_for("shop", "brief", "role", lifetime);
    let pod = scene.pod("web").account("shop", "brief").start();
    let held = wait_served(&pod, []);
    scene.eks_auth.fail(Fault::unavailable());
    let expiration = expiration(&held);
    let mut answer = Value::Null;
    until("the credentials have expired", || {
        answer = pod.run(["get"]);
        if answer["status"] == 200 {
            assert_eq!(answer["body"], held["body"]);
        }
        answer["status"] != 200
    });
    assert_eq!(answer["status"], 503, "{answer}");
    assert!(SystemTime::now() >= expiration, "refused what is valid");
    let stale = [("result", "stale")];
    let stale = scene
        .agent
        .metrics()
        .sum("podcreds_cache_requests_total", &stale);
    assert!(stale > 0.0, "nothing was served near its end");

    scene.eks_auth.heal();
    let answer = wait_served(&pod, []);
    assert_ne!(answer["body"], held["body"]);
}

fn expiration(answer: &Value) -> SystemTime {
    let text = answer["body"]["Expiration"].as_str().unwrap();
    OffsetDateTime::parse(text, &Rfc3339).unwrap().into()
}
