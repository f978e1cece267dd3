//! A new podcreds takes the place of the old one, as a DaemonSet's controller does it.

use podcreds_tests::{
    cluster::{Cluster, PodSpec, agent},
    wait::until,
};
use serde_json::{Value, json};

use crate::load::Load;

#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn an_update_under_load_loses_no_request() {
    let cluster = Cluster::alone();
    let namespace = cluster.namespace("update");
    namespace.associated("app", "update-role");
    let load = Load::start(&namespace);
    let path = format!(
        "/apis/apps/v1/namespaces/{}/daemonsets/{}",
        agent::NAMESPACE,
        agent::NAME
    );
    let pods = || {
        let list = cluster.api().get(&agent::pods_path()).unwrap_or_default();
        let pods = list["items"].as_array().cloned().unwrap_or_default();
        let uids = pods.iter().map(|pod| pod["metadata"]["uid"].clone());
        uids.collect::<Vec<Value>>()
    };
    for update in 1..=2 {
        let before = pods();
        let [old] = &before[..] else {
            panic!("one agent, not {before:?}");
        };
        let annotations = json!({ "update": update.to_string() });
        let template = json!({ "template": { "metadata": { "annotations": annotations } } });
        cluster
            .api()
            .patch(&path, &json!({ "spec": template }))
            .unwrap();
        until("a new agent has taken the old one's place", || {
            let now = pods();
            now.len() == 1 && now[0] != *old && agent::is_rolled_out(cluster.api())
        });
    }
    let (requests, longest) = load.finish();
    eprintln!(
        "podcreds updated twice under load: {requests} requests, 0 failed, {longest} ms at most"
    );
    // The last one serves pods that come.
    let pod = namespace.start(&PodSpec::client("after", ["patient"]).account("app"));
    let answer = pod.result();
    assert_eq!(answer["status"], 200, "{answer}");
    pod.assert_owns(&answer["body"]["Token"]);
}
