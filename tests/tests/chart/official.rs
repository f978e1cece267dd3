//! The values of AWS's own chart are understood.

use serde_json::{Value, json};

use super::{agent, daemon_set, pod, render, strings};

/// The default values of the chart eks-pod-identity-agent.
pub(super) fn values() -> Value {
    serde_json::from_str(include_str!("official.json")).unwrap()
}

#[test]
fn its_defaults_give_the_same_daemon_set_with_this_agent() {
    let Some(rendering) = render(values()) else {
        return;
    };
    let set = daemon_set(&rendering);
    assert_eq!(set["metadata"]["name"], "eks-pod-identity-agent");
    assert_eq!(
        set["spec"]["updateStrategy"]["rollingUpdate"],
        json!({ "maxUnavailable": "10%" })
    );
    let pod = pod(&rendering);
    assert_eq!(pod["priorityClassName"], "system-node-critical");
    assert_eq!(pod["tolerations"], json!([{ "operator": "Exists" }]));
    assert!(pod.get("serviceAccountName").is_none());
    assert!(rendering.of_kind("ServiceAccount").is_empty());
    let agent = agent(&rendering);
    assert_eq!(
        agent["image"],
        "602401143452.dkr.ecr.us-west-2.amazonaws.com/podcreds:v0.1.20"
    );
    assert_eq!(agent["imagePullPolicy"], "Always");
    let arguments = strings(&agent["args"]);
    assert_eq!(arguments[0], "server");
    assert!(arguments.contains(&"--verbosity=trace"), "{arguments:?}");
    let initialize = strings(&pod["initContainers"][0]["args"]);
    assert_eq!(initialize, ["initialize", "-v=trace"]);
    // What names the other agent's image, and what stands for something else, is not passed over in
    // silence.
    for warning in [
        "clusterName",
        "AWS_REGION",
        "containerRegistry",
        "agent.command",
        "init.command",
        "nameOverride",
        "fullnameOverride",
    ] {
        let said = format!("WARNING: {warning}");
        let said_too = format!("WARNING: env.{warning}");
        let said_of_image = format!("WARNING: image.{warning}");
        let found = [said, said_too, said_of_image]
            .iter()
            .any(|said| rendering.notes.contains(said));
        assert!(found, "nothing about {warning}: {}", rendering.notes);
    }
}

#[test]
fn hybrid_nodes_get_agents_that_read_the_credentials_of_the_host() {
    for (kind, path) in [
        ("hybrid", "/eks-hybrid/.aws"),
        ("hybrid-bottlerocket", "/var/eks-hybrid/.aws"),
    ] {
        let Some(rendering) = render(json!({
            "daemonsets": { "cloud": { "create": false }, kind: { "create": true } },
        })) else {
            return;
        };
        let name = daemon_set(&rendering)["metadata"]["name"].as_str().unwrap();
        assert_eq!(name, format!("podcreds-{kind}"));
        let arguments = strings(&agent(&rendering)["args"]);
        assert!(arguments.contains(&"--rotate-credentials"), "{arguments:?}");
        let volumes = pod(&rendering)["volumes"].as_array().unwrap();
        let credentials = volumes
            .iter()
            .find(|volume| volume["name"] == "aws-credentials");
        assert_eq!(credentials.unwrap()["hostPath"]["path"], path);
        let terms = &pod(&rendering)["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            ["nodeSelectorTerms"];
        assert!(terms.to_string().contains("os.bottlerocket.aws/variant"));
    }
}

#[test]
fn names_that_are_too_long_keep_what_tells_them_apart() {
    let Some(rendering) = render(json!({
        "fullnameOverride": "x".repeat(80),
        "daemonsets": { "hybrid": { "create": true }, "hybrid-bottlerocket": { "create": true } },
    })) else {
        return;
    };
    let sets = rendering.of_kind("DaemonSet");
    let mut names: Vec<_> = sets
        .iter()
        .map(|set| set["metadata"]["name"].as_str().unwrap())
        .collect();
    names.sort_by_key(|name| name.matches('-').count());
    assert!(names.iter().all(|name| name.len() == 63), "{names:?}");
    assert!(names[1].ends_with("x-hybrid") && names[2].ends_with("x-hybrid-bottlerocket"));
}
