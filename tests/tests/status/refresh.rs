//! Credentials are fetched anew, also where two agents share a node.

use std::time::{Duration, Instant};

use podcreds_tests::{
    aws::{ACCOUNT as AWS_ACCOUNT, Owner},
    needs_privileges,
    scenario::{ACCOUNT, ROLE},
    wait::until,
};
use serde_json::Value;

use crate::scene::{Scene, assumed, field};

#[test]
fn refresh_changes_the_role_of_a_running_pod_within_two_seconds() {
    needs_privileges!();
    let scene = Scene::new();
    let _agent = scene.agent().start();
    let pods = ["web-1", "web-2"].map(|name| scene.served_pod(name));
    // Credentials that expire sooner than those in memory.
    let life = Duration::from_secs(10 * 60);
    scene
        .eks_auth
        .associate_for(ACCOUNT.0, ACCOUNT.1, "auditor", life);
    let changed = Instant::now();
    let shown = scene.ask(&["refresh", "shop/reader"]);
    let took = changed.elapsed();
    for pod in &pods {
        let answer = pod.run(["get"]);
        let owner: Owner = answer["body"]["Token"].as_str().unwrap().parse().unwrap();
        assert_eq!(owner.role, "auditor", "{answer}");
        let line = format!(
            "shop/{}: {AWS_ACCOUNT}/{ROLE} -> {AWS_ACCOUNT}/auditor, for ",
            pod.name()
        );
        assert!(shown.contains(&line), "{shown}");
    }
    assert!(took < Duration::from_secs(2), "{took:?}");

    // The association is gone.
    scene.eks_auth.dissociate(ACCOUNT.0, ACCOUNT.1);
    let output = scene.run(&["refresh", "--pod", "shop/web-1"]);
    assert_eq!(output.status.code(), Some(1));
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.starts_with("shop/web-1: failed, had "), "{shown}");
    assert!(shown.contains("ResourceNotFoundException"), "{shown}");
    assert_eq!(pods[0].run(["get"])["status"], 404);
    let other = pods[1].run(["get"]);
    assert_eq!(
        other["status"], 200,
        "nobody has asked about that one: {other}"
    );
    // It is there, and has nothing to refresh.
    let output = scene.run(&["refresh", "--pod", pods[0].uid()]);
    assert_eq!(output.status.code(), Some(1));
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("no credentials to refresh"), "{shown}");

    for (arguments, code, words) in [
        (&["refresh", "shop/other"][..], 1, "no pod of shop/other"),
        (&["refresh", "--pod", "shop/none"], 1, "no pod shop/none"),
        (&["refresh", "--pod", "0f0e"], 64, "not a pod UID"),
        (
            &["refresh", "reader"],
            64,
            "expected namespace/serviceaccount",
        ),
        (&["refresh"], 64, "required"),
    ] {
        let output = scene.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn both_agents_of_an_update_are_asked_and_a_refresh_reaches_the_next_one() {
    needs_privileges!();
    let scene = Scene::new();
    let mut leader = scene.agent().start();
    let pod = scene.served_pod("web");
    let successor = scene.agent().start();
    let roles = || {
        let agents = scene.agents();
        let role = |it: &Value| (it["agent"]["role"].clone(), it["agent"]["process"].clone());
        agents.iter().map(role).collect::<Vec<_>>()
    };
    let both = [
        ("leader".into(), leader.id().into()),
        ("successor".into(), successor.id().into()),
    ];
    assert_eq!(roles(), both);
    // The role is told with the credentials.
    for status in scene.agents() {
        assert_eq!(field(&status["pods"][0], "role"), assumed(ROLE), "{status}");
    }
    // Both know it, and it is one pod.
    let shown = scene.ask(&["status"]);
    let table = shown.split("REFUSED").next().unwrap();
    assert_eq!(table.matches("shop/web").count(), 1, "{shown}");
    assert!(table.contains("AGENT"), "{shown}");
    scene.eks_auth.associate(ACCOUNT.0, ACCOUNT.1, "auditor");
    let shown = scene.ask(&["refresh", "--pod", pod.uid()]);
    assert_eq!(shown.lines().count(), 1, "{shown}");
    until("both have the new role", || {
        let has = |status: &Value| field(&status["pods"][0], "role") == assumed("auditor");
        scene.agents().iter().all(has)
    });
    assert!(leader.terminate().success());
    until("the next one leads", || {
        roles() == [("leader".into(), successor.id().into())]
    });
    assert!(!scene.ask(&["status"]).contains("AGENT"));
    assert_eq!(scene.sockets().len(), 1);
}
