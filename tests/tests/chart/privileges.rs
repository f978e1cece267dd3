//! The agent's pods may do what they need, and nothing else.

use podcreds_tests::chart::Rendering;
use serde_json::{Value, json};

use super::{agent, pod, render, strings};

/// The folders of the host that the agent sees.
fn host_paths(rendering: &Rendering) -> Vec<&str> {
    let volumes = pod(rendering)["volumes"].as_array().unwrap();
    volumes
        .iter()
        .filter_map(|volume| volume["hostPath"]["path"].as_str())
        .collect()
}

#[test]
fn capabilities_and_the_hosts_folders_follow_from_what_is_switched_on() {
    let ebpf = ["BPF", "NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE"];
    let auto = [
        "BPF",
        "NET_ADMIN",
        "NET_BIND_SERVICE",
        "SYS_ADMIN",
        "SYS_PTRACE",
    ];
    let delegates = [
        "BPF",
        "DAC_READ_SEARCH",
        "NET_ADMIN",
        "SYS_ADMIN",
        "SYS_PTRACE",
    ];
    let (cgroup, run, kubelet) = ("/sys/fs/cgroup", "/run/podcreds", "/var/lib/kubelet");
    for (values, capabilities, paths) in [
        (json!({}), &auto[..], &[run, cgroup][..]),
        (json!({ "datapath": "ebpf" }), &ebpf, &[run, cgroup]),
        (json!({ "datapath": "node" }), &["NET_BIND_SERVICE"], &[run]),
        (
            json!({ "datapath": "ebpf", "handover": { "enabled": false } }),
            &ebpf,
            &[cgroup],
        ),
        (
            json!({ "datapath": "ebpf", "delegates": ["a/b"] }),
            &delegates,
            &[run, cgroup, kubelet],
        ),
    ] {
        let Some(rendering) = render(values.clone()) else {
            return;
        };
        let held = &agent(&rendering)["securityContext"]["capabilities"];
        assert_eq!(strings(&held["add"]), capabilities, "{values}");
        assert_eq!(strings(&held["drop"]), ["ALL"], "{values}");
        assert_eq!(host_paths(&rendering), paths, "{values}");
        let by_processes = values["datapath"] != "node";
        assert_eq!(pod(&rendering).get("hostPID").is_some(), by_processes);
    }
}

#[test]
fn no_container_is_privileged_or_writes_to_its_image() {
    for values in [
        json!({}),
        json!({ "datapath": "node" }),
        json!({ "delegates": ["a/b"] }),
    ] {
        let Some(rendering) = render(values) else {
            return;
        };
        for kind in ["initContainers", "containers"] {
            for container in pod(&rendering)[kind].as_array().unwrap() {
                let context = &container["securityContext"];
                assert_eq!(context["privileged"], false);
                assert_eq!(context["allowPrivilegeEscalation"], false);
                assert_eq!(context["readOnlyRootFilesystem"], true);
                assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
                assert_eq!(context["seLinuxOptions"]["type"], "spc_t");
            }
        }
        let initialize = &pod(&rendering)["initContainers"][0]["securityContext"];
        assert_eq!(strings(&initialize["capabilities"]["add"]), ["NET_ADMIN"]);
        assert_eq!(initialize.get("appArmorProfile"), None);
    }
}

#[test]
fn the_host_is_not_written_to_but_for_the_hand_over() {
    let Some(rendering) = render(json!({ "delegates": ["a/b"] })) else {
        return;
    };
    let writable: Vec<&Value> = agent(&rendering)["volumeMounts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|mount| mount["readOnly"] != true)
        .map(|mount| &mount["name"])
        .collect();
    assert_eq!(writable, ["probe", "handover"]);
}

#[test]
fn rights_in_the_cluster_are_given_only_when_asked_for() {
    let rights = ["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];
    let given = |values| {
        let rendering = render(values)?;
        let kinds = rights.into_iter();
        Some(
            kinds
                .flat_map(|kind| rendering.of_kind(kind))
                .cloned()
                .collect::<Vec<_>>(),
        )
    };
    let Some(default) =
        given(json!({ "delegates": ["a/b"], "podLivenessCheck": { "enabled": true } }))
    else {
        return;
    };
    assert_eq!(default, Vec::<Value>::new());
    let asked = given(json!({ "clusterKeys": { "createRBAC": true } })).unwrap();
    assert_eq!(asked.len(), 2);
    let rule = json!([{ "nonResourceURLs": ["/openid/v1/jwks"], "verbs": ["get"] }]);
    assert_eq!(asked[0]["rules"], rule);
}

#[test]
fn each_agent_is_asked_itself_whether_it_serves_pods() {
    let Some(rendering) = render(json!({})) else {
        return;
    };
    let agent = agent(&rendering);
    let command = strings(&agent["startupProbe"]["exec"]["command"]);
    assert_eq!(command[..2], ["/podcreds", "probe"]);
    // What every program of the node could flood must not have the agent killed.
    let liveness = strings(&agent["livenessProbe"]["exec"]["command"]);
    assert_eq!((liveness[2], liveness[3]), (command[2], "/healthz"));
    let socket = command[2].strip_prefix("--socket=").unwrap();
    let told = format!("--probe-socket={socket}");
    assert!(strings(&agent["args"]).contains(&told.as_str()));
    let folder = socket.rsplit_once('/').unwrap().0;
    let mounts = agent["volumeMounts"].as_array().unwrap();
    let mount = mounts
        .iter()
        .find(|mount| mount["mountPath"] == folder)
        .unwrap();
    let volumes = pod(&rendering)["volumes"].as_array().unwrap();
    let volume = volumes
        .iter()
        .find(|volume| volume["name"] == mount["name"])
        .unwrap();
    // Of the pod's own, not of the node's.
    assert!(volume.get("emptyDir").is_some(), "{volume}");
}
