//! Who waits for a first answer, and who is refused without a call to EKS Auth.

use std::{io::Write, net::TcpStream};

use podcreds_tests::{
    agent::Agent,
    binary,
    eks_auth::Fault,
    needs_privileges,
    pod::{Client, Join, Pod},
    scenario::ACCOUNT,
    wait::until,
};
use serde_json::Value;

use crate::scene::{Scene, field};

/// Whether a pod is shown with the state of a first call that has no answer yet.
fn is_fetching(scene: &Scene, pod: &Pod, subject: &str) -> bool {
    scene.pods().iter().any(|shown| {
        let names = (field(shown, "name"), &shown["namesVerified"]);
        shown["uid"] == pod.uid()
            && field(shown, "subject") == subject
            && field(shown, "state") == "fetching"
            && names == (pod.name(), &false.into())
    })
}

#[test]
fn a_pod_whose_first_call_is_under_way_is_shown_as_fetching() {
    needs_privileges!();
    let scene = Scene::new();
    let _agent = scene.agent().start();
    scene.eks_auth.fail(Fault::Hang);
    let pod = scene.node.pod("web").account(ACCOUNT.0, ACCOUNT.1).start();
    until("its call is shown", || {
        pod.run(["get", "--timeout-ms", "500"]);
        is_fetching(&scene, &pod, "pod")
    });
    let text = scene.ask(&["status", "--pod", pod.uid()]);
    assert!(text.contains("shop/web?"), "{text}");
}

#[test]
fn a_first_call_by_the_node_path_is_shown_too() {
    needs_privileges!();
    let scene = Scene::new();
    let agent =
        Agent::on_loopback(&scene.eks_auth).set("--handover-dir", scene.folder().to_str().unwrap());
    let agent = agent.start();
    scene.eks_auth.fail(Fault::Hang);
    let pod = scene.node.pod("web").account(ACCOUNT.0, ACCOUNT.1).start();
    let mut stream = TcpStream::connect(agent.node_path_address()).unwrap();
    let token = pod.token();
    write!(
        stream,
        "GET /v1/credentials HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {token}\r\n\r\n"
    )
    .unwrap();
    until("its call is shown", || is_fetching(&scene, &pod, "token"));
}

/// What is said of a caller that was refused for this reason.
fn refused(scene: &Scene, field: &str, caller: &Value, reason: &str) -> Option<Value> {
    let agents = scene.agents();
    let all = agents[0]["refused"].as_array().unwrap();
    let is_it = |it: &&Value| it[field] == *caller && it["reason"] == reason;
    all.iter().find(is_it).cloned()
}

#[test]
fn who_is_refused_is_shown_with_the_reason_until_the_pod_is_gone() {
    needs_privileges!();
    let scene = Scene::new();
    let _agent = scene.agent().start();
    let (web, thief) = (scene.served_pod("web"), scene.served_pod("thief"));
    for _ in 0..2 {
        assert_eq!(web.run(["get", "--no-token"])["status"], 400);
    }
    let stolen = thief.run(["get", "--token", &web.token()]);
    assert_eq!(stolen["status"], 403, "{stolen}");
    let uid = |pod: &Pod| Value::from(pod.uid());
    let shown = refused(&scene, "uid", &uid(&web), "missing_token").unwrap();
    assert_eq!(
        (field(&shown, "name"), &shown["count"]),
        ("web", &2.into()),
        "{shown}"
    );
    let shown = refused(&scene, "uid", &uid(&thief), "other_pod").unwrap();
    assert_eq!(field(&shown, "tokenPod"), "shop/web", "{shown}");
    assert!(shown["last"].is_string(), "{shown}");

    let text = scene.ask(&["status"]);
    assert!(text.contains("REFUSED"), "{text}");
    let text = scene.ask(&["status", "--pod", "shop/web"]);
    assert!(
        text.contains("missing_token") && !text.contains("other_pod"),
        "{text}"
    );
    let gone = uid(&thief);
    drop(thief);
    until("what the pod was refused is forgotten with it", || {
        refused(&scene, "uid", &gone, "other_pod").is_none()
    });
}

#[test]
fn who_is_not_redirected_is_shown_with_the_kernels_reason() {
    needs_privileges!();
    let scene = Scene::new();
    let _agent = scene.agent().start();
    let web = scene.served_pod("web");
    let nested = web.nested();
    until("the pod with another network namespace is shown", || {
        nested.run(["get", "--timeout-ms", "200"]);
        refused(&scene, "uid", &web.uid().into(), "foreign_netns").is_some()
    });
    // Of the connects of other tests, which happen on this machine too, the kernel reports one
    // within milliseconds. So it may take more than one.
    until("a process of no pod is shown", || {
        let mut outside = Join::nothing()
            .network(&web.network())
            .command(binary::pod_client());
        outside.args(["get", "--no-token", "--timeout-ms", "200"]);
        let client = Client::spawn(outside);
        let process = Value::from(client.id());
        client.finish();
        let shown = refused(&scene, "process", &process, "unknown_pod");
        shown.is_some_and(|shown| shown["uid"].is_null())
    });
}
