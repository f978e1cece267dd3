//! What is said of roles where their policies are judged as a whole.

use serde_json::{Value, json};

use super::{healthy::*, of_pod};
use crate::{
    finding::{Finding, Status},
    snapshot::Snapshot,
};

/// The finding of a check.
fn found(snapshot: &Snapshot, check: &str) -> Finding {
    let report = of_pod(snapshot);
    let mut all = report.checks.iter();
    all.find(|it| it.check == check).cloned().unwrap()
}

/// A cluster with a second role that trusts as EKS's guide has it.
fn with_guided_target(actions: Value) -> Snapshot {
    let mut snapshot = healthy();
    with_target(&mut snapshot);
    role_of(&mut snapshot, TARGET).trust = json!({ "Version": "2012-10-17", "Statement": [{
        "Effect": "Allow",
        "Principal": { "AWS": "arn:aws:iam::111122223333:root" },
        "Action": actions,
        "Condition": {
            "StringEquals": {
                "aws:RequestTag/kubernetes-namespace": "shop",
                "aws:RequestTag/kubernetes-service-account": "reader",
                "aws:PrincipalAccount": "111122223333",
            },
            "ArnEquals": { "aws:PrincipalARN": ROLE },
        },
    }]});
    snapshot
}

#[test]
fn a_target_role_that_trusts_the_first_role_by_its_arn_is_well() {
    let snapshot = with_guided_target(json!(["sts:AssumeRole", "sts:TagSession"]));
    let finding = found(&snapshot, "target-role");
    assert_eq!(finding.status, Status::Pass, "{finding:?}");
}

#[test]
fn a_target_role_that_trusts_another_role_by_its_arn_is_a_mistake() {
    let mut snapshot = with_guided_target(json!(["sts:AssumeRole", "sts:TagSession"]));
    let statement = &mut role_of(&mut snapshot, TARGET).trust["Statement"][0];
    statement["Condition"]["ArnEquals"]["aws:PrincipalARN"] = json!(TARGET);
    let finding = found(&snapshot, "target-role");
    assert_eq!(finding.status, Status::Fail, "{finding:?}");
    assert!(finding.seen.contains("aws:PrincipalARN"), "{finding:?}");
}

#[test]
fn an_action_that_a_target_role_lacks_is_named_before_what_cannot_be_judged() {
    let mut snapshot = with_guided_target(json!(["sts:AssumeRole"]));
    let statement = &mut role_of(&mut snapshot, TARGET).trust["Statement"][0];
    statement["Condition"]["StringEquals"]["aws:PrincipalOrgID"] = json!("o-1");
    let finding = found(&snapshot, "target-role");
    assert_eq!(finding.status, Status::Fail, "{finding:?}");
    assert!(finding.seen.contains("sts:TagSession on"), "{finding:?}");
}

#[test]
fn a_condition_that_is_not_met_is_named_before_one_that_cannot_be_judged() {
    let mut snapshot = healthy();
    let statement = |action: &str, key: &str| {
        json!({
            "Effect": "Allow",
            "Principal": { "Service": "pods.eks.amazonaws.com" },
            "Action": action,
            "Condition": { "StringEquals": { key: "pay" } },
        })
    };
    role_of(&mut snapshot, ROLE).trust = json!({ "Statement": [
        statement("sts:AssumeRole", "aws:PrincipalOrgID"),
        statement("sts:TagSession", "aws:RequestTag/kubernetes-namespace"),
    ]});
    let finding = found(&snapshot, "trust");
    assert_eq!(finding.status, Status::Fail, "{finding:?}");
    assert!(
        finding.seen.contains("allows sts:TagSession"),
        "{finding:?}"
    );
}

#[test]
fn a_trust_policy_that_cannot_be_read_is_not_to_be_replaced() {
    let mut snapshot = healthy();
    with_target(&mut snapshot);
    for (check, arn) in [("trust", ROLE), ("target-role", TARGET)] {
        role_of(&mut snapshot, arn).trust = Value::Null;
        let finding = found(&snapshot, check);
        assert_eq!(finding.status, Status::Warn, "{finding:?}");
        let remedy = finding.remedy.unwrap();
        assert!(remedy.contains("aws iam get-role"), "{remedy}");
        assert!(!remedy.contains("update-assume-role-policy"), "{remedy}");
    }
}
