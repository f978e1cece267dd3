//! `docs/install.md`: what each of its Helm commands installs.

use podcreds_tests::{
    chart::{self, Rendering},
    guide::{Guide, Section},
    privileged::can_run,
};
use serde_json::{Value, json};

use super::{agent, daemon_set, pod, request, strings};

const GUIDE: &str = "docs/install.md";

/// The commands of a section that install or upgrade.
fn helm(section: &Section) -> Vec<&String> {
    let commands = section.commands.iter();
    commands
        .filter(|command| {
            command.starts_with("helm install") || command.starts_with("helm upgrade")
        })
        .collect()
}

/// What `--set` asks for: `a.b=1,c\.d=x`.
fn set(values: &mut Value, assignments: &str) {
    for assignment in assignments.split(',') {
        let (path, value) = assignment.split_once('=').unwrap();
        let mut place = &mut *values;
        for key in path.replace("\\.", "\0").split('.') {
            place = &mut place[key.replace('\0', ".")];
        }
        *place = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    }
}

/// The values of a command, with those of its file. Nothing else may decide what is installed.
fn values(command: &str, file: &Value) -> Value {
    let command = command.replace("\\\n", " ");
    // With it Helm 3.19 and 4.3 keep what `--set name=null` is to take away.
    assert!(!command.contains("reuse-values"), "{command}");
    let mut words = command.split_whitespace();
    let mut values = json!({});
    while let Some(word) = words.next() {
        match word {
            "--values" => {
                assert_eq!(words.next(), Some("values.yaml"), "{command}");
                values = file.clone();
            }
            "--set" => set(&mut values, words.next().unwrap().trim_matches('\'')),
            _ => {}
        }
    }
    assert_ne!(
        values,
        json!({}),
        "a command without values takes those of the last one: {command}"
    );
    values
}

/// What the last Helm command of a section installs.
fn installed_by(title: &str) -> Option<Rendering> {
    if !can_run(chart::check()) {
        return None;
    }
    let guide = Guide::read(GUIDE).unwrap();
    let file = json!({ "clusterName": "CLUSTER", "image": { "containerRegistry": "REGISTRY" } });
    let shown = &guide
        .section("1. The image into a registry of yours")
        .unwrap()
        .yaml;
    assert_eq!(
        shown,
        &["clusterName: CLUSTER\nimage:\n  containerRegistry: REGISTRY\n"]
    );
    let section = guide.section(title).unwrap();
    let command = helm(section).pop().unwrap();
    let requests = [request(title, values(command, &file))];
    let rendering = chart::render(&requests).unwrap().pop().unwrap();
    assert_eq!(rendering.complaints, [] as [&str; 0], "{command}");
    Some(rendering)
}

fn flag<'a>(rendering: &'a Rendering, name: &str) -> Option<&'a str> {
    let arguments = strings(&agent(rendering)["args"]).into_iter();
    arguments
        .filter_map(|argument| argument.strip_prefix(name)?.strip_prefix('='))
        .next_back()
}

#[test]
fn no_command_of_the_guide_depends_on_the_one_before() {
    let guide = Guide::read(GUIDE).unwrap();
    let commands: Vec<_> = guide.sections().iter().flat_map(helm).collect();
    assert!(commands.len() >= 5, "{commands:?}");
    for command in commands {
        values(command, &json!({ "clusterName": "x" }));
        assert!(command.contains(" --wait"), "{command}");
    }
}

#[test]
fn the_guides_first_step_is_for_one_node_and_the_next_for_all() {
    let Some(one) = installed_by("2. One node") else {
        return;
    };
    let selector = &pod(&one)["nodeSelector"];
    assert_eq!(selector, &json!({ "kubernetes.io/hostname": "NODE" }));
    for title in ["3. All nodes", "4. Without the add-on", "And back"] {
        let all = installed_by(title).unwrap();
        assert_eq!(pod(&all)["nodeSelector"], Value::Null, "{title}");
        // What nobody may change in a DaemonSet that is there.
        assert_eq!(
            daemon_set(&all)["spec"]["selector"],
            daemon_set(&one)["spec"]["selector"]
        );
    }
}

#[test]
fn beside_the_add_on_the_agent_takes_other_ports() {
    for title in ["2. One node", "3. All nodes", "And back"] {
        let Some(rendering) = installed_by(title) else {
            return;
        };
        assert_eq!(flag(&rendering, "--probe-port"), Some("2713"), "{title}");
        assert_eq!(flag(&rendering, "--metrics-port"), Some("2715"), "{title}");
        // It would wait for the add-on's addresses, and the add-on for podcreds'.
        let datapath = if title == "And back" { "ebpf" } else { "auto" };
        assert_eq!(flag(&rendering, "--datapath"), Some(datapath), "{title}");
    }
    let alone = installed_by("4. Without the add-on").unwrap();
    // The defaults, which the chart does not name: then they are no reason to end.
    assert_eq!(flag(&alone, "--probe-port"), None);
    assert_eq!(flag(&alone, "--metrics-port"), None);
}

/// A DaemonSet without a single pod is "successfully rolled out".
#[test]
fn the_guide_counts_nodes_before_it_trusts_a_rollout() {
    let guide = Guide::read(GUIDE).unwrap();
    let mut rollouts = 0;
    for section in guide.sections() {
        let mut counted = Vec::new();
        for command in &section.commands {
            let counts = |set: &&str| {
                command.contains(&format!("wait daemonset/{set} "))
                    && command.contains("{.status.desiredNumberScheduled}")
            };
            counted.extend(
                ["podcreds", "eks-pod-identity-agent"]
                    .iter()
                    .find(|set| counts(set)),
            );
            if let Some((_, set)) = command.split_once("rollout status daemonset/") {
                assert!(counted.contains(&set), "{}: {command}", section.title);
                rollouts += 1;
            }
        }
        // What takes the one agent away comes after the other one has been counted.
        if section.title == "And back" {
            assert!(counted.contains(&"eks-pod-identity-agent"));
            assert!(
                section
                    .commands
                    .last()
                    .unwrap()
                    .starts_with("helm uninstall")
            );
        }
    }
    assert!(rollouts >= 5, "{rollouts}");
}
