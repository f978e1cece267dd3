//! What the agent is told by flags, the rest of the manifest says as well.

use podcreds_tests::chart::Rendering;
use serde_json::{Value, json};

use super::{agent, daemon_set, pod, render, strings};

/// Values with flags for all nodes, and with flags for those of one kind: both ways to say it.
fn told(flags: &Value) -> [Value; 2] {
    [
        json!({ "agent": { "additionalArgs": flags } }),
        json!({ "daemonsets": { "cloud": { "additionalArgs": flags } } }),
    ]
}

/// Where the agent sees a volume, and what folder of the host that is.
fn volume(rendering: &Rendering, name: &str) -> Option<(String, Value)> {
    let named = |list: &Value| {
        let mut items = list.as_array().unwrap().iter();
        items.find(|item| item["name"] == name).cloned()
    };
    let mount = named(&agent(rendering)["volumeMounts"])?;
    let volume = named(&pod(rendering)["volumes"]).unwrap();
    let path = mount["mountPath"].as_str().unwrap().to_owned();
    Some((path, volume["hostPath"]["path"].clone()))
}

fn capabilities(rendering: &Rendering) -> Vec<&str> {
    strings(&agent(rendering)["securityContext"]["capabilities"]["add"])
}

#[test]
fn kubelet_and_prometheus_ask_at_the_ports_that_flags_say() {
    for values in told(&json!({ "--probe-port": 2713, "--metrics-port": "2715" })) {
        let mut values = values;
        values["metrics"] = json!({ "enabled": true });
        let Some(rendering) = render(values.clone()) else {
            return;
        };
        let readiness = &agent(&rendering)["readinessProbe"]["httpGet"];
        assert_eq!(readiness["port"], 2713, "{values}");
        let notes = &daemon_set(&rendering)["spec"]["template"]["metadata"]["annotations"];
        assert_eq!(notes["prometheus.io/port"], "2715", "{values}");
        let port = &rendering.of_kind("Service")[0]["spec"]["ports"][0];
        assert_eq!(
            (&port["port"], &port["targetPort"]),
            (&json!(2715), &json!(2715))
        );
    }
}

#[test]
fn delegates_of_flags_have_their_tokens_read_where_kubelet_keeps_them() {
    for values in told(&json!({ "--delegate": ["a/b"], "--kubelet-root": "/data/kubelet" })) {
        let Some(rendering) = render(values.clone()) else {
            return;
        };
        assert!(
            capabilities(&rendering).contains(&"DAC_READ_SEARCH"),
            "{values}"
        );
        let kubelet = volume(&rendering, "kubelet");
        assert_eq!(
            kubelet,
            Some(("/data/kubelet".into(), "/data/kubelet".into()))
        );
    }
    for nobody in [json!("false"), json!([])] {
        let values = json!({
            "delegates": ["a/b"],
            "agent": { "additionalArgs": { "--delegate": nobody } },
        });
        let rendering = render(values).unwrap();
        assert!(!capabilities(&rendering).contains(&"DAC_READ_SEARCH"));
        assert_eq!(volume(&rendering, "kubelet"), None, "{nobody}");
    }
}

#[test]
fn what_is_in_a_volume_of_the_users_is_not_mounted_again() {
    for (flags, folder, chart) in [
        (
            json!({ "--delegate": "a/b" }),
            "/var/lib/kubelet",
            "kubelet",
        ),
        (
            json!({ "--cgroup-root": "/host/cgroup" }),
            "/host",
            "cgroup",
        ),
    ] {
        let own = json!([{ "name": "own", "hostPath": { "path": folder } }]);
        let mount = json!([{ "name": "own", "mountPath": folder }]);
        let values = json!({
            "agent": { "additionalArgs": flags },
            "daemonsets": { "cloud": { "volumes": own, "volumeMounts": mount } },
        });
        let Some(rendering) = render(values) else {
            return;
        };
        assert_eq!(volume(&rendering, chart), None, "{flags}");
        let own = volume(&rendering, "own");
        assert_eq!(own, Some((folder.into(), folder.into())));
    }
}

#[test]
fn the_path_of_a_flag_gets_what_it_needs_and_nothing_else() {
    for values in told(&json!({ "--datapath": "node" })) {
        let Some(rendering) = render(values.clone()) else {
            return;
        };
        assert_eq!(capabilities(&rendering), ["NET_BIND_SERVICE"], "{values}");
        assert_eq!(pod(&rendering).get("hostPID"), None, "{values}");
        assert_eq!(volume(&rendering, "cgroup"), None, "{values}");
        let security = &agent(&rendering)["securityContext"];
        assert_eq!(security.get("appArmorProfile"), None, "{values}");
    }
    for values in told(&json!({ "--datapath": "ebpf" })) {
        let mut values = values;
        values["datapath"] = "node".into();
        let rendering = render(values.clone()).unwrap();
        assert!(capabilities(&rendering).contains(&"BPF"), "{values}");
        assert_eq!(pod(&rendering)["hostPID"], true, "{values}");
        assert_eq!(pod(&rendering).get("initContainers"), None, "{values}");
    }
}

#[test]
fn the_agent_sees_the_cgroups_that_it_is_told_to_look_at() {
    for (root, seen) in [
        ("/sys/fs/cgroup/kubepods.slice", "/sys/fs/cgroup"),
        ("/sys/fs/cgroup", "/sys/fs/cgroup"),
        ("/cgroup2", "/cgroup2"),
    ] {
        for values in told(&json!({ "--cgroup-root": root })) {
            let Some(rendering) = render(values) else {
                return;
            };
            assert_eq!(
                volume(&rendering, "cgroup"),
                Some((seen.into(), seen.into()))
            );
        }
    }
}

#[test]
fn flags_switch_the_hand_over_on_and_off() {
    for values in told(&json!({ "--handover-dir": "none" })) {
        let Some(rendering) = render(values) else {
            return;
        };
        assert_eq!(volume(&rendering, "handover"), None);
        assert_eq!(volume(&rendering, "admin").unwrap().0, "/run");
    }
    for values in told(&json!({ "--handover-dir": "/run/podcreds" })) {
        let mut values = values;
        values["handover"] = json!({ "enabled": false, "hostPath": "/run/other" });
        let rendering = render(values).unwrap();
        let shared = ("/run/podcreds".to_owned(), Value::from("/run/other"));
        assert_eq!(volume(&rendering, "handover"), Some(shared));
    }
}

/// Kubelet kills an agent that takes longer than that.
#[test]
fn kubelet_waits_for_longer_than_the_agent_takes_to_end() {
    for (flag, seconds) in [
        (json!("5s"), 30),
        (json!(20), 30),
        (json!(60), 70),
        (json!("1m30s"), 100),
        (json!("900ms"), 30),
    ] {
        for values in told(&json!({ "--shutdown-grace-period": flag })) {
            let Some(rendering) = render(values) else {
                return;
            };
            assert_eq!(
                pod(&rendering)["terminationGracePeriodSeconds"],
                seconds,
                "{flag}"
            );
        }
    }
}

#[test]
fn flags_that_the_manifest_cannot_follow_are_refused() {
    for (flag, value) in [
        ("--probe-socket", json!("/run/podcreds/probe.sock")),
        ("--probe-socket", json!("false")),
        ("--handover-dir", json!("/run/other")),
        ("--handover-dir", json!("/run/podcreds-other")),
        ("--admin-dir", json!("/run/other")),
        ("--shutdown-grace-period", json!("a minute")),
    ] {
        for values in told(&json!({ flag: value })) {
            let Some(rendering) = render(values.clone()) else {
                return;
            };
            let complaints = rendering.complaints.join("\n");
            assert!(complaints.contains(flag), "{values}: {complaints:?}");
        }
    }
    // The agent's own folder for operators, where nothing is handed over, is below /run.
    for (folder, refused) in [("/run/other", false), ("/var/run", true)] {
        let flags = json!({ "--handover-dir": "none", "--admin-dir": folder });
        for values in told(&flags) {
            let complaints = render(values).unwrap().complaints.join("\n");
            assert_eq!(complaints.contains("--admin-dir"), refused, "{complaints}");
        }
    }
    // One Service is for the agents of all kinds of nodes.
    let two = |flags: Value| {
        json!({
            "metrics": { "enabled": true },
            "daemonsets": { "hybrid": { "create": true, "additionalArgs": flags } },
        })
    };
    let complaints = |flags| render(two(flags)).unwrap().complaints.join("\n");
    let refused = complaints(json!({ "--metrics-port": 2715 }));
    assert!(refused.contains("metrics.port"), "{refused:?}");
    assert_eq!(complaints(json!({ "--metrics-port": 2705 })), "");
}
