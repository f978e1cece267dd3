//! Whatever it is told, the chart renders to what Kubernetes takes and the agent understands.

use std::{fs, process::Command};

use podcreds_tests::{
    binary,
    chart::{self, Rendering, VERSIONS},
    checkout,
    privileged::can_run,
};
use serde_json::{Value, json};

use super::{agent, daemon_set, official, pod, render, request, strings};

/// All that can be switched on at once.
fn everything() -> Value {
    json!({
        "image": { "containerRegistry": "registry.example.com/team/", "digest": format!("sha256:{}", "0".repeat(64)) },
        "imagePullSecrets": [{ "name": "registry" }],
        "delegates": ["kube-system/csi-provider", "web/proxy"],
        "clusterKeys": { "url": "https://issuer.example.com/keys", "createRBAC": true },
        "agent": { "additionalArgs": {
            "-v": "debug", "--max-service-qps": 5, "--max-cache-size": 1_000_000, "-b": "[fd00:ec2::23]",
        } },
        "init": { "additionalArgs": { "-v": "debug" } },
        "metrics": {
            "enabled": true,
            "extraLabels": { "prometheus.io/port": 2705 },
            "serviceMonitor": { "enabled": true, "extraLabels": { "team": "platform" } },
        },
        "prometheusRule": { "enabled": true, "extraLabels": { "team": "platform" } },
        "grafanaDashboards": { "enabled": true },
        "runbookUrl": "https://git.example.com/runbook.md",
        "env": { "AWS_REGION": "us-iso-east-1", "HTTPS_PROXY": "http://proxy.example.com:3128" },
        "daemonsets": { "hybrid": { "create": true }, "hybrid-bottlerocket": { "create": true } },
        "nodeSelector": { "pool": "blue" },
        "podLabels": { "team": "platform" },
        "serviceAccount": { "annotations": { "a/b": "c" } },
        "podLivenessCheck": { "enabled": true },
    })
}

fn renderings() -> Option<Vec<Rendering>> {
    if !can_run(chart::check()) {
        return None;
    }
    let only = |kind: &str| {
        json!({ "env": { "AWS_REGION": "eu-west-1" }, "daemonsets": {
            "cloud": { "create": false }, kind: { "create": true },
        } })
    };
    let requests = [
        ("default", json!({})),
        ("official", official::values()),
        ("hybrid", only("hybrid")),
        ("hybrid-bottlerocket", only("hybrid-bottlerocket")),
        ("node", json!({ "datapath": "node" })),
        (
            "ebpf",
            json!({ "datapath": "ebpf", "handover": { "enabled": false } }),
        ),
        ("everything", everything()),
    ];
    let requests = requests.map(|(name, values)| {
        let mut request = request(name, values);
        request.versions = VERSIONS.to_vec();
        request
    });
    Some(chart::render(&requests).unwrap())
}

#[test]
fn every_rendering_fits_the_schemas_of_kubernetes() {
    let Some(renderings) = renderings() else {
        return;
    };
    for Rendering {
        name, complaints, ..
    } in &renderings
    {
        assert!(complaints.is_empty(), "{name}: {complaints:#?}");
    }
    let kinds = |rendering: &Rendering| {
        let kinds = rendering.manifests.iter();
        let mut kinds: Vec<_> = kinds.map(|manifest| manifest["kind"].to_string()).collect();
        kinds.dedup();
        kinds.join(" ").replace('"', "")
    };
    assert_eq!(kinds(&renderings[0]), "ServiceAccount DaemonSet");
    assert_eq!(
        kinds(&renderings[6]),
        "ServiceAccount ClusterRole ClusterRoleBinding Service ServiceMonitor PrometheusRule ConfigMap \
         DaemonSet"
    );
    assert_eq!(renderings[6].of_kind("DaemonSet").len(), 3);
}

/// A flag that the agent does not know ends it at once. So it has understood all those before the
/// first that it complains about.
#[test]
fn the_agent_understands_what_it_is_told() {
    let Some(renderings) = renderings() else {
        return;
    };
    for rendering in &renderings {
        for set in rendering.of_kind("DaemonSet") {
            let pod = &set["spec"]["template"]["spec"];
            for kind in ["initContainers", "containers"] {
                for container in pod[kind].as_array().into_iter().flatten() {
                    assert_eq!(container["command"], Value::Null);
                    let arguments = strings(&container["args"]);
                    let output = Command::new(binary::podcreds())
                        .args(&arguments)
                        .arg("--no-such-flag")
                        .output()
                        .unwrap();
                    let said = String::from_utf8_lossy(&output.stderr);
                    let (name, code) = (&rendering.name, output.status.code());
                    assert_eq!(code, Some(64), "{name}: {arguments:?}: {said}");
                    assert!(said.contains("--no-such-flag"), "{name}: {said}");
                }
            }
        }
    }
}

#[test]
fn flags_are_given_once_and_the_last_word_is_the_users() {
    let values = json!({
        "agent": { "additionalArgs": {
            "--datapath": "node", "-v": "debug", "--rotate-credentials": "true", "--max-cache-size": 1_000_000,
            "--delegate": ["a/b", "c/d"],
        } },
        "daemonsets": { "cloud": { "additionalArgs": { "-v": "error", "--rotate-credentials": "false" } } },
    });
    let Some(rendering) = render(values) else {
        return;
    };
    let arguments = strings(&agent(&rendering)["args"]);
    let expected = [
        "server",
        "--cluster-name=my-cluster",
        "--datapath=node",
        "--delegate=a/b",
        "--delegate=c/d",
        "--max-cache-size=1000000",
        "--probe-socket=/run/probe/agent.sock",
        "--verbosity=error",
    ];
    assert_eq!(arguments, expected);
}

/// What is wrong with a number is the agent's to say. YAML takes some words for others.
#[test]
fn numbers_and_words_come_as_they_are_written() {
    let values = json!({
        "image": { "tag": 20_240_101 },
        "agent": { "additionalArgs": {
            "--max-request-wait": 0.9, "--max-cache-size": 123_000_000_000_u64, "--delegate": [0.5, 1_000_000],
        } },
        "init": { "additionalArgs": { "-v": 0.5 } },
        "env": { "SMALL": 0.25, "LARGE": 123_000_000_000_u64, "YES": true },
        "metrics": { "enabled": true, "extraLabels": { "yes": 1_000_000, "small": 0.5 } },
    });
    let Some(rendering) = render(values) else {
        return;
    };
    let arguments = strings(&agent(&rendering)["args"]);
    for expected in [
        "--max-request-wait=0.9",
        "--max-cache-size=123000000000",
        "--delegate=0.5",
        "--delegate=1000000",
    ] {
        assert!(arguments.contains(&expected), "{expected}: {arguments:?}");
    }
    let initialize = &pod(&rendering)["initContainers"][0];
    assert_eq!(strings(&initialize["args"]), ["initialize", "-v=0.5"]);
    assert_eq!(agent(&rendering)["image"], "podcreds:20240101");
    let variables = json!([
        { "name": "LARGE", "value": "123000000000" },
        { "name": "SMALL", "value": "0.25" },
        { "name": "YES", "value": "true" },
    ]);
    assert_eq!(agent(&rendering)["env"], variables);
    let labels = &rendering.of_kind("Service")[0]["metadata"]["labels"];
    assert_eq!(
        (&labels["yes"], &labels["small"]),
        (&json!("1000000"), &json!("0.5"))
    );
}

/// Without what it was told by name the agent does not start, and no node is to be without agent
/// for an optional thing.
#[test]
fn what_is_optional_is_named_only_where_somebody_wants_it_otherwise() {
    let optional = ["--handover-dir", "--metrics-port", "--probe-port"];
    let named = |values| {
        let rendering = render(values)?;
        let arguments = strings(&agent(&rendering)["args"]).join(" ");
        Some(optional.map(|flag| arguments.contains(flag)))
    };
    let Some(default) = named(json!({})) else {
        return;
    };
    assert_eq!(default, [false; 3]);
    let others = json!({
        "handover": { "enabled": false },
        "metrics": { "port": 2715 },
        "agent": { "probePort": 2713 },
    });
    assert_eq!(named(others), Some([true; 3]));
}

/// `kubectl exec POD -- /podcreds status` names no folder.
#[test]
fn operators_find_the_agent_where_their_commands_look_whatever_the_values() {
    let told = |flag: &str, value: &str| json!({ "agent": { "additionalArgs": { flag: value } } });
    let off = json!({ "handover": { "enabled": false } });
    let mut own_folder = told("--handover-dir", "/run/other/podcreds");
    own_folder["daemonsets"]["cloud"] = json!({
        "volumes": [{ "name": "other", "hostPath": { "path": "/run/other" } }],
        "volumeMounts": [{ "name": "other", "mountPath": "/run/other" }],
    });
    for (values, expected) in [
        // The hand-over's folder, which is the default.
        (json!({}), None),
        (off.clone(), Some("--admin-dir=/run/podcreds")),
        (
            told("--handover-dir", "none"),
            Some("--admin-dir=/run/podcreds"),
        ),
        (own_folder, Some("--admin-dir=/run/podcreds")),
        (told("--admin-dir", "none"), Some("--admin-dir=none")),
    ] {
        let Some(rendering) = render(values.clone()) else {
            return;
        };
        let arguments = strings(&agent(&rendering)["args"]);
        let mut admin = arguments.iter().filter(|it| it.starts_with("--admin-dir"));
        assert_eq!(admin.next().copied(), expected, "{values}");
        assert_eq!(admin.next(), None, "{values}");
        let mounts = agent(&rendering)["volumeMounts"].as_array().unwrap();
        let own = ["/run/podcreds", "/run"].map(Value::from);
        let is_own = |mount: &&Value| own.contains(&mount["mountPath"]);
        let folder = mounts.iter().find(is_own).unwrap();
        assert_eq!(folder.get("readOnly"), None, "{values}");
    }
    // A volume is open to all users. The agent makes a folder in it that is not.
    let rendering = render(off).unwrap();
    let mounts = agent(&rendering)["volumeMounts"].to_string();
    assert!(mounts.contains(r#""mountPath":"/run""#), "{mounts}");
}

#[test]
fn the_next_agent_starts_before_the_last_one_ends() {
    let strategy = |values| {
        let rendering = render(values)?;
        Some(daemon_set(&rendering)["spec"]["updateStrategy"].clone())
    };
    let Some(default) = strategy(json!({})) else {
        return;
    };
    let surge =
        json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } });
    assert_eq!(default, surge);
    // Kubernetes wants one of the two to be 0, and takes 0 and 1 for what is not there.
    for (given, expected) in [
        (
            json!({ "maxUnavailable": "10%" }),
            json!({ "maxUnavailable": "10%" }),
        ),
        (
            json!({ "maxUnavailable": 0 }),
            json!({ "maxSurge": 1, "maxUnavailable": 0 }),
        ),
        (
            json!({ "maxSurge": "20%" }),
            json!({ "maxSurge": "20%", "maxUnavailable": 0 }),
        ),
        (
            json!({ "maxSurge": 2 }),
            json!({ "maxSurge": 2, "maxUnavailable": 0 }),
        ),
        (json!({ "maxSurge": 0 }), json!({ "maxSurge": 0 })),
        (json!({ "maxSurge": "0%" }), json!({ "maxSurge": "0%" })),
    ] {
        let rendered = strategy(json!({ "updateStrategy": { "rollingUpdate": given } })).unwrap();
        assert_eq!(rendered["rollingUpdate"], expected, "{given}");
    }
    let by_hand = json!({ "type": "OnDelete" });
    assert_eq!(
        strategy(json!({ "updateStrategy": by_hand })),
        Some(by_hand)
    );
    // A port that is declared is taken for the second agent.
    for rendering in renderings().into_iter().flatten() {
        assert!(
            !rendering.text.contains("containerPort"),
            "{}",
            rendering.name
        );
    }
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    for (values, named) in [
        (json!({ "clusterName": "" }), "clusterName is required"),
        (json!({ "clusterName": "no/name" }), "/clusterName"),
        (json!({ "clustername": "x" }), "'clustername' not allowed"),
        (
            json!({ "agent": { "additonalArgs": {} } }),
            "'additonalArgs' not allowed",
        ),
        (json!({ "datapath": "ebfp" }), "/datapath"),
        (json!({ "delegates": ["no-namespace"] }), "/delegates/0"),
        (json!({ "agent": { "probePort": 0 } }), "/agent/probePort"),
        (json!({ "runbookUrl": "docs/runbook.md" }), "/runbookUrl"),
        // 1.10 would be 1.1.
        (json!({ "image": { "tag": 1.1 } }), "/image/tag"),
        (
            json!({ "agent": { "additionalArgs": { "--probe-port=2713": "" } } }),
            "'--probe-port=2713'",
        ),
        (
            json!({ "clusterKeys": { "createRBAC": true }, "serviceAccount": { "create": false } }),
            "clusterKeys.createRBAC",
        ),
    ] {
        let Some(rendering) = render(values) else {
            return;
        };
        let complaints = rendering.complaints.join("\n");
        assert!(complaints.contains(named), "no {named:?} in {complaints:?}");
        assert!(rendering.manifests.is_empty(), "{named}");
    }
}

#[test]
fn the_chart_is_of_this_version() {
    let chart = fs::read_to_string(checkout::file("deploy/chart/Chart.yaml")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    for line in [
        format!("version: {version}"),
        format!("appVersion: {version}"),
    ] {
        assert!(chart.lines().any(|own| own == line), "no {line}");
    }
}

#[test]
fn the_manifests_are_what_the_chart_renders_to() {
    if !can_run(chart::check()) {
        return;
    }
    for name in ["podcreds", "podcreds-hybrid"] {
        let path = format!("deploy/manifests/{name}");
        let values = chart::yaml(&format!("{path}.values.yaml")).unwrap();
        let rendering = render(values).unwrap();
        let manifest = fs::read_to_string(checkout::file(format!("{path}.yaml"))).unwrap();
        let body = manifest.lines().skip_while(|line| line.starts_with('#'));
        // Helm has not installed them.
        let of_helm = ["app.kubernetes.io/managed-by: Helm", "helm.sh/chart: "];
        let is_of_helm = |line: &str| of_helm.iter().any(|own| line.trim().starts_with(own));
        let rendered = rendering.text.lines();
        assert!(
            body.eq(rendered.filter(|line| !is_of_helm(line))),
            "{path}.yaml is old: `cargo xtask chart` renders it again"
        );
    }
}
