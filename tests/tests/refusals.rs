//! Who gets no credentials learns why, in the words that SDKs pass on.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use podcreds_tests::{
    agent::LogLine,
    eks_auth::Fault,
    needs_privileges,
    pod::Pod,
    scenario::{Scenario, assert_owned},
    token::Issuer,
    wait::until,
};
use serde_json::Value;

/// Checks an error's status, code and form, and what it is counted as. SDKs read the code and the
/// message by different names.
#[track_caller]
fn assert_refused(scene: &Scenario, answer: &Value, status: u16, code: &str, reason: &str) {
    assert_eq!(answer["status"], status, "{answer}");
    assert_eq!(answer["headers"]["content-type"], "application/json");
    let body = &answer["body"];
    assert_eq!(body["code"], code, "{answer}");
    assert_eq!(body["Code"], code, "{answer}");
    assert_eq!(body["Message"], body["message"], "{answer}");
    assert!(
        body["message"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
    );
    assert_eq!(body.as_object().unwrap().len(), 4, "{answer}");
    let counted = scene.agent.metrics();
    let counted = counted.sum("podcreds_refusals_total", &[("reason", reason)]);
    assert!(counted >= 1.0, "{reason} is not counted: {answer}");
}

#[test]
fn a_request_for_something_else_is_refused_with_the_reason() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = scene.served_pod("web");
    for (arguments, status, code, reason) in [
        (&["--no-token"][..], 400, "MissingToken", "missing_token"),
        (&["--token", ""], 400, "MissingToken", "missing_token"),
        (
            &["--token", "no-token"],
            400,
            "MalformedToken",
            "malformed_token",
        ),
        (
            &["--path", "/v1/credentials/"],
            404,
            "NotFound",
            "not_found",
        ),
        (&["--path", "/"], 404, "NotFound", "not_found"),
        (&["--method", "CONNECT"], 405, "MethodNotAllowed", "method"),
        (
            &["--host", "credentials.example"],
            403,
            "HostNotAllowed",
            "bad_host",
        ),
    ] {
        let answer = pod.run([&["get"], arguments].concat());
        assert_refused(&scene, &answer, status, code, reason);
    }
    let connected = pod.run(["get", "--method", "CONNECT"]);
    assert_eq!(connected["headers"]["allow"], "GET");
    // As AWS's agent does.
    assert_owned(&pod.run(["get", "--method", "PUT"]), &pod);
    assert_eq!(scene.eks_auth.call_count(), 1);
}

#[test]
fn a_bearer_token_is_told_from_a_token() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = scene.served_pod("web");
    let bearer = format!("Bearer {}", pod.token());
    let answer = pod.run(["get", "--token", &bearer]);
    assert_refused(&scene, &answer, 400, "MalformedToken", "malformed_token");
    assert_eq!(scene.eks_auth.call_count(), 1);
}

#[test]
fn invalid_tokens_are_refused_with_the_reason() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = scene.served_pod("web");
    let claims = pod.claims();
    let refused = |token: &str, code, reason| {
        let answer = pod.run(["get", "--token", token]);
        assert_refused(&scene, &answer, 400, code, reason);
    };
    let cluster = Issuer::cluster();
    refused(
        &cluster.sign(&claims.clone().expired()),
        "ExpiredToken",
        "expired_token",
    );
    assert_eq!(
        scene.eks_auth.call_count(),
        1,
        "no call for what is known to be expired"
    );

    // What only EKS Auth can tell has EKS Auth's own code.
    let mut just_expired = claims.clone();
    just_expired.exp = just_expired.iat - 5;
    refused(
        &cluster.sign(&just_expired),
        "ExpiredTokenException",
        "eks_auth",
    );
    let elsewhere = claims.clone().audience("sts.amazonaws.com");
    refused(
        &cluster.sign(&elsewhere),
        "InvalidTokenException",
        "eks_auth",
    );
    refused(
        &Issuer::new().sign(claims),
        "InvalidTokenException",
        "eks_auth",
    );
    assert_eq!(scene.eks_auth.refused().len(), 3);

    assert_owned(&pod.run(["get"]), &pod);
    assert_eq!(
        scene.eks_auth.call_count(),
        4,
        "the good token's credentials are kept"
    );
}

#[test]
fn a_service_account_without_a_role_is_refused_with_the_reason() {
    needs_privileges!();
    let scene = Scenario::start();
    let reader = scene.served_pod("web");
    let pod = scene.pod("none").account("shop", "nobody").start();
    let answer = wait_known(&pod);
    assert_refused(
        &scene,
        &answer,
        404,
        "ResourceNotFoundException",
        "eks_auth",
    );
    let message = answer["body"]["message"].as_str().unwrap();
    assert!(
        message.contains("system:serviceaccount:shop:nobody"),
        "{message}"
    );
    assert_owned(&reader.run(["get"]), &reader);
}

#[test]
fn a_fault_of_eks_auth_is_answered_with_a_status_that_every_sdk_retries() {
    needs_privileges!();
    let scene = Scenario::start();
    let pods = [
        (Fault::Throttle { retry_after: None }, "throttled"),
        (Fault::internal(), "broken"),
        (Fault::Nonsense, "odd"),
        (Fault::Hang, "silent"),
    ];
    for (fault, name) in pods {
        scene.eks_auth.heal();
        scene.eks_auth.fail(fault);
        let pod = scene.pod(name).start();
        let answer = wait_known(&pod);
        assert_eq!(answer["status"], 503, "{answer}");
        assert_eq!(answer["body"]["code"], "CredentialsNotReady", "{answer}");
        let retry_after = answer["headers"]["retry-after"].as_str().unwrap();
        assert!(retry_after.parse::<u64>().is_ok_and(|seconds| seconds >= 1));
    }
}

/// The pod's first answer from the agent.
fn wait_known(pod: &Pod) -> Value {
    let mut answer = Value::Null;
    until("the agent finds the pod", || {
        answer = pod.run(["get"]);
        answer.get("status").is_some()
    });
    answer
}

#[test]
fn a_pod_is_named_once_for_each_reason_for_which_its_requests_are_refused() {
    needs_privileges!();
    let mut scene = Scenario::start();
    let pod = scene.served_pod("web");
    for _ in 0..3 {
        assert_eq!(pod.run(["get", "--no-token"])["status"], 400);
        assert_eq!(pod.run(["get", "--path", "/"])["status"], 404);
    }
    scene.agent.terminate();
    let lines = scene.agent.logs().to_the_end();
    let uid = pod.claims().pod_uid().to_owned();
    for refusal in ["missing_token", "not_found"] {
        let of_it = |line: &&LogLine| line.field("refusal").as_deref() == Some(refusal);
        let lines: Vec<_> = lines.iter().filter(of_it).collect();
        assert_eq!(lines.len(), 1, "{refusal}");
        assert_eq!(
            lines[0].field("pod_uid").as_deref(),
            Some(&*uid),
            "{refusal}"
        );
        assert!(
            lines[0]
                .field("pod")
                .is_some_and(|name| name.contains("web"))
        );
    }
}
