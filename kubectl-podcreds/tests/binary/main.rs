//! The program itself, before fixed answers of Kubernetes, EKS and IAM.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

mod documented;
mod surroundings;
mod world;

use std::{
    env,
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};

use world::{World, pod};

fn said(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!text.is_empty(), "{errors}");
    text
}

fn json_of(output: &Output) -> Value {
    serde_json::from_str(&said(output)).unwrap()
}

#[test]
fn a_healthy_cluster_and_pod_have_no_cause() {
    let world = World::healthy().serve();
    for words in [&["doctor"][..], &["doctor", "pod", "shop/web"]] {
        let output = world.run(words);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert!(text.contains("0 with warnings, 0 failed\n"), "{text}");
        assert!(!text.contains("first cause"), "{text}");
    }
    let pod = said(&world.run(&["doctor", "pod", "web", "--namespace", "shop"]));
    assert!(pod.starts_with("pod shop/web\n  pass  account"), "{pod}");
}

#[test]
fn a_mistake_is_the_first_cause_and_the_exit_code_says_so() {
    let mut world = World::healthy();
    world.trust("reader", &["sts:AssumeRole"]);
    let world = world.serve();
    for words in [
        &["doctor", "-o", "json"][..],
        &["doctor", "pod", "shop/web", "-o", "json"],
    ] {
        let output = world.run(words);
        let report = json_of(&output);
        assert_eq!(output.status.code(), Some(1), "{report}");
        assert_eq!(report["firstCause"], "trust", "{report}");
        let remedy = report["checks"][0]["remedy"].as_str().unwrap();
        assert!(
            remedy.starts_with("aws iam update-assume-role-policy --role-name reader "),
            "{remedy}"
        );
    }
    let none = world.run(&["doctor", "pod", "shop/gone"]);
    // Nobody may know whether it is there: the stand-in forbids what it does not know.
    assert_eq!(none.status.code(), Some(69));
}

#[test]
fn associations_are_a_table_and_the_same_in_json_and_yaml() {
    let mut world = World::healthy();
    let mut missed = pod();
    missed["spec"]["containers"][0]["env"] = json!([]);
    let pods = json!({ "metadata": {}, "items": [pod(), missed] });
    world.set("/api/v1/pods", pods);
    let world = world.serve();
    let text = said(&world.run(&["associations"]));
    let row = text.lines().nth(1).unwrap();
    let cells: Vec<_> = row.split_whitespace().collect();
    let expected = [
        "shop",
        "reader",
        "111122223333/reader",
        "-",
        "yes",
        "no",
        "2",
        "0",
        "1",
    ];
    assert_eq!(cells, expected, "{text}");
    assert!(text.contains("1 association, looked at in "), "{text}");
    let json = json_of(&world.run(&["associations", "-o", "json"]));
    assert_eq!(json["associations"][0]["pods"]["missed"], 1, "{json}");
    let yaml = said(&world.run(&["associations", "-o", "yaml"]));
    assert!(
        yaml.contains("\n    role: \"arn:aws:iam::111122223333:role/reader\"\n"),
        "{yaml}"
    );
}

#[test]
fn each_permission_that_lacks_is_named_and_the_rest_goes_on() {
    let mut world = World::healthy();
    world.forbid("/api/v1/nodes");
    world.forbid("/clusters/prod/pod-identity-associations/a-1");
    let world = world.serve();
    let output = world.run(&["doctor"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for needed in ["to list nodes", "eks:DescribePodIdentityAssociation"] {
        assert!(
            text.contains(&format!("needs the permission {needed}")),
            "{text}"
        );
    }
    assert!(text.contains("  pass  injection "), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[test]
fn without_anything_to_look_at_it_says_so() {
    let world = World::default().serve();
    let output = world.run(&["doctor"]);
    assert_eq!(output.status.code(), Some(69));
    let output = world.run(&["associations"]);
    assert_eq!(output.status.code(), Some(69));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.starts_with("kubectl podcreds: cannot look at associations: "),
        "{errors}"
    );
    assert!(!errors.contains('\u{1b}'), "{errors}");
    let output = world.run(&["doctor", "--context", "missing"]);
    assert_eq!(output.status.code(), Some(64));
}

#[test]
fn migrate_prints_a_script_and_runs_nothing() {
    let mut world = World::healthy();
    let account = json!({ "metadata": { "namespace": "pay", "name": "writer", "annotations": {
        "eks.amazonaws.com/role-arn": "arn:aws:iam::111122223333:role/reader" } } });
    let accounts = json!({ "metadata": {}, "items": [account] });
    world.set("/api/v1/serviceaccounts", accounts);
    world.trust("reader", &[]);
    let output = world.serve().run(&["migrate", "irsa"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines[1],
        "aws eks create-pod-identity-association --cluster-name prod --region eu-central-1 \
         --namespace pay --service-account writer --role-arn arn:aws:iam::111122223333:role/reader"
    );
    assert!(
        lines[3].starts_with("aws iam update-assume-role-policy "),
        "{text}"
    );
}

#[test]
fn completion_is_for_the_binary_that_kubectl_finds() {
    let output = World::default().serve().run(&["completion", "bash"]);
    assert!(said(&output).contains("kubectl-podcreds"));
}

#[test]
fn of_several_kubeconfigs_some_may_be_missing_and_not_all() {
    let world = World::healthy().serve();
    let missing = Path::new("/nowhere/kubeconfig").to_owned();
    let both = env::join_paths([missing.clone(), world.kubeconfig()]).unwrap();
    let output = world.run_with(&["associations"], &both);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = world.run_with(&["associations"], missing.as_os_str());
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("/nowhere/kubeconfig"), "{errors}");
}

#[test]
fn what_kubectl_runs_for_completion_proposes_words() {
    let program = Path::new(env!("CARGO_BIN_EXE_kubectl-podcreds"));
    let path = env::var_os("PATH").unwrap_or_default();
    let path = [program.parent().unwrap().to_owned()]
        .into_iter()
        .chain(env::split_paths(&path));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("kubectl_complete-podcreds");
    let output = Command::new(script)
        .args(["--output", "json", "doctor", ""])
        .env("PATH", env::join_paths(path).unwrap())
        .output()
        .unwrap();
    assert_eq!(said(&output), "pod\tOne of its pods\n:4\n");
}
