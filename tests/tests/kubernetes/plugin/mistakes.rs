//! One mistake in each of many pods: `doctor pod` names it first, with what mends it.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use podcreds_tests::{associations::Association, aws::ACCOUNT, cluster::Cluster, iam};
use serde_json::{Value, json};

use super::desk::{ACTIONS, Desk, SERVICE};

const URI: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
const TOKEN_FILE: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
/// What makes a pod again that nothing has made.
const AGAIN: &str = "-o yaml > pod.yaml, delete it, and create it again";
/// What changes a trust policy by hand.
const EDIT_TRUST: &str = "--policy-document file://trust.json";
/// Doctors at once.
const AT_ONCE: usize = 4;

/// A mistake. Its name is also that of its pod and, for most, of the pod's service account.
struct Mistake {
    name: &'static str,
    /// What there is before the pod.
    before: fn(&Desk, &str),
    /// What is special about the pod.
    shape: fn(&mut Value),
    /// What happens once the pod runs.
    after: fn(&Desk, &str),
    /// The check that must come first.
    cause: &'static str,
    /// A part of its remedy.
    remedy: &'static str,
}

/// A mistake in what is around an ordinary pod.
const fn around(
    name: &'static str,
    before: fn(&Desk, &str),
    cause: &'static str,
    remedy: &'static str,
) -> Mistake {
    Mistake {
        name,
        before,
        shape: |_| (),
        after: |_, _| (),
        cause,
        remedy,
    }
}

/// A mistake in a pod that has an association.
const fn inside(
    name: &'static str,
    shape: fn(&mut Value),
    cause: &'static str,
    remedy: &'static str,
) -> Mistake {
    Mistake {
        shape,
        ..around(name, Desk::associate, cause, remedy)
    }
}

/// A mistake that is made once the pod runs.
const fn later(
    name: &'static str,
    after: fn(&Desk, &str),
    cause: &'static str,
    remedy: &'static str,
) -> Mistake {
    Mistake {
        after,
        ..around(name, Desk::associate, cause, remedy)
    }
}

/// Mistakes with service accounts, associations and the webhook.
fn of_associations() -> Vec<Mistake> {
    vec![
        around(
            "none",
            |desk, account| desk.namespace.account(account),
            "association",
            "aws eks create-pod-identity-association --cluster-name test --region eu-central-1",
        ),
        Mistake {
            shape: |pod| pod["spec"]["serviceAccountName"] = json!("raeder"),
            ..around(
                "misspelt",
                |desk, _| {
                    desk.namespace.account("raeder");
                    desk.associate("reader");
                },
                "association",
                "serviceAccountName: reader",
            )
        },
        around(
            "elsewhere",
            |desk, account| {
                desk.namespace.account(account);
                desk.put(Association::new("another-namespace", account, account));
            },
            "association",
            "--service-account elsewhere --role-arn ROLE_ARN",
        ),
        later(
            "deleted",
            |desk, account| {
                let path = format!("serviceaccounts/{account}");
                let api = desk.namespace.cluster().api();
                api.delete(&desk.namespace.path(&path)).unwrap();
            },
            "account",
            "create serviceaccount deleted",
        ),
        Mistake {
            after: |desk, account| {
                desk.trust(account, &ACTIONS);
                desk.put_now(Association::new(desk.namespace.name(), account, account));
            },
            ..around(
                "older",
                |desk, account| desk.namespace.account(account),
                "injection",
                AGAIN,
            )
        },
        around("missed", Desk::associate_unheard, "injection", AGAIN),
        Mistake {
            shape: |pod| {
                let annotations = json!({ "eks.amazonaws.com/skip-containers": "main" });
                pod["metadata"]["annotations"] = annotations;
            },
            ..around(
                "skipped",
                Desk::associate_unheard,
                "injection",
                "take the annotation away",
            )
        },
        around(
            "irsa",
            |desk, account| {
                desk.associate(account);
                let role = format!("arn:aws:iam::{ACCOUNT}:role/{account}");
                desk.annotate_account(account, &json!({ "eks.amazonaws.com/role-arn": role }));
            },
            "irsa",
            "annotate serviceaccount irsa eks.amazonaws.com/role-arn-",
        ),
    ]
}

/// Mistakes in the pod itself.
fn of_the_pod() -> Vec<Mistake> {
    vec![
        inside(
            "pending",
            |pod| pod["spec"]["nodeSelector"] = json!({ "nobody": "here" }),
            "node",
            "describe pod pending",
        ),
        Mistake {
            before: Desk::associate_unheard,
            ..inside(
                "told-otherwise",
                |pod| set(pod, URI, "http://localhost:8080/credentials"),
                "injection",
                "take AWS_CONTAINER_CREDENTIALS_FULL_URI out",
            )
        },
        Mistake {
            before: Desk::associate_unheard,
            ..inside("audience", with_other_audience, "token", AGAIN)
        },
        inside(
            "keys",
            |pod| set(pod, "AWS_ACCESS_KEY_ID", "AKIA"),
            "settings",
            "take AWS_ACCESS_KEY_ID out of",
        ),
        inside(
            "profile",
            |pod| set(pod, "AWS_PROFILE", "dev"),
            "settings",
            "take AWS_PROFILE out of",
        ),
        inside(
            "web-identity",
            |pod| {
                set(pod, "AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/old");
                set(pod, "AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/token");
            },
            "settings",
            AGAIN,
        ),
        inside(
            "role-alone",
            |pod| set(pod, "AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/old"),
            "settings",
            "take AWS_ROLE_ARN out of",
        ),
        inside(
            "proxy",
            |pod| set(pod, "HTTP_PROXY", "http://proxy:3128"),
            "proxy",
            "to NO_PROXY",
        ),
    ]
}

/// Mistakes with roles, and what only the agent sees.
fn of_roles() -> Vec<Mistake> {
    vec![
        around(
            "no-role",
            |desk, account| {
                desk.associate(account);
                let namespace = desk.namespace.name();
                desk.put(Association::new(namespace, account, "never-made"));
            },
            "role",
            "aws eks update-pod-identity-association --cluster-name test",
        ),
        around(
            "foreign-role",
            |desk, account| {
                desk.associate(account);
                let role = "arn:aws:iam::444455556666:role/theirs";
                desk.put(Association::new(desk.namespace.name(), account, role));
            },
            "role",
            "name this one with --target-role-arn",
        ),
        around(
            "no-tag-session",
            |desk, account| {
                desk.associate(account);
                desk.trust(account, &["sts:AssumeRole"]);
            },
            "trust",
            "aws iam update-assume-role-policy --role-name no-tag-session",
        ),
        around(
            "no-assume-role",
            |desk, account| {
                desk.associate(account);
                desk.trust(account, &["sts:TagSession"]);
            },
            "trust",
            "aws iam update-assume-role-policy --role-name no-assume-role",
        ),
        around(
            "principal",
            |desk, account| {
                desk.associate(account);
                let trust = iam::trust("ec2.amazonaws.com", &ACTIONS, Value::Null);
                desk.iam.put(account, trust);
            },
            "trust",
            SERVICE,
        ),
        around(
            "condition",
            |desk, account| {
                desk.associate(account);
                only_for_namespace(desk, account, "another-namespace");
            },
            "trust",
            EDIT_TRUST,
        ),
        around(
            "untagged",
            |desk, account| {
                desk.associate(account);
                let namespace = desk.namespace.name();
                desk.put(Association {
                    disable_session_tags: true,
                    ..Association::new(namespace, account, account)
                });
                only_for_namespace(desk, account, namespace);
            },
            "trust",
            EDIT_TRUST,
        ),
        around(
            "target",
            |desk, account| {
                desk.associate(account);
                let association = Association::new(desk.namespace.name(), account, account);
                desk.put(association.target("data"));
                desk.iam
                    .put("data", iam::trust(SERVICE, &ACTIONS, Value::Null));
            },
            "target-role",
            "--role-name data",
        ),
        // EKS still lists what EKS Auth has forgotten.
        later(
            "refused",
            |desk, account| desk.namespace.dissociate(account),
            "agent-report",
            "aws eks create-pod-identity-association",
        ),
    ]
}

fn set(pod: &mut Value, name: &str, value: &str) {
    let env = pod["spec"]["containers"][0]["env"].as_array_mut().unwrap();
    env.push(json!({ "name": name, "value": value }));
}

/// What the webhook adds, written by hand, and with the audience of another mechanism.
fn with_other_audience(pod: &mut Value) {
    set(pod, URI, "http://169.254.170.23/v1/credentials");
    set(pod, TOKEN_FILE, "/var/run/secrets/own/token");
    let token = json!({ "audience": "sts.amazonaws.com", "path": "token" });
    let sources = json!([{ "serviceAccountToken": token }]);
    let volume = json!({ "name": "own", "projected": { "sources": sources } });
    let spec = &mut pod["spec"];
    spec["volumes"].as_array_mut().unwrap().push(volume);
    let mounts = json!([{ "name": "own", "mountPath": "/var/run/secrets/own" }]);
    spec["containers"][0]["volumeMounts"] = mounts;
}

fn only_for_namespace(desk: &Desk, role: &str, namespace: &str) {
    let tag = json!({ "aws:RequestTag/kubernetes-namespace": namespace });
    let condition = json!({ "StringEquals": tag });
    desk.iam.put(role, iam::trust(SERVICE, &ACTIONS, condition));
}

#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn each_planted_mistake_is_the_first_cause_and_has_its_remedy() {
    let cluster = Cluster::visit();
    let desk = Desk::new(&cluster, "mistakes");
    let all: Vec<_> = [of_associations(), of_the_pod(), of_roles()]
        .into_iter()
        .flatten()
        .collect();
    for it in &all {
        (it.before)(&desk, it.name);
    }
    for it in &all {
        let mut pod = desk.pod(it.name);
        (it.shape)(&mut pod);
        desk.make("pods", &pod);
    }
    let started = all.iter().filter(|it| it.cause != "node");
    desk.wait_ready(started.map(|it| it.name));
    for it in &all {
        (it.after)(&desk, it.name);
    }
    let wrong = ask_all(&desk, &all);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Asks for each pod, and returns what was not as it must be.
fn ask_all(desk: &Desk, all: &[Mistake]) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let ask = || {
        let mine = || all.get(next.fetch_add(1, Ordering::Relaxed));
        let asked = std::iter::from_fn(mine).filter_map(|it| wrong(desk, it));
        asked.collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let doctors: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(ask)).collect();
        let said = doctors.into_iter().flat_map(|it| it.join().unwrap());
        said.collect()
    })
}

fn wrong(desk: &Desk, mistake: &Mistake) -> Option<String> {
    let said = desk.doctor(mistake.name);
    let report = said.json();
    let first = &report["checks"][0];
    let remedy = first["remedy"].as_str().unwrap_or_default();
    let seen = first["seen"].as_str().unwrap_or_default();
    eprintln!("{}: {seen}\n    -> {remedy}", mistake.name);
    // A warning is no failure, so the exit code follows the first cause.
    let code = i32::from(first["status"] == "fail");
    let is_right = report["firstCause"] == mistake.cause
        && first["check"] == mistake.cause
        && remedy.contains(mistake.remedy)
        && said.code == Some(code);
    let name = mistake.name;
    (!is_right).then(|| format!("{name} ({:?}): {}", said.code, said.text))
}
