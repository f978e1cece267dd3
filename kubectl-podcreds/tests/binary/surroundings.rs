//! What the program takes from what is around it: the kubeconfig, profiles, namespaces, pages, and
//! where its answer goes.

use std::{
    fs::OpenOptions,
    process::{Output, Stdio},
};

use serde_json::json;

use crate::{
    json_of,
    world::{World, pod},
};

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_context_of_eks_says_which_cluster_it_is_and_in_which_region() {
    let world = World::healthy().serve();
    let words = ["associations", "-o", "json"];
    // A plain context says nothing about EKS.
    let output = world.command_without_flags(&words).output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert!(errors(&output).contains("--cluster-name"), "{output:?}");

    let output = world
        .command_without_flags(&words)
        .args(["--context", "eks"])
        .output()
        .unwrap();
    assert_eq!(json_of(&output)["associations"][0]["id"], "a-1");
}

#[test]
fn a_flag_counts_more_than_the_context() {
    let world = World::healthy().serve();
    let output = world
        .command_without_flags(&["associations", "--context", "eks"])
        .args(["--cluster-name", "other"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    let said = errors(&output);
    assert!(said.contains("/clusters/other/"), "{said}");
}

#[test]
fn a_profile_counts_more_than_keys_in_the_environment() {
    let mut world = World::healthy();
    world.expect_key("of-profile");
    let world = world.serve();
    let keys = "[work]\naws_access_key_id = of-profile\naws_secret_access_key = secret\n";
    world.write(".aws/credentials", keys);
    let output = world.run(&["associations"]);
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    let output = world.run(&["associations", "--profile", "work"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn a_namespace_is_all_that_is_looked_at() {
    let mut world = World::healthy();
    let mut missed = pod();
    missed["metadata"]["namespace"] = json!("pay");
    missed["spec"]["containers"][0]["env"] = json!([]);
    world.associate(&[("shop", "reader", "reader"), ("pay", "reader", "reader")]);
    world.set(
        "/api/v1/pods",
        json!({ "metadata": {}, "items": [pod(), missed] }),
    );
    let world = world.serve();
    let causes = |words: &[&str]| {
        let report = json_of(&world.run(words));
        let checks = report["checks"].as_array().unwrap().clone();
        let failed = checks.into_iter().filter(|it| it["status"] == "fail");
        failed
            .map(|it| it["check"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        causes(&["doctor", "-o", "json"]),
        ["account", "account", "injection"]
    );
    // Associations are EKS's to narrow, and this stand-in does not.
    assert_eq!(causes(&["doctor", "-o", "json", "-n", "shop"]), ["account"]);
}

#[test]
fn all_pages_of_a_list_are_looked_at() {
    let mut world = World::healthy();
    let mut second = pod();
    second["metadata"]["name"] = json!("web-2");
    world.set(
        "/api/v1/pods",
        json!({ "metadata": { "continue": "2" }, "items": [pod()] }),
    );
    world.set(
        "/api/v1/pods?2",
        json!({ "metadata": {}, "items": [second] }),
    );
    let json = json_of(&world.serve().run(&["associations", "-o", "json"]));
    assert_eq!(json["associations"][0]["pods"]["running"], 2, "{json}");
}

#[test]
fn an_answer_that_cannot_be_written_is_an_error_and_a_reader_that_is_gone_is_none() {
    let world = World::healthy().serve();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = world.command(&["doctor"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(74), "{output:?}");
    assert!(errors(&output).contains("writing the answer"), "{output:?}");

    let mut command = world.command(&["doctor"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(errors(&output), "");
}

#[test]
fn a_wrong_command_line_is_an_error_and_a_question_for_help_is_none() {
    let world = World::default().serve();
    let code = |words: &[&str]| {
        let output = world.command_without_flags(words).output().unwrap();
        output.status.code()
    };
    assert_eq!(code(&["doctor", "web"]), Some(64));
    assert_eq!(code(&[]), Some(64));
    assert_eq!(code(&["--help"]), Some(0));
    assert_eq!(code(&["--version"]), Some(0));
}
