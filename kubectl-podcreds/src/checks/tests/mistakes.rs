//! Mistakes, one at a time.

use podcreds_types::sdk::{TOKEN_FILE, URI};
use serde_json::json;

use super::healthy::*;
use crate::snapshot::{Account, NodeKind, Snapshot};

/// A mistake, the check that is its first cause, and a piece of the remedy.
pub(super) type Mistake = (fn(&mut Snapshot), &'static str, &'static str);

const RESTART: &str = "kubectl -n shop rollout restart deployment/web";

pub(super) const OF_THE_POD: [Mistake; 16] = [
    (
        |it| drop(it.accounts.as_mut().unwrap().pop_first()),
        "account",
        "kubectl -n shop create serviceaccount reader",
    ),
    (
        |it| it.associations = Ok([].into()),
        "association",
        "aws eks create-pod-identity-association --cluster-name prod --region eu-central-1 \
         --namespace shop --service-account reader",
    ),
    // Of another service account, by a slip and by default.
    (
        |it| rename_association(it, "shop/raeder"),
        "association",
        "kubectl -n shop set serviceaccount deployment/web raeder",
    ),
    (
        |it| {
            pod(it).account = text("default");
            let default = "shop/default".parse().unwrap();
            let all = it.accounts.as_mut().unwrap();
            all.insert(default, Account::default());
        },
        "association",
        "kubectl -n shop set serviceaccount deployment/web reader",
    ),
    // In another namespace.
    (
        |it| rename_association(it, "pay/reader"),
        "association",
        "--namespace shop --service-account reader",
    ),
    // Older than its association, made too soon after it, and missed.
    (
        |it| {
            pod(it).created = THEN - 1;
            pod(it).containers[0].env.clear();
        },
        "injection",
        RESTART,
    ),
    (
        |it| {
            pod(it).created = THEN + 3;
            pod(it).containers[0].env.clear();
        },
        "injection",
        RESTART,
    ),
    (|it| pod(it).containers[0].env.clear(), "injection", RESTART),
    (
        |it| {
            pod(it).containers[0].env.clear();
            let skip = text("eks.amazonaws.com/skip-containers");
            pod(it).annotations.insert(skip, text("app"));
        },
        "injection",
        "kubectl -n shop edit deployment/web",
    ),
    (
        |it| set(it, URI, "http://localhost:8080/credentials"),
        "injection",
        "kubectl -n shop edit deployment/web",
    ),
    // The token.
    (
        |it| pod(it).tokens[0].audience = Some(text("sts.amazonaws.com")),
        "token",
        RESTART,
    ),
    (|it| pod(it).tokens.clear(), "token", RESTART),
    (
        |it| drop(pod(it).containers[0].env.remove(TOKEN_FILE)),
        "token",
        RESTART,
    ),
    // What wins over the agent.
    (
        |it| set(it, "AWS_ACCESS_KEY_ID", "x"),
        "settings",
        "kubectl -n shop set env deployment/web AWS_ACCESS_KEY_ID-",
    ),
    (
        |it| set(it, "AWS_PROFILE", "x"),
        "settings",
        "set env deployment/web AWS_PROFILE-",
    ),
    (
        |it| set(it, "AWS_WEB_IDENTITY_TOKEN_FILE", "x"),
        "settings",
        RESTART,
    ),
];

pub(super) const AROUND_IT: [Mistake; 20] = [
    (
        |it| set(it, "AWS_ROLE_ARN", "x"),
        "settings",
        "set env deployment/web AWS_ROLE_ARN-",
    ),
    (
        |it| {
            let all = it.accounts.as_mut().unwrap();
            let mut all = all.values_mut();
            all.next().unwrap().irsa_role = Some(text(ROLE));
        },
        "irsa",
        "kubectl -n shop annotate serviceaccount reader eks.amazonaws.com/role-arn-",
    ),
    (
        |it| set(it, "HTTP_PROXY", "x"),
        "proxy",
        "add 169.254.170.23,fd00:ec2::23,[fd00:ec2::23] to NO_PROXY: kubectl -n shop edit deployment/web",
    ),
    // The node and its agents.
    (
        |it| {
            it.agents = Ok(vec![
                agent_of("podcreds", false),
                agent_of("eks-pod-identity-agent", true),
            ]);
        },
        "agent",
        "kubectl -n kube-system logs ",
    ),
    (
        |it| node(it).kind = NodeKind::Fargate,
        "node",
        "Fargate profile",
    ),
    (
        |it| node(it).kind = NodeKind::Windows,
        "node",
        "IAM roles for service accounts",
    ),
    (
        |it| node(it).ready = false,
        "node",
        "kubectl describe node n1",
    ),
    (
        |it| it.agents = Ok(Vec::new()),
        "agent",
        "kubectl get daemonset -A",
    ),
    (
        |it| it.agents = Ok(vec![agent_of("podcreds", false)]),
        "agent",
        "kubectl -n kube-system logs podcreds",
    ),
    (
        |it| {
            let official = agent_of("eks-pod-identity-agent", true);
            it.agents.as_mut().unwrap().push(official);
        },
        "agent",
        "aws eks delete-addon",
    ),
    (
        |it| {
            it.agents = Ok(vec![agent_of("eks-pod-identity-agent", true)]);
            it.network_policies = Ok(vec![policy(false)]);
        },
        "network",
        "kubectl -n shop edit networkpolicy no-egress",
    ),
    // The role.
    (
        |it| details_of(it).role = text("arn:aws:iam::444455556666:role/x"),
        "role",
        "--target-role-arn",
    ),
    (
        |it| drop(it.roles.insert(text(ROLE), Ok(None))),
        "role",
        "aws eks update-pod-identity-association --cluster-name prod --region eu-central-1 \
         --association-id a-1",
    ),
    (
        |it| role_of(it, ROLE).trust["Statement"][0]["Action"] = json!("sts:AssumeRole"),
        "trust",
        "aws iam update-assume-role-policy --role-name reader",
    ),
    (
        |it| role_of(it, ROLE).trust["Statement"][0]["Action"] = json!("sts:TagSession"),
        "trust",
        "sts:AssumeRole",
    ),
    (
        |it| {
            let principal = json!({ "Service": "ec2.amazonaws.com" });
            role_of(it, ROLE).trust["Statement"][0]["Principal"] = principal;
        },
        "trust",
        "pods.eks.amazonaws.com",
    ),
    (
        |it| {
            let condition =
                json!({ "StringEquals": { "aws:RequestTag/kubernetes-namespace": "pay" } });
            role_of(it, ROLE).trust["Statement"][0]["Condition"] = condition;
        },
        "trust",
        "file://trust.json",
    ),
    (
        |it| {
            details_of(it).session_tags = false;
            let condition =
                json!({ "StringEquals": { "aws:RequestTag/kubernetes-namespace": "shop" } });
            role_of(it, ROLE).trust["Statement"][0]["Condition"] = condition;
        },
        "trust",
        "file://trust.json",
    ),
    (
        |it| {
            with_target(it);
            details_of(it).external_id = Some(text("another"));
        },
        "target-role",
        "--role-name data",
    ),
    // What only the agent sees.
    (
        |it| {
            let report = it.agent_report.as_mut().unwrap().as_mut().unwrap();
            report.role = Some(text("arn:aws:sts::111122223333:assumed-role/writer"));
        },
        "served-role",
        "kubectl podcreds refresh shop/reader",
    ),
];
