//! What `docs/kubectl.md` shows is what the program prints, before a cluster with mistakes in it.

use std::fs;

use podcreds_tests::{associations::role_arn, checkout};
use serde_json::{Value, json};

use crate::{
    said,
    world::{Served, World, pod},
};

const PAGE: &str = "docs/kubectl.md";
const BOTH: [&str; 2] = ["sts:AssumeRole", "sts:TagSession"];
/// When pods are made, but for one.
const LATER: &str = "2026-01-01T00:00:00Z";
const EARLIER: &str = "2023-01-01T00:00:00Z";

/// The cluster of the page.
fn cluster() -> Served {
    let mut world = World::healthy();
    let annotations = json!({ "eks.amazonaws.com/role-arn": role_arn("reports") });
    let mut accounts = [("pay", "writer"), ("shop", "batch"), ("shop", "reader")]
        .map(|(namespace, name)| json!({ "metadata": { "namespace": namespace, "name": name } }))
        .to_vec();
    accounts.push(json!({ "metadata": {
        "namespace": "pay", "name": "reports", "annotations": annotations } }));
    world.set(
        "/api/v1/serviceaccounts",
        json!({ "metadata": {}, "items": accounts }),
    );
    let mut missed = made(pod(), "shop", "batch", "7f8d-1", EARLIER);
    missed["spec"]["containers"][0]["env"] = json!([]);
    let pods = [
        made(pod(), "pay", "writer", "5c9b-1", LATER),
        missed,
        made(pod(), "shop", "reader", "6d4b-1", LATER),
        made(pod(), "shop", "reader", "6d4b-2", LATER),
    ];
    world.set("/api/v1/pods", json!({ "metadata": {}, "items": pods }));
    world.associate(&[
        ("pay", "ledgr", "ledger"),
        ("pay", "writer", "ledger"),
        ("shop", "batch", "shop-batch"),
        ("shop", "reader", "shop-reader"),
    ]);
    world.trust("ledger", &BOTH[..1]);
    world.trust("shop-batch", &BOTH);
    world.trust("shop-reader", &BOTH);
    let provider = "oidc.eks.eu-central-1.amazonaws.com/id/EXAMPLE";
    let provider = format!("arn:aws:iam::111122223333:oidc-provider/{provider}");
    let irsa = json!({ "Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": { "Federated": provider },
        "Action": "sts:AssumeRoleWithWebIdentity",
    }]});
    world.role("reports", irsa);
    world.serve()
}

/// A pod of a Deployment that is called like its service account.
fn made(mut pod: Value, namespace: &str, account: &str, name: &str, at: &str) -> Value {
    let (hash, _) = name.split_once('-').unwrap();
    pod["metadata"] = json!({
        "namespace": namespace, "name": format!("{account}-{name}"), "creationTimestamp": at,
        "labels": { "pod-template-hash": hash },
        "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "uid": "u",
                              "name": format!("{account}-{hash}"), "controller": true }],
    });
    pod["spec"]["serviceAccountName"] = json!(account);
    pod
}

/// A text without how long it took.
fn stable(text: &str) -> String {
    let line = |line: &str| match line.split_once(", looked at in ") {
        Some((start, _)) => format!("{start}, looked at in 0.2 s\n"),
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[test]
fn what_the_page_shows_is_what_the_program_prints() {
    let page = fs::read_to_string(checkout::file(PAGE)).unwrap();
    let blocks = page.split("```console\n$ kubectl podcreds ").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split_once("\n```")?.0.split_once('\n'));
    let blocks: Vec<_> = blocks.collect();
    let commands: Vec<_> = blocks.iter().map(|(command, _)| *command).collect();
    assert_eq!(commands, ["associations", "doctor", "migrate irsa"]);
    let world = cluster();
    for (command, shown) in blocks {
        let output = world.run(&command.split(' ').collect::<Vec<_>>());
        let said = stable(&said(&output));
        assert_eq!(said, stable(shown), "{command} prints:\n{said}");
    }
}
