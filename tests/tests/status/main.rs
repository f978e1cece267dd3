//! What an operator asks a running agent: how it is and what its pods have, to fetch credentials
//! anew, and to log more.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

mod log_level;
mod refresh;
mod refused;
mod scene;
mod socket;

use podcreds_tests::{
    aws::Owner, eks_auth::Outcome, needs_privileges, pod::Pod, scenario::wait_served, wait::until,
};

use crate::scene::{Scene, assumed, field};

#[test]
fn status_agrees_with_what_eks_auth_has_granted() {
    needs_privileges!();
    let scene = Scene::new();
    scene.eks_auth.associate("pay", "writer", "payer");
    let agent = scene.agent().start();
    let web = scene.served_pod("web");
    let pay = scene.node.pod("api").account("pay", "writer").start();
    wait_served(&pay, []);
    // No association: a refusal.
    let poor = scene.node.pod("poor").account("shop", "nobody").start();
    until("the pod is refused", || poor.run(["get"])["status"] == 404);
    let silent = scene.node.pod("silent").account("shop", "reader").start();
    until("the agent knows the silent pod", || scene.pods().len() == 4);

    let agents = scene.agents();
    assert_eq!(agents.len(), 1);
    assert_eq!(agents[0]["agent"]["role"], "leader");
    assert_eq!(agents[0]["agent"]["process"], agent.id());
    assert_eq!(agents[0]["agent"]["paths"]["inPod"], true);
    let pods = scene.pods();
    let of = |pod: &Pod| pods.iter().find(|it| it["uid"] == pod.uid()).unwrap();
    for pod in [&web, &pay] {
        let granted = scene.eks_auth.calls_for_pod(pod.uid());
        let Outcome::Issued(Owner {
            role,
            namespace,
            service_account,
            pod: name,
            ..
        }) = &granted.last().unwrap().outcome
        else {
            unreachable!("{granted:?}");
        };
        let shown = of(pod);
        assert_eq!(field(shown, "role"), assumed(role));
        assert_eq!(field(shown, "namespace"), namespace);
        assert_eq!(field(shown, "serviceAccount"), service_account);
        assert_eq!(field(shown, "name"), name);
        assert_eq!(shown["namesVerified"], true);
        assert_eq!(field(shown, "state"), "valid");
        assert_eq!(field(shown, "identifiedBy"), "kernel");
        assert_eq!(field(shown, "path"), "in-pod");
        let body = pod.run(["get"]);
        assert_eq!(shown["expires"], body["body"]["Expiration"], "{shown}");
        assert!(shown["lastAsked"].is_string() && shown["renewed"].is_string());
    }
    let shown = of(&poor);
    assert_eq!(field(shown, "state"), "failed");
    let error = &shown["lastError"]["message"];
    assert!(
        error
            .as_str()
            .unwrap()
            .starts_with("ResourceNotFoundException"),
        "{shown}"
    );
    assert_eq!(
        (field(shown, "name"), &shown["namesVerified"]),
        ("poor", &false.into())
    );
    assert_eq!(field(of(&silent), "state"), "none");

    let text = scene.ask(&["status", "--failing"]);
    assert!(
        text.contains("shop/poor?") && !text.contains("shop/web"),
        "{text}"
    );
    let text = scene.ask(&["status", "-n", "pay", "--output", "wide"]);
    assert!(
        text.contains(pay.uid()) && !text.contains(web.uid()),
        "{text}"
    );
    let text = scene.ask(&["status", "--pod", "shop/web", "-o", "yaml"]);
    assert!(
        text.contains("name: \"web\"") && !text.contains("\"api\""),
        "{text}"
    );
}

/// All that a command prints, in every form.
fn all_that_is_said(scene: &Scene) -> String {
    let forms = ["text", "wide", "json", "yaml"];
    let status = forms.map(|form| scene.ask(&["status", "-o", form]));
    status.concat() + &scene.ask(&["refresh", "shop/reader"]) + &scene.ask(&["log-level"])
}

#[test]
fn no_secret_is_ever_said() {
    needs_privileges!();
    let scene = Scene::new();
    let _agent = scene.agent().start();
    let pod = scene.served_pod("web");
    let poor = scene.node.pod("poor").account("shop", "nobody").start();
    until("the pod is refused", || poor.run(["get"])["status"] == 404);
    let said = all_that_is_said(&scene);
    assert!(said.contains("shop/web"), "{said}");
    let mut secrets = Vec::new();
    for call in scene.eks_auth.calls() {
        // A token is three parts; each by itself would be too much.
        secrets.extend(call.token.split('.').map(str::to_owned));
        secrets.push(call.signer);
    }
    let body = &pod.run(["get"])["body"];
    for name in ["AccessKeyId", "SecretAccessKey", "Token"] {
        secrets.push(body[name].as_str().unwrap().to_owned());
    }
    assert!(secrets.len() > 8 && secrets.iter().all(|secret| secret.len() > 10));
    for secret in &secrets {
        assert!(!said.contains(secret.as_str()), "{secret} is in\n{said}");
    }
    for word in ["eyJ", "session:", "secret-of", "ASIA", "AKIA"] {
        assert!(!said.contains(word), "{word} is in\n{said}");
    }
}
