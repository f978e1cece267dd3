//! Every kind of client gets its own pod's credentials, in the form that SDKs read.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper of tests fails the test"
)]

use std::time::{Duration, SystemTime};

use podcreds_tests::{
    agent::Metrics,
    aws::{ACCOUNT, Owner},
    eks_auth::{EksAuth, Outcome, ROLE_LIFETIME, TARGET_ROLE_LIFETIME},
    needs_privileges,
    pod::URI_IPV6,
    privileged,
    scenario::{Road, Scenario, assert_owned, wait_served},
    sdk::{Got, Sdk},
    wire,
};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

const HOST: &str = "Host: 169.254.170.23\r\n";

/// What botocore sends, by urllib3.
const BOTO: &str = "Host: 169.254.170.23\r\nAccept-Encoding: identity\r\n\
                    User-Agent: python-urllib3/2.7.0\r\nAccept: application/json\r\n";

/// What the Go SDK sends.
const GO: [&str; 5] = [
    "User-Agent: aws-sdk-go-v2/1.41.0 ua/2.1 os/linux lang/go#1.26.0 md/GOOS#linux",
    "Accept: application/json",
    "Amz-Sdk-Invocation-Id: 6a3f2a0e-5f0e-4a54-8c4e-0d4ffb6a7f5e",
    "Amz-Sdk-Request: attempt=1; max=3",
    "Accept-Encoding: gzip",
];

/// Makes two tests of each function: one for each road.
macro_rules! on_both_roads {
    ($($test:ident),+ $(,)?) => {$(
        mod $test {
            use super::{Road, needs_privileges};

            #[test]
            fn in_pod() {
                needs_privileges!();
                super::$test(Road::InPod);
            }

            #[test]
            fn on_the_node_path() {
                needs_privileges!();
                super::$test(Road::Node);
            }
        }
    )+};
}

on_both_roads![
    five_thousand_connections_of_64_callers_are_identified,
    clients_that_use_a_connection_once_are_served,
    the_go_sdk_keeps_its_connection,
    requests_that_come_all_at_once_are_answered_in_turn,
    the_answer_is_byte_for_byte_what_sdks_expect,
    credentials_of_a_target_role_are_kept_too,
    unmodified_sdks_are_served_over_ipv6_too,
];

/// The AWS CRT writes the address into `Host` without brackets.
fn unmodified_sdks_are_served_over_ipv6_too(road: Road) {
    let scene = Scenario::on(road);
    for sdk in Sdk::ALL {
        if !privileged::can_run(sdk.check()) {
            continue;
        }
        let pod = scene.pod(&format!("{sdk:?}").to_lowercase()).start();
        wait_served(&pod, ["--dst", "[fd00:ec2::23]:80"]);
        let got = sdk.run(|program| {
            let mut command = pod.command(program);
            command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", URI_IPV6);
            command
        });
        match got.unwrap() {
            Got::Credentials(owner) => assert_eq!(owner.uid, pod.uid(), "{}", sdk.name()),
            Got::Nothing(why) => panic!("{}: {why}", sdk.name()),
        }
    }
}

fn five_thousand_connections_of_64_callers_are_identified(road: Road) {
    let scene = Scenario::on(road);
    // Two of the eight pods share the host's network namespace.
    let pods = [0, 1, 2, 3, 4, 5, 6, 7].map(|number| {
        let pod = scene.pod(&format!("pod-{number}"));
        let pod = if number < 2 { pod.host_network() } else { pod };
        pod.start()
    });
    for pod in &pods {
        wait_served(pod, []);
    }
    // The agent connects to its listeners itself, until all are reached.
    let unreached = "podcreds_unreachable_listeners";
    scene
        .agent
        .wait_metric(unreached, &[], |count| count == 0.0);
    let before = scene.agent.metrics();
    let storms = pods.each_ref().map(|pod| {
        let both = ["--dst", "169.254.170.23:80", "--dst", "[fd00:ec2::23]:80"];
        let load = [
            "--threads",
            "8",
            "--requests",
            "625",
            "--timeout-ms",
            "20000",
        ];
        pod.spawn([&["storm"], &both[..], &load[..]].concat())
    });
    for (pod, storm) in pods.iter().zip(storms) {
        let tally = storm.finish().pop().unwrap();
        assert_eq!(tally["outcomes"], json!({ "200": 625 }), "{tally}");
        assert_eq!(tally["owners"], json!({ pod.uid(): 625 }), "{tally}");
    }
    let after = scene.agent.metrics();
    match road {
        Road::InPod => assert_all_identified(&before, &after),
        Road::Node => assert_all_served(&before, &after),
    }
    assert_eq!(scene.eks_auth.call_count(), pods.len());
    let open = |count| count == 0.0;
    scene.agent.wait_metric("podcreds_connections", &[], open);
}

/// The cache and the server must have seen the same 5,000 connections of both families, and asked
/// EKS Auth once for each pod.
fn assert_all_served(before: &Metrics, after: &Metrics) {
    let moved = |name, labels: &[_]| after.sum(name, labels) - before.sum(name, labels);
    let hits = moved("podcreds_cache_requests_total", &[("result", "hit")]);
    let answers = moved(
        "podcreds_request_duration_seconds_count",
        &[("code", "200")],
    );
    assert_eq!((hits, answers), (5000.0, 5000.0));
    assert_eq!(moved("podcreds_kernel_connects_total", &[]), 0.0);
}

/// The kernel, the cache and the server must have seen the same 5,000 connections.
fn assert_all_identified(before: &Metrics, after: &Metrics) {
    let moved = |name, labels: &[_]| after.sum(name, labels) - before.sum(name, labels);
    let connects = |outcome| moved("podcreds_kernel_connects_total", &[("outcome", outcome)]);
    let (ipv4, ipv6) = (connects("redirected_ipv4"), connects("redirected_ipv6"));
    assert_eq!(ipv4 + ipv6, 5000.0);
    assert!(ipv4 > 2000.0 && ipv6 > 2000.0, "{ipv4} and {ipv6}");
    for (name, label, value, wanted) in [
        ("podcreds_kernel_connects_total", "outcome", "failed", 0.0),
        (
            "podcreds_kernel_accepts_total",
            "outcome",
            "identified",
            5000.0,
        ),
        (
            "podcreds_kernel_accepts_total",
            "outcome",
            "unidentified",
            0.0,
        ),
        ("podcreds_cache_requests_total", "result", "hit", 5000.0),
        (
            "podcreds_request_duration_seconds_count",
            "code",
            "200",
            5000.0,
        ),
    ] {
        assert_eq!(moved(name, &[(label, value)]), wanted, "{name} {value}");
    }
    let timed = "podcreds_connect_to_response_duration_seconds_count";
    assert_eq!(moved(timed, &[]), 5000.0);
    assert_eq!(moved("podcreds_refusals_total", &[]), 0.0);
}

fn clients_that_use_a_connection_once_are_served(road: Road) {
    let scene = Scenario::on(road);
    let pod = scene.served_pod("web");
    let kept = "Host: 169.254.170.23\r\nConnection: keep-alive\r\n";
    for (version, headers, keep_alive) in [
        ("HTTP/1.1", BOTO, true),
        ("HTTP/1.1", kept, true),
        ("HTTP/1.0", "", false),
        ("HTTP/1.0", HOST, false),
        ("HTTP/1.0", kept, true),
    ] {
        let answer = wire::ask(&pod, wire::request(&pod, version, headers));
        assert_owned(&answer, &pod);
        assert_eq!(answer["keep_alive"], keep_alive, "{version} {headers:?}");
    }
    // One that never says that it is done, and is told by the end of the connection.
    let heard = wire::say(&pod, wire::request(&pod, "HTTP/1.0", ""));
    assert!(
        heard.received.starts_with("HTTP/1.0 200 OK\r\n"),
        "{heard:?}"
    );
    assert_eq!((heard.statuses(), &*heard.end), (vec![200], "closed"));
}

fn the_go_sdk_keeps_its_connection(road: Road) {
    let scene = Scenario::on(road);
    let pod = scene.served_pod("web");
    let headers = GO.iter().flat_map(|header| ["--header", header]);
    let arguments = ["get", "--keepalive", "5"].into_iter().chain(headers);
    let answers = pod.spawn(arguments).finish();
    assert_eq!(answers.len(), 5, "{answers:?}");
    for (number, answer) in answers.iter().enumerate() {
        assert_owned(answer, &pod);
        assert_eq!(answer["keep_alive"], number < 4, "{answer}");
        // The client's port: it is one connection.
        assert_eq!(answer["local"], answers[0]["local"]);
        assert!(answer["headers"].get("content-encoding").is_none());
    }
}

fn requests_that_come_all_at_once_are_answered_in_turn(road: Road) {
    let scene = Scenario::on(road);
    let pod = scene.served_pod("web");
    let good = wire::request(&pod, "HTTP/1.1", HOST);
    let lost = good.replace("/v1/credentials", "/v2/credentials");
    let last = wire::request(
        &pod,
        "HTTP/1.1",
        "Host: [fd00:ec2::23]:80\r\nConnection: close\r\n",
    );
    let heard = wire::say(&pod, [good.as_str(), &lost, &good, &last, &good].concat());
    // What comes after the request that is to be the last is not answered.
    assert_eq!(heard.statuses(), [200, 404, 200, 200]);
    assert_eq!(heard.end, "closed");
}

fn the_answer_is_byte_for_byte_what_sdks_expect(road: Road) {
    let scene = Scenario::on(road);
    let pod = scene.served_pod("web");
    let request = wire::request(&pod, "HTTP/1.1", &format!("{HOST}Connection: close\r\n"));
    let heard = wire::say(&pod, request);
    let (head, body) = heard.received.split_once("\r\n\r\n").unwrap();

    let owner = issued(&scene.eks_auth);
    let expiration = serde_json::from_str::<Value>(body).unwrap()["Expiration"].clone();
    let expiration = expiration.as_str().unwrap();
    let expected = format!(
        r#"{{"AccessKeyId":"{key}","SecretAccessKey":"secret-of-{key}","Token":"{owner}","AccountId":"{ACCOUNT}","Expiration":"{expiration}"}}"#,
        key = owner.access_key_id(),
    );
    assert_eq!(body, expected);
    assert_left(expiration, ROLE_LIFETIME);

    let mut lines: Vec<_> = head.lines().collect();
    // The one line that differs from day to day.
    lines.retain(|line| !line.starts_with("date: "));
    let length = format!("content-length: {}", body.len());
    let expected = [
        "HTTP/1.1 200 OK",
        "content-type: application/json",
        "connection: close",
        &length,
    ];
    assert_eq!(lines, expected);
}

fn credentials_of_a_target_role_are_kept_too(road: Road) {
    let scene = Scenario::on(road);
    let auth = &scene.eks_auth;
    auth.associate_for("shop", "chained", "target", TARGET_ROLE_LIFETIME);
    let pod = scene.pod("web").account("shop", "chained").start();
    let first = wait_served(&pod, []);
    assert_left(
        first["body"]["Expiration"].as_str().unwrap(),
        TARGET_ROLE_LIFETIME,
    );
    let second = pod.run(["get"]);
    assert_eq!(second["body"], first["body"]);
    assert_eq!(auth.calls_for_pod(pod.uid()).len(), 1);
}

/// The pod that EKS Auth has issued its only credentials to so far.
fn issued(eks_auth: &EksAuth) -> Owner {
    let calls = eks_auth.calls();
    match &calls[..] {
        [call] => match &call.outcome {
            Outcome::Issued(owner) => owner.clone(),
            other => panic!("not issued: {other:?}"),
        },
        _ => panic!("{} calls", calls.len()),
    }
}

/// Checks that a date has the form that all SDKs read, and is up to a minute less than `lifetime`
/// away.
#[track_caller]
fn assert_left(expiration: &str, lifetime: Duration) {
    assert_eq!(
        expiration.len(),
        "2030-01-01T00:00:00Z".len(),
        "{expiration}"
    );
    assert!(expiration.ends_with('Z'), "{expiration}");
    let expiration = OffsetDateTime::parse(expiration, &Rfc3339).unwrap();
    let left = SystemTime::from(expiration).duration_since(SystemTime::now());
    let expected = lifetime - Duration::from_secs(60)..=lifetime;
    assert!(expected.contains(&left.clone().unwrap()), "{left:?}");
}
