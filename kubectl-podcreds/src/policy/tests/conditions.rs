//! Conditions: which are met, which are not, and of which nobody can say.

use serde_json::{Value, json};

use super::*;

#[test]
fn where_there_are_no_tags_only_conditions_without_them_are_met() {
    let judged = |condition: Value| {
        let policy = policy(json!([ASSUME, TAG]), condition);
        judge(&policy, Principal::Pods, ASSUME, &Keys::default())
    };
    for condition in [
        json!({ "Null": { "aws:TagKeys": "true" } }),
        json!({ "ForAllValues:StringEquals": { "aws:TagKeys": "a" } }),
        json!({ "StringNotEquals": { "aws:TagKeys": "a" } }),
    ] {
        assert_eq!(judged(condition.clone()), Verdict::Allowed, "{condition}");
    }
    for condition in [
        json!({ "Null": { "aws:TagKeys": "false" } }),
        json!({ "ForAnyValue:StringEquals": { "aws:TagKeys": "a" } }),
        json!({ "ForAnyValue:StringNotEquals": { "aws:TagKeys": "a" } }),
    ] {
        let verdict = judged(condition.clone());
        assert!(matches!(verdict, Verdict::Unmet(_)), "{condition}");
    }
}

#[test]
fn conditions_on_tags_that_the_pod_has_are_met() {
    for condition in [
        json!({ "StringEquals": { "aws:RequestTag/kubernetes-namespace": ["pay", "shop"] } }),
        json!({ "StringLike": { "aws:requesttag/kubernetes-service-account": "read*" } }),
        json!({ "StringNotEquals": { "aws:RequestTag/kubernetes-namespace": "pay" } }),
        json!({ "ForAllValues:StringEquals": { "aws:TagKeys": tags() },
                "Null": { "aws:TagKeys": "false" } }),
        json!({ "ForAllValues:StringLike": { "aws:TagKeys": ["eks-*", "kubernetes-*"] } }),
        json!({ "ForAnyValue:StringNotEquals": { "aws:TagKeys": "kubernetes-namespace" } }),
        json!({ "ForAllValues:StringNotEquals": { "aws:TagKeys": ["team", "*"] } }),
        json!({ "Null": { "aws:TagKeys": false } }),
        json!({ "ForAnyValue:StringNotEqualsIfExists": { "aws:RequestTag/team": "a" } }),
        json!({ "Null": { "aws:RequestTag/kubernetes-pod-uid": "false" } }),
        json!({ "StringEqualsIfExists": { "aws:RequestTag/team": "a" } }),
        json!({ "StringEquals": { "aws:SourceAccount": "111122223333" },
                "ArnLike": { "aws:SourceArn": "arn:aws:eks:*:111122223333:cluster/*" } }),
    ] {
        assert_eq!(
            with_condition(condition.clone()),
            Verdict::Allowed,
            "{condition}"
        );
    }
}

#[test]
fn conditions_that_the_pod_does_not_meet_are_named() {
    for condition in [
        json!({ "StringEquals": { "aws:RequestTag/kubernetes-namespace": "pay" } }),
        json!({ "StringEquals": { "aws:RequestTag/team": "a" } }),
        json!({ "StringNotLike": { "aws:RequestTag/eks-cluster-name": "pro?" } }),
        json!({ "ForAllValues:StringEquals": { "aws:TagKeys": ["kubernetes-namespace"] } }),
        json!({ "ForAllValues:StringEquals": { "aws:TagKeys": "*" } }),
        json!({ "ForAnyValue:StringNotEquals": { "aws:TagKeys": tags() } }),
        json!({ "ForAnyValue:StringNotEquals": { "aws:RequestTag/team": "a" } }),
        json!({ "Null": { "aws:TagKeys": "true" } }),
        json!({ "Null": { "aws:RequestTag/kubernetes-namespace": "true" } }),
        json!({ "StringEquals": { "aws:SourceAccount": "444455556666" } }),
        json!({ "ArnEquals": { "aws:SourceArn": "arn:*:cluster/prod:::" } }),
        json!({ "ArnLike": { "aws:SourceArn": "arn:aws:eks:eu-central-1:*/*:prod" } }),
        json!({ "ArnNotLike": { "aws:SourceArn": "arn:aws:eks:*:*:cluster/*" } }),
    ] {
        let Verdict::Unmet(why) = with_condition(condition.clone()) else {
            panic!("{condition}");
        };
        assert!(why.to_lowercase().contains("aws:"), "{why}");
    }
}

#[test]
fn what_nobody_knows_here_is_unsure_and_never_allowed() {
    for condition in [
        json!({ "StringEquals": { "aws:PrincipalOrgID": "o-1" } }),
        json!({ "StringEquals": { "aws:RequestTag/kubernetes-pod-uid": "x" } }),
        json!({ "StringEquals": {
            "aws:RequestTag/kubernetes-namespace": "${aws:PrincipalTag/x}",
        } }),
        json!({ "IpAddress": { "aws:SourceIp": "10.0.0.0/8" } }),
        json!({ "ForAnyValue:NumericEquals": { "aws:TagKeys": "1" } }),
        json!({ "StringEquals": { "aws:TagKeys": tags() } }),
        json!({ "ArnLike": { "aws:SourceArn": "arn:aws:eks:*" } }),
    ] {
        assert!(
            matches!(with_condition(condition.clone()), Verdict::Unsure(_)),
            "{condition}"
        );
    }
}

/// Patterns of an ARN: one that fits, one that does not, and one of which nobody can say.
const FITS: &str = "arn:aws:eks:*:111122223333:cluster/*";
const OTHER: &str = "arn:aws:eks:*:444455556666:cluster/*";
const SHORT: &str = "arn:aws:eks:*";

#[derive(Debug, PartialEq)]
enum Is {
    Met,
    Unmet,
    Unsure,
}

fn is(condition: &Value) -> Is {
    match with_condition(condition.clone()) {
        Verdict::Allowed => Is::Met,
        Verdict::Unmet(_) => Is::Unmet,
        Verdict::Unsure(_) => Is::Unsure,
        other => panic!("{condition}: {other:?}"),
    }
}

#[test]
fn of_several_values_one_that_surely_matches_is_enough() {
    for (wanted, like, not_like) in [
        (json!([FITS]), Is::Met, Is::Unmet),
        (json!([OTHER]), Is::Unmet, Is::Met),
        (json!([SHORT]), Is::Unsure, Is::Unsure),
        (json!([OTHER, FITS]), Is::Met, Is::Unmet),
        (json!([SHORT, FITS]), Is::Met, Is::Unmet),
        (json!([FITS, SHORT]), Is::Met, Is::Unmet),
        (json!([SHORT, OTHER]), Is::Unsure, Is::Unsure),
        (json!(["${aws:SourceArn}", FITS]), Is::Met, Is::Unmet),
        (json!([OTHER, "${aws:SourceArn}"]), Is::Unsure, Is::Unsure),
    ] {
        let key = json!({ "aws:SourceArn": wanted });
        for operator in [
            "ArnLike",
            "ArnEquals",
            "ArnLikeIfExists",
            "ForAnyValue:ArnLike",
        ] {
            assert_eq!(is(&json!({ operator: key })), like, "{operator} {wanted}");
        }
        for operator in ["ArnNotLike", "ArnNotEquals", "ForAllValues:ArnNotEquals"] {
            assert_eq!(
                is(&json!({ operator: key })),
                not_like,
                "{operator} {wanted}"
            );
        }
    }
}

#[test]
fn a_variable_of_the_policy_is_unsure_only_where_the_outcome_depends_on_it() {
    const TAG: &str = "aws:RequestTag/kubernetes-namespace";
    let variable = "${aws:PrincipalTag/x}";
    for (operator, wanted, expected) in [
        ("StringEquals", json!([variable, "shop"]), Is::Met),
        ("StringEquals", json!([variable, "pay"]), Is::Unsure),
        ("StringNotEquals", json!([variable, "shop"]), Is::Unmet),
        ("StringNotEquals", json!([variable, "pay"]), Is::Unsure),
        ("StringLike", json!(["${x}", "sh*"]), Is::Met),
        ("StringNotLikeIfExists", json!(["${x}", "sh*"]), Is::Unmet),
        ("StringEqualsIgnoreCase", json!(["${x}", "SHOP"]), Is::Met),
        (
            "StringNotEqualsIgnoreCase",
            json!(["${x}", "SHOP"]),
            Is::Unmet,
        ),
    ] {
        let condition = json!({ operator: { TAG: wanted } });
        assert_eq!(is(&condition), expected, "{condition}");
    }
}

#[test]
fn of_a_list_of_tags_one_may_decide_what_the_others_leave_open() {
    let variable = "${aws:PrincipalTag/x}";
    for (operator, wanted, expected) in [
        (
            "ForAnyValue:StringEquals",
            json!([variable, "eks-cluster-arn"]),
            Is::Met,
        ),
        (
            "ForAnyValue:StringEquals",
            json!([variable, "team"]),
            Is::Unsure,
        ),
        ("ForAnyValue:StringNotEquals", json!([variable]), Is::Unsure),
        ("ForAllValues:StringLike", json!([variable, "*"]), Is::Met),
        (
            "ForAllValues:StringLike",
            json!([variable, "eks-*"]),
            Is::Unsure,
        ),
        (
            "ForAllValues:StringNotLike",
            json!([variable, "eks-*"]),
            Is::Unmet,
        ),
        (
            "ForAllValues:StringNotEquals",
            json!([variable, "team"]),
            Is::Unsure,
        ),
    ] {
        let condition = json!({ operator: { "aws:TagKeys": wanted } });
        assert_eq!(is(&condition), expected, "{condition}");
    }
}

#[test]
fn what_is_not_known_counts_only_where_the_outcome_depends_on_it() {
    const UID: &str = "aws:RequestTag/kubernetes-pod-uid";
    const ORG: &str = "aws:PrincipalOrgID";
    const TEAM: &str = "aws:RequestTag/team";
    for (operator, key, wanted, expected) in [
        // The pod has a UID, whatever it is.
        ("StringLike", UID, json!(["x", "*"]), Is::Met),
        ("StringNotLike", UID, json!("*"), Is::Unmet),
        ("StringLike", UID, json!("?*"), Is::Unsure),
        ("StringLike", UID, json!(""), Is::Unsure),
        ("StringEquals", UID, json!("*"), Is::Unsure),
        ("StringNotEquals", UID, json!("x"), Is::Unsure),
        ("Null", UID, json!(["false", "true"]), Is::Met),
        // Nobody knows whether there is an organisation.
        ("StringLike", ORG, json!("*"), Is::Unsure),
        ("StringNotLike", ORG, json!("*"), Is::Unsure),
        ("StringLikeIfExists", ORG, json!("*"), Is::Met),
        ("ForAllValues:StringLike", ORG, json!("*"), Is::Met),
        ("StringEqualsIfExists", ORG, json!("o-1"), Is::Unsure),
        ("Null", ORG, json!("true"), Is::Unsure),
        ("Null", ORG, json!(["true", false]), Is::Met),
        // EKS sets no such tag, so nothing has to be compared.
        ("NumericEquals", TEAM, json!(1), Is::Unmet),
        ("NumericLessThanIfExists", TEAM, json!(1), Is::Met),
        ("NumericNotEquals", TEAM, json!(1), Is::Met),
        ("ArnLike", TEAM, json!("arn:aws:*"), Is::Unmet),
        ("ArnNotLike", TEAM, json!("arn:aws:*"), Is::Met),
        ("StringEquals", TEAM, json!("${x}"), Is::Unmet),
        ("StringNotEquals", TEAM, json!("${x}"), Is::Met),
        ("Null", TEAM, json!([true, "false"]), Is::Met),
        ("Null", TEAM, json!("yes"), Is::Unsure),
        ("NoSuchOperator", TEAM, json!("a"), Is::Unsure),
    ] {
        let condition = json!({ operator: { key: wanted } });
        assert_eq!(is(&condition), expected, "{condition}");
    }
}

#[test]
fn numbers_need_no_quotes() {
    let account = json!({ "StringEquals": { "aws:SourceAccount": 111_122_223_333_u64 } });
    assert_eq!(is(&account), Is::Met);
}

#[test]
fn one_condition_that_is_not_met_outweighs_those_of_which_nobody_can_say() {
    for condition in [
        json!({ "ArnLike": { "aws:SourceArn": SHORT },
                "StringEquals": { "aws:SourceAccount": "444455556666" } }),
        json!({ "StringEquals": { "aws:PrincipalOrgID": "o-1", "aws:SourceAccount": "x" } }),
    ] {
        assert_eq!(is(&condition), Is::Unmet, "{condition}");
    }
}
