//! Where all is well, and the commands that are no doctor.

use std::{env, process::Command};

use podcreds_tests::{
    associations::Association,
    binary, checkout,
    cluster::{Cluster, agent},
    wait::{DEADLINE, poll, until},
};
use serde_json::{Value, json};

use super::desk::{ACTIONS, Desk};

#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn a_healthy_cluster_has_no_cause_and_commands_reach_its_agents() {
    let cluster = Cluster::alone();
    let desk = Desk::new(&cluster, "plugin");
    desk.associate("app");
    desk.make("pods", &desk.pod("app"));
    desk.wait_ready(["app"]);

    let said = desk.run(&["doctor", "--output", "json"]);
    assert_eq!(said.json()["firstCause"], Value::Null, "{}", said.text);
    assert_eq!(said.code, Some(0), "{}", said.text);
    desk.assert_healthy("app");

    let said = desk.run(&["associations", "--output", "json"]);
    let all = said.json()["associations"].clone();
    assert_eq!(all.as_array().map(Vec::len), Some(1), "{}", said.text);
    assert_eq!(all[0]["serviceAccount"], "app", "{}", said.text);

    a_changed_association_is_followed(&desk);
    one_that_is_taken_away_too(&desk);
    an_agent_that_is_not_ready(&desk);
    without_an_agent(&cluster, &desk);
    desk.assert_healthy("app");
}

/// The pod keeps its role, the doctor says so, and the command that it names gives the new one.
fn a_changed_association_is_followed(desk: &Desk) {
    let name = desk.namespace.name();
    let cluster = desk.namespace.cluster();
    let credentials = poll(DEADLINE, || desk.ask("app")).unwrap();
    assert!(credentials["AccessKeyId"].is_string(), "{credentials}");
    let said = desk.run(&["status", "--output", "json", "--namespace", name]);
    assert_eq!(said.code, Some(0), "{}", said.text);
    assert!(said.text.contains("assumed-role/app"), "{}", said.text);

    cluster
        .associations()
        .associate(name, "app", "other")
        .unwrap();
    desk.put(Association::new(name, "app", "other"));
    desk.trust("other", &ACTIONS);
    let said = desk.doctor("app");
    assert_eq!(said.json()["firstCause"], "served-role", "{}", said.text);
    assert_eq!(said.code, Some(1), "{}", said.text);
    let remedy = said.json()["checks"][0]["remedy"].clone();
    assert_eq!(remedy, format!("kubectl podcreds refresh {name}/app"));

    let said = desk.run(&["refresh", &format!("{name}/app")]);
    assert_eq!(said.code, Some(0), "{}", said.text);
    assert!(said.text.contains("/other, for "), "{}", said.text);
    desk.assert_healthy("app");
}

/// The pod would keep its role for hours; the same command takes it away.
fn one_that_is_taken_away_too(desk: &Desk) {
    let account = format!("{}/app", desk.namespace.name());
    desk.dissociate("app");
    let said = desk.doctor("app");
    assert_eq!(said.json()["firstCause"], "association", "{}", said.text);
    assert_eq!(said.code, Some(1), "{}", said.text);
    let said = desk.run(&["refresh", &account]);
    assert_eq!(said.code, Some(1), "{}", said.text);
    assert!(
        said.text.contains("no pod identity association"),
        "{}",
        said.text
    );

    desk.namespace.associate("app", "app");
    desk.put(Association::new(desk.namespace.name(), "app", "app"));
    until("the pod has credentials again", || {
        desk.ask("app").is_some()
    });
    desk.assert_healthy("app");
}

/// What the plugin is told to take for the agent never gets ready.
fn an_agent_that_is_not_ready(desk: &Desk) {
    let mut pod = desk.pod("slow");
    pod["metadata"]["labels"] = json!({ "app.kubernetes.io/name": "slow" });
    pod["spec"]["serviceAccountName"] = json!("default");
    let probe = json!({ "exec": { "command": ["false"] } });
    pod["spec"]["containers"][0]["readinessProbe"] = probe;
    desk.make("pods", &pod);
    let path = desk.namespace.path("pods/slow");
    until("the pod is on its node", || {
        let pod = desk.namespace.cluster().api().get(&path);
        pod.unwrap_or_default()["status"]["phase"] == "Running"
    });
    let name = format!("{}/app", desk.namespace.name());
    let words = ["doctor", "pod", &name, "--output", "json"];
    let said = desk.run(&[&words[..], &["--agent-label", "slow"]].concat());
    assert_eq!(said.json()["firstCause"], "agent", "{}", said.text);
    assert_eq!(said.code, Some(1), "{}", said.text);
    let remedy = said.json()["checks"][0]["remedy"].to_string();
    assert!(remedy.contains(" logs slow, and describe pod"), "{remedy}");
}

/// A DaemonSet that no node fits leaves its node without an agent.
fn without_an_agent(cluster: &Cluster, desk: &Desk) {
    let put_back = PutBack(cluster);
    select_nodes(cluster, json!({ "nobody": "here" }));
    until("the agent is gone", || {
        let pods = cluster.api().get(&agent::pods_path()).unwrap_or_default();
        pods["items"].as_array().is_some_and(Vec::is_empty)
    });
    let said = desk.doctor("app");
    assert_eq!(said.json()["firstCause"], "agent", "{}", said.text);
    assert_eq!(said.code, Some(1), "{}", said.text);
    let remedy = said.json()["checks"][0]["remedy"].to_string();
    assert!(remedy.contains("kubectl get daemonset -A"), "{remedy}");
    let said = desk.run(&["status"]);
    assert_eq!(said.code, Some(1), "{}", said.text);
    drop(put_back);
    until("the agent is back", || agent::is_rolled_out(cluster.api()));
}

/// Lets the agent onto its node again, whatever becomes of the test.
struct PutBack<'a>(&'a Cluster);

impl Drop for PutBack<'_> {
    fn drop(&mut self) {
        select_nodes(self.0, json!({ "nobody": null }));
    }
}

fn select_nodes(cluster: &Cluster, labels: Value) {
    let (namespace, name) = (agent::NAMESPACE, agent::NAME);
    let path = format!("/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}");
    let fields = json!({ "spec": { "template": { "spec": { "nodeSelector": labels } } } });
    // While a panic unwinds, a second one would hide it.
    if let Err(why) = cluster.api().patch(&path, &fields) {
        eprintln!("the agent's nodes are as they were: {why}");
    }
}

#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn kubectl_completes_the_plugins_words() {
    let plugin = binary::kubectl_podcreds();
    let own = [
        plugin.parent().unwrap().to_owned(),
        checkout::file("kubectl-podcreds"),
    ];
    let path = env::var_os("PATH").unwrap_or_default();
    let path = own.into_iter().chain(env::split_paths(&path));
    let output = Command::new("kubectl")
        .args(["__complete", "podcreds", "doctor", ""])
        .env("PATH", env::join_paths(path).unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said, "pod\tOne of its pods\n:4\n", "{output:?}");
}
