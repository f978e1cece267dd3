//! Rotated tokens while EKS Auth is down: the cluster's keys say which of them are genuine.

use podcreds_tests::{
    agent::Agent,
    eks_auth::{EksAuth, Fault},
    jwks::Jwks,
    needs_privileges,
    node::Node,
    pod::Pod,
    scenario::{ACCOUNT, ROLE, Scenario, assert_owned},
    token::{Claims, Issuer, new_uid},
};
use serde_json::{Value, json};

/// How often the token is rotated in each kind of outage.
const ROTATIONS: usize = 4;

/// A node whose agent knows where the cluster's keys are.
fn start(jwks: &Jwks) -> Scenario {
    let (eks_auth, node) = (EksAuth::start(), Node::new());
    eks_auth.associate(ACCOUNT.0, ACCOUNT.1, ROLE);
    let agent = Agent::on(&node, &eks_auth)
        .args(["--jwks-url", &jwks.url()])
        .start();
    Scenario {
        agent,
        node,
        eks_auth,
    }
}

/// What the kubelet gets for a pod when its token is old.
fn next_claims(pod: &Pod) -> Claims {
    Claims {
        jti: new_uid(),
        ..pod.claims().clone()
    }
}

fn ask(pod: &Pod, token: &str) -> Value {
    pod.run(["get", "--token", token])
}

#[test]
fn tokens_rotate_through_an_outage_without_a_failed_request() {
    needs_privileges!();
    let jwks = Jwks::start(&Issuer::cluster());
    let scene = start(&jwks);
    let pod = scene.served_pod("web");
    let outages = [
        Fault::unavailable(),
        Fault::Hang,
        Fault::Reset,
        Fault::Throttle { retry_after: None },
    ];
    let rotations = outages.len() * ROTATIONS;
    for outage in outages {
        scene.eks_auth.heal();
        scene.eks_auth.fail(outage.clone());
        for _ in 0..ROTATIONS {
            let before = pod.token();
            pod.write_token(&Issuer::cluster().sign(&next_claims(&pod)));
            let storm = pod.run(["storm", "--threads", "4", "--requests", "40"]);
            assert_eq!(storm["outcomes"], json!({ "200": 40 }), "{outage:?}");
            assert_eq!(storm["owners"], json!({ pod.uid(): 40 }), "{outage:?}");
            // A process that has not read the new one yet.
            assert_owned(&ask(&pod, &before), &pod);
        }
    }
    let adopted = scene
        .agent
        .metrics()
        .sum("podcreds_tokens_adopted_total", &[]);
    assert_eq!(adopted, rotations as f64);
    assert_eq!(scene.eks_auth.call_count(), 1);
    assert_eq!(jwks.fetches(), 1);
}

#[test]
fn tokens_that_the_cluster_has_not_signed_get_nothing_in_an_outage() {
    needs_privileges!();
    let jwks = Jwks::start(&Issuer::cluster());
    let scene = start(&jwks);
    let pod = scene.served_pod("web");
    let held = pod.token();
    // Not even there to say that a token is bad.
    let Scenario {
        agent,
        node: _node,
        eks_auth,
    } = scene;
    drop(eks_auth);

    let genuine = Issuer::cluster().sign(&next_claims(&pod));
    // Somebody else's signature, under the key's name.
    let (unsigned, _) = genuine.rsplit_once('.').unwrap();
    let (_, signature) = held.rsplit_once('.').unwrap();
    let forged = format!("{unsigned}.{signature}");
    let elsewhere = next_claims(&pod).audience("sts.amazonaws.com");
    for token in [forged, Issuer::cluster().sign(&elsewhere)] {
        let answer = ask(&pod, &token);
        assert_eq!(answer["status"], 400, "{answer}");
        assert_eq!(answer["body"]["code"], "InvalidTokenException", "{answer}");
    }

    // A key that nobody knows: only EKS Auth could tell, and it does not answer.
    let foreign = Issuer::new().sign(&next_claims(&pod));
    let answer = ask(&pod, &foreign);
    assert_eq!(answer["status"], 503, "{answer}");
    assert_owned(&ask(&pod, &genuine), &pod);
    assert_owned(&pod.run(["get"]), &pod);
    let metrics = agent.metrics();
    assert_eq!(metrics.sum("podcreds_tokens_forged_total", &[]), 1.0);
    assert_eq!(metrics.sum("podcreds_tokens_adopted_total", &[]), 1.0);
}

#[test]
fn without_keys_a_new_token_waits_for_them_and_the_old_one_goes_on() {
    needs_privileges!();
    let jwks = Jwks::start(&Issuer::cluster());
    jwks.set_down(true);
    let scene = start(&jwks);
    let pod = scene.served_pod("web");
    scene.eks_auth.fail(Fault::unavailable());

    let rotated = Issuer::cluster().sign(&next_claims(&pod));
    let answer = ask(&pod, &rotated);
    assert_eq!(answer["status"], 503, "{answer}");
    assert_owned(&pod.run(["get"]), &pod);

    // Nobody has to do anything when they are back.
    jwks.set_down(false);
    assert_owned(&pod.run(["patient", "--token", &rotated]), &pod);
    assert_owned(&pod.run(["get"]), &pod);
    assert_eq!(scene.eks_auth.calls_with_token(&pod.token()).len(), 1);
}

#[test]
fn without_keys_eks_auth_tells_whether_a_new_token_is_good() {
    needs_privileges!();
    let scene = Scenario::start();
    let pod = scene.served_pod("web");
    let before = pod.token();
    pod.write_token(&Issuer::cluster().sign(&next_claims(&pod)));
    assert_owned(&pod.run(["patient"]), &pod);
    assert_owned(&ask(&pod, &before), &pod);
    assert_eq!(scene.eks_auth.call_count(), 2);
}
