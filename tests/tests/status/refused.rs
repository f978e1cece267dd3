//! Who waits for a first answer, and who is refused without a call to EKS Auth.

use std::{io::Write, net::TcpStream, time::Instant};

use podcreds_tests::{
    agent::Agent,
    binary,
    eks_auth::Fault,
    needs_privileges,
    pod::{Client, Join, Pod},
    scenario::ACCOUNT,
    wait::{DEADLINE, poll, until},
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
fn a_pod_with_a_container_in_another_network_namespace_is_shown_with_the_kernels_reason() {
    needs_privileges!();
    let scene = Scene::new();
    let _agent = scene.agent().start();
    let web = scene.served_pod("web");
    let nested = web.nested();
    until("the pod with another network namespace is shown", || {
        nested.run(["get", "--timeout-ms", "200"]);
        refused(&scene, "uid", &web.uid().into(), "foreign_netns").is_some()
    });
}

#[test]
fn an_agent_that_listens_where_another_does_shows_no_connect_that_it_has_not_seen() {
    needs_privileges!();
    let scene = Scene::new();
    let mut leader = scene.agent().start();
    let web = scene.served_pod("web");
    let nested = web.nested();
    until("the container is served", || {
        nested.run(["get"])["status"] == 200
    });
    let successor = scene.agent().start();
    assert!(leader.terminate().success());
    until("the next one leads", || {
        let agent = scene.agents()[0]["agent"].clone();
        agent["role"] == "leader" && agent["process"] == successor.id()
    });
    let foreign = refused(&scene, "uid", &web.uid().into(), "foreign_netns");
    assert_eq!(foreign, None);
}

#[test]
fn a_process_of_no_pod_is_shown_with_its_program_and_a_flood_of_connects_is_seldom_reported() {
    needs_privileges!();
    let scene = Scene::new();
    let _agent = scene.agent().start();
    let web = scene.served_pod("web");
    let started = Instant::now();
    let mut outside = Join::nothing()
        .network(&web.network())
        .command(binary::pod_client());
    // By threads that are not the process's first, which is the one that is to be shown.
    outside.args(["storm", "--no-token", "--threads", "32", "--rate", "1000"]);
    outside.args(["--until-end-of-input", "--timeout-ms", "200"]);
    let mut flood = Client::spawn(outside);
    let process = Value::from(flood.id());
    let shown = poll(DEADLINE, || {
        let shown = refused(&scene, "process", &process, "unknown_pod")?;
        (shown["count"].as_u64()? >= 3).then_some(shown)
    });
    let elapsed = started.elapsed();
    flood.end_input();
    let asked = flood.line()["requests"].as_u64().unwrap();
    let shown = shown.unwrap();
    assert!(shown["uid"].is_null(), "{shown}");
    let about = field(&shown, "about");
    assert!(about.starts_with("pod-client in /"), "{shown}");
    // One in 2^26 ns; two CPUs may see at once that it is time.
    let most = 2 * (elapsed.as_millis() / 67 + 1);
    let count = u128::from(shown["count"].as_u64().unwrap());
    assert!(count <= most, "{shown} after {elapsed:?}, {asked} connects");
}
