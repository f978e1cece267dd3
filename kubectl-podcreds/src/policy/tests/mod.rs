mod conditions;

use podcreds_types::ServiceAccount;
use serde_json::{Value, json};

use super::*;
use crate::snapshot::{Cluster, Pod};

fn keys() -> Keys {
    let cluster = Cluster {
        name: "prod".to_owned(),
        arn: Some("arn:aws:eks:eu-central-1:111122223333:cluster/prod".to_owned()),
        region: None,
        missing: None,
    };
    let pod = Pod {
        name: "web-1".to_owned(),
        ..Pod::default()
    };
    let account: ServiceAccount = "shop/reader".parse().unwrap();
    pod_keys(&cluster, Some(&pod), &account, true)
}

/// The names of EKS's session tags.
fn tags() -> Value {
    json!([
        "eks-cluster-arn",
        "eks-cluster-name",
        "kubernetes-namespace",
        "kubernetes-service-account",
        "kubernetes-pod-name",
        "kubernetes-pod-uid",
    ])
}

fn policy(actions: Value, condition: Value) -> Value {
    json!({ "Version": "2012-10-17", "Statement": [{
        "Effect": "Allow",
        "Principal": { "Service": SERVICE },
        "Action": actions,
        "Condition": condition,
    }]})
}

fn verdict(policy: &Value) -> Verdict {
    judge(policy, Principal::Pods, TAG, &keys())
}

fn with_condition(condition: Value) -> Verdict {
    verdict(&policy(json!([ASSUME, TAG]), condition))
}

#[test]
fn eks_own_trust_policy_allows_both_actions() {
    let policy = policy(json!([ASSUME, TAG]), Value::Null);
    for action in [ASSUME, TAG] {
        let verdict = judge(&policy, Principal::Pods, action, &keys());
        assert_eq!(verdict, Verdict::Allowed, "{action}");
    }
}

#[test]
fn an_action_or_a_principal_that_is_missing_is_not_allowed() {
    assert_eq!(
        verdict(&policy(json!(ASSUME), Value::Null)),
        Verdict::NotAllowed
    );
    let mut other = policy(json!([ASSUME, TAG]), Value::Null);
    other["Statement"][0]["Principal"]["Service"] = json!("ec2.amazonaws.com");
    assert_eq!(verdict(&other), Verdict::NotAllowed);
    assert_eq!(verdict(&json!({})), Verdict::NotAllowed);
    assert_eq!(verdict(&json!("nonsense")), Verdict::NotAllowed);
}

#[test]
fn actions_and_principals_are_named_in_each_way_that_iam_knows() {
    for actions in [json!("sts:*"), json!("STS:TagSession"), json!(["a", "*"])] {
        assert_eq!(
            verdict(&policy(actions.clone(), Value::Null)),
            Verdict::Allowed,
            "{actions}"
        );
    }
    let mut all = policy(json!("sts:*"), Value::Null);
    all["Statement"][0]["Principal"] = json!("*");
    assert_eq!(verdict(&all), Verdict::Allowed);
    let one = json!({ "Statement": {
        "Effect": "Allow", "Principal": { "Service": ["x", SERVICE] }, "NotAction": "sts:AssumeRole",
    }});
    assert_eq!(verdict(&one), Verdict::Allowed);
}

#[test]
fn a_denial_wins() {
    let mut policy = policy(json!("sts:*"), Value::Null);
    let denial = json!({ "Effect": "Deny", "Principal": "*", "Action": TAG });
    let statements = policy["Statement"].as_array_mut().unwrap();
    statements.push(denial);
    assert_eq!(verdict(&policy), Verdict::Denied);
    policy["Statement"][1]["Condition"] =
        json!({ "StringNotEquals": { "aws:RequestTag/kubernetes-namespace": "shop" } });
    assert_eq!(verdict(&policy), Verdict::Allowed);
}

/// A permission of both actions, and these statements after it.
fn with_denials(denials: &[Value]) -> Value {
    let mut policy = policy(json!("sts:*"), Value::Null);
    let statements = policy["Statement"].as_array_mut().unwrap();
    statements.extend_from_slice(denials);
    policy
}

fn denial(condition: Value) -> Value {
    json!({ "Effect": "Deny", "Principal": "*", "Action": "sts:*", "Condition": condition })
}

#[test]
fn a_denial_that_may_apply_hides_neither_a_sure_one_nor_a_lacking_permission() {
    let unsure = denial(json!({ "StringNotEquals": { "aws:PrincipalOrgID": "o-1" } }));
    let one = with_denials(std::slice::from_ref(&unsure));
    assert!(matches!(verdict(&one), Verdict::Unsure(_)));
    let both = with_denials(&[unsure.clone(), denial(Value::Null)]);
    assert_eq!(verdict(&both), Verdict::Denied);
    let mut lacking = with_denials(std::slice::from_ref(&unsure));
    lacking["Statement"][0]["Principal"]["Service"] = json!("ec2.amazonaws.com");
    assert_eq!(verdict(&lacking), Verdict::NotAllowed);
    let mut unmet = with_denials(&[unsure]);
    unmet["Statement"][0]["Condition"] = json!({ "StringEquals": { "aws:RequestTag/team": "a" } });
    assert!(matches!(verdict(&unmet), Verdict::Unmet(_)));
}

#[test]
fn a_denial_to_every_principal_of_aws_is_one_to_pods_too() {
    let mut all = denial(Value::Null);
    all["Principal"] = json!({ "AWS": "*" });
    assert_eq!(verdict(&with_denials(&[all])), Verdict::Denied);
    let mut allowed = policy(json!("sts:*"), Value::Null);
    allowed["Statement"][0]["Principal"] = json!({ "AWS": "*" });
    assert_eq!(verdict(&allowed), Verdict::NotAllowed);
}

#[test]
fn a_denial_of_tags_that_eks_does_not_set_leaves_pods_alone() {
    let others = json!({ "ForAnyValue:StringNotEquals": { "aws:TagKeys": tags() } });
    assert_eq!(verdict(&with_denials(&[denial(others)])), Verdict::Allowed);
    let some = json!({ "ForAnyValue:StringNotEquals": { "aws:TagKeys": "eks-cluster-arn" } });
    assert_eq!(verdict(&with_denials(&[denial(some)])), Verdict::Denied);
}

#[test]
fn a_role_is_trusted_by_its_arn_or_its_account() {
    let role = "arn:aws:iam::111122223333:role/app";
    let external = Keys {
        known: [("sts:externalid".to_owned(), "region/1/c/n/s".to_owned())].into(),
        ..Keys::default()
    };
    for trusted in [role, "111122223333", "arn:aws:iam::111122223333:root", "*"] {
        let policy = json!({ "Statement": [{
            "Effect": "Allow", "Principal": { "AWS": trusted }, "Action": ASSUME,
            "Condition": { "StringEquals": { "sts:ExternalId": "region/1/c/n/s" } },
        }]});
        let judged = |keys| judge(&policy, Principal::Role(role), ASSUME, keys);
        assert_eq!(judged(&external), Verdict::Allowed, "{trusted}");
        assert!(matches!(judged(&Keys::default()), Verdict::Unmet(_)));
    }
}

#[test]
fn what_is_added_to_a_policy_keeps_its_conditions_and_all_else() {
    let condition = json!({ "StringEquals": { "aws:RequestTag/kubernetes-namespace": "shop" } });
    let mut before = policy(json!(ASSUME), condition.clone());
    before["Id"] = json!("ours");
    let after = extended(&before, &[TAG]);
    assert_eq!(
        (&after["Id"], &after["Version"]),
        (&before["Id"], &before["Version"])
    );
    assert_eq!(after["Statement"][0], before["Statement"][0]);
    assert_eq!(after["Statement"][1]["Condition"], condition);
    assert_eq!(verdict(&after), Verdict::Allowed);
    let alone = extended(&json!({}), &[ASSUME, TAG]);
    assert_eq!(verdict(&alone), Verdict::Allowed);
}

#[test]
fn patterns_match_as_iam_has_them() {
    for (pattern, text, fits) in [
        ("*", "", true),
        ("a*c", "abbc", true),
        ("a*c", "abbd", false),
        ("a?c", "abc", true),
        ("a?c", "ac", false),
        ("*b*d", "abcbd", true),
        ("", "a", false),
    ] {
        assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
    }
}
