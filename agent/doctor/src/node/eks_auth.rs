//! EKS Auth: region and credentials of the node, the way there, a signed call, and its clock.

use std::{
    env,
    time::{Duration, SystemTime},
};

use podcreds_types::{RefusalKind, Token};
use podcreds_upstream::{
    Config, ConnectPart, EksAuth, Metrics, Outbound, Probe, SetupError, Signer, SignerError,
    UpstreamError,
};
use prometheus::Registry;

use crate::report::Finding;

const REGION: &str = "region";
const SIGNER: &str = "credentials";
const WAY: &str = "eks-auth";
const CALL: &str = "signed-call";
const CLOCK: &str = "clock";

/// A token that nobody has signed: EKS Auth refuses it once it has accepted the call itself.
const MADE_UP: &str = "eyJhbGciOiJub25lIiwia2lkIjoiZG9jdG9yIn0.eyJhdWQiOlsiZG9jdG9yIl19.e30";
/// Beyond this, signatures are refused.
const SKEW_REFUSED: Duration = Duration::from_secs(5 * 60);
/// Beyond this, the node's clock is not kept.
const SKEW_ODD: Duration = Duration::from_secs(30);
/// Where the node's credentials come from must not be the agent itself.
const FROM_AN_AGENT: [&str; 2] = ["EcsContainer", "HTTP"];

/// The client of EKS Auth, as the agent makes it.
///
/// # Errors
///
/// What it lacks.
pub(crate) async fn connect(config: Config) -> Result<EksAuth, SetupError> {
    let outbound = Outbound::from_environment().await?;
    let metrics = Metrics::register(&Registry::new());
    // A new registry has no other metric of these names.
    let metrics = metrics.map_err(|_| SetupError::NoRegion)?;
    EksAuth::new(config, &outbound, metrics).await
}

pub(super) async fn check(config: Config) -> Vec<Finding> {
    let eks_auth = match connect(config.clone()).await {
        Ok(eks_auth) => eks_auth,
        Err(error) => return vec![judge_setup(&error)],
    };
    let region = Finding::pass(REGION, eks_auth.region().unwrap_or_default());
    let signer = eks_auth.signer().await;
    let can_call = signer.is_ok();
    let mut findings = vec![region, judge_signer(signer, SystemTime::now())];
    if !can_call {
        return findings;
    }
    let probe = eks_auth.probe(Token::new(MADE_UP)).await;
    findings.push(judge_way(&probe, proxy().as_deref()));
    if probe.answered {
        findings.push(judge_call(&probe.outcome.map(drop), &config.cluster_name));
        findings.extend(probe.date.map(|date| judge_clock(SystemTime::now(), date)));
    }
    findings
}

/// The variable that names a proxy for HTTPS, if one does.
fn proxy() -> Option<String> {
    let names = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let is_set = |name: &&str| env::var_os(name).is_some_and(|value| !value.is_empty());
    names.into_iter().find(is_set).map(str::to_owned)
}

fn judge_setup(error: &SetupError) -> Finding {
    match error {
        SetupError::NoRegion => Finding::fail(
            REGION,
            "neither the environment nor a profile nor the instance's metadata names a region",
            "set AWS_REGION for the agent (the chart's env), or let it reach the instance's metadata",
        ),
        SetupError::Region(region) => Finding::fail(
            REGION,
            format!("{region:?} is no region: a region's name has letters, digits and hyphens"),
            "correct AWS_REGION of the agent (the chart's env) or the region of its profile, to a \
             name such as eu-central-1 without spaces around it",
        ),
        error => Finding::fail(
            WAY,
            error.to_string(),
            "correct the variable or the file that is named, for the agent too",
        ),
    }
}

fn judge_signer(signer: Result<Signer, SignerError>, now: SystemTime) -> Finding {
    let signer = match signer {
        Ok(signer) => signer,
        Err(why) => {
            return Finding::fail(
                SIGNER,
                format!("the node has no AWS credentials: {why}"),
                "give the node's instance a role with AmazonEKSWorkerNodePolicy, and let the agent \
                 reach the instance's metadata; on a hybrid node see --rotate-credentials",
            );
        }
    };
    let left = signer.expires_at.map(|end| end.duration_since(now));
    let until = match left {
        None => "without an end".to_owned(),
        Some(Ok(left)) => format!("good for {} more minutes", left.as_secs() / 60),
        Some(Err(_)) => {
            return Finding::fail(
                SIGNER,
                format!(
                    "the node's credentials (from {}) have expired",
                    signer.source
                ),
                "have whatever writes them write new ones; see also the check clock",
            );
        }
    };
    let said = format!("from {}, {until}", signer.source);
    if FROM_AN_AGENT.iter().any(|it| signer.source.starts_with(it)) {
        return Finding::warn(
            SIGNER,
            format!("{said}: the agent would sign with a pod's role"),
            "take AWS_CONTAINER_CREDENTIALS_FULL_URI out of the agent's environment: its service \
             account must have no association",
        );
    }
    Finding::pass(SIGNER, said)
}

fn judge_way(probe: &Probe, proxy: Option<&str>) -> Finding {
    let endpoint = probe.endpoint.as_deref().unwrap_or("EKS Auth");
    let by = proxy
        .map(|name| format!(" through the proxy of {name}"))
        .unwrap_or_default();
    if probe.answered {
        return Finding::pass(WAY, format!("{endpoint} is reached{by}"));
    }
    let why = probe.outcome.as_ref().err().map(ToString::to_string);
    let seen = format!("{endpoint}{by}: {}", why.unwrap_or_default());
    Finding::fail(
        WAY,
        seen,
        match probe.failed_part {
            Some(ConnectPart::LookUp) => {
                "see the node's DNS (/etc/resolv.conf), the region's name, and --endpoint; in a VPC \
                 without internet, make an interface endpoint for eks-auth"
            }
            Some(ConnectPart::Tcp) => {
                "open the way: security groups, routes, and network policies on the host, TCP 443; \
                 in a VPC without internet, make an interface endpoint for eks-auth, or set \
                 HTTPS_PROXY"
            }
            Some(ConnectPart::Proxy) => {
                "have the proxy allow CONNECT to that host, or name the host in NO_PROXY"
            }
            Some(ConnectPart::Tls) => {
                "if a proxy opens TLS, name its authority with AWS_CA_BUNDLE; else see whether \
                 the name is right (--endpoint), and the node's clock"
            }
            None if probe.endpoint.is_none() => {
                "no call was made: correct what it names, such as --endpoint or \
                 AWS_ENDPOINT_URL_EKS_AUTH"
            }
            None => {
                "see what takes the connection in place of EKS Auth, such as a proxy or an interface \
                 endpoint; if nothing does, see AWS's health dashboard"
            }
        },
    )
}

fn judge_call(outcome: &Result<(), UpstreamError>, cluster: &str) -> Finding {
    let error = match outcome {
        Ok(()) => {
            return Finding::warn(
                CALL,
                "a made-up token was given credentials: this is not EKS Auth",
                "see --endpoint, and AWS_ENDPOINT_URL_EKS_AUTH",
            );
        }
        Err(error) => error,
    };
    match error {
        UpstreamError::Refused(refusal) if refusal.kind == RefusalKind::NotFound => Finding::fail(
            CALL,
            format!("EKS Auth does not know the cluster {cluster}: {refusal}"),
            "correct --cluster-name, and see whether the region is the cluster's",
        ),
        UpstreamError::Refused(_) | UpstreamError::Rejected { .. } => Finding::pass(
            CALL,
            "EKS Auth accepts the node's signature (and refuses a made-up token)",
        ),
        UpstreamError::Throttled { .. } => Finding::warn(
            CALL,
            error.to_string(),
            "see PodcredsThrottled in the runbook",
        ),
        UpstreamError::Unavailable { reason, .. } => Finding::fail(
            CALL,
            error.to_string(),
            match reason.contains("this node's own credentials") {
                true => {
                    "allow the node's role eks-auth:AssumeRoleForPodIdentity \
                     (AmazonEKSWorkerNodePolicy does), and see the checks credentials and clock"
                }
                false => "see AWS's health dashboard; pods keep what they have until it expires",
            },
        ),
    }
}

fn judge_clock(now: SystemTime, date: SystemTime) -> Finding {
    let (skew, side) = match now.duration_since(date) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    let said = format!("the node's clock is {} s {side} EKS Auth's", skew.as_secs());
    const REMEDY: &str = "set the node's clock, and keep it (chrony, 169.254.169.123 on EC2)";
    match skew {
        skew if skew >= SKEW_REFUSED => {
            Finding::fail(CLOCK, format!("{said}: signatures are refused"), REMEDY)
        }
        skew if skew >= SKEW_ODD => Finding::warn(CLOCK, said, REMEDY),
        skew if skew.as_secs() < 2 => Finding::pass(CLOCK, "the node's clock is EKS Auth's"),
        _ => Finding::pass(CLOCK, said),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use podcreds_types::EksRefusal;

    use super::*;
    use crate::report::Status;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_clock_that_is_off_by_minutes_fails() {
        let now = UNIX_EPOCH + 1_000_000 * SECOND;
        for (skew, status) in [(1, Status::Pass), (40, Status::Warn), (301, Status::Fail)] {
            assert_eq!(
                judge_clock(now, now - skew * SECOND).status,
                status,
                "{skew}"
            );
            assert_eq!(
                judge_clock(now, now + skew * SECOND).status,
                status,
                "{skew}"
            );
        }
    }

    #[test]
    fn a_refusal_of_the_token_shows_that_the_call_was_accepted() {
        let refused = |kind| {
            let refusal = EksRefusal {
                kind,
                code: "X".to_owned(),
                message: "y".to_owned(),
            };
            judge_call(&Err(UpstreamError::Refused(refusal)), "test").status
        };
        assert_eq!(refused(RefusalKind::BadToken), Status::Pass);
        assert_eq!(refused(RefusalKind::NotFound), Status::Fail);
        let own = UpstreamError::unavailable("it refuses this node's own credentials: no");
        let own = judge_call(&Err(own), "test");
        assert!(
            own.remedy
                .unwrap()
                .contains("eks-auth:AssumeRoleForPodIdentity")
        );
        assert_eq!(judge_call(&Ok(()), "test").status, Status::Warn);
    }

    #[test]
    fn what_is_no_region_fails_and_says_what_to_do() {
        for error in [
            SetupError::NoRegion,
            SetupError::Region("eu-central-1 ".to_owned()),
        ] {
            let found = judge_setup(&error);
            assert_eq!((found.check, found.status), (REGION, Status::Fail));
            assert!(found.remedy.unwrap().contains("AWS_REGION"), "{error}");
        }
        let spaced = judge_setup(&SetupError::Region("eu-central-1 ".to_owned())).seen;
        assert!(spaced.starts_with("\"eu-central-1 \""), "{spaced}");
    }

    #[test]
    fn eks_auth_is_reached_once_it_has_answered() {
        let probe = |endpoint: Option<&str>, answered| Probe {
            endpoint: endpoint.map(str::to_owned),
            answered,
            date: Some(UNIX_EPOCH),
            failed_part: None,
            outcome: Err(UpstreamError::unavailable("because")),
        };
        let there = Some("https://eks-auth");
        assert_eq!(judge_way(&probe(there, true), None).status, Status::Pass);
        for (silent, word) in [
            (probe(None, false), "--endpoint"),
            (probe(there, false), "in place of EKS Auth"),
        ] {
            let found = judge_way(&silent, None);
            assert_eq!(found.status, Status::Fail);
            assert!(found.seen.ends_with("because"), "{}", found.seen);
            assert!(found.remedy.as_deref().unwrap().contains(word), "{found:?}");
        }
    }

    #[test]
    fn each_part_of_the_way_has_its_remedy() {
        let failed = |part| {
            let probe = Probe {
                endpoint: Some("https://eks-auth".to_owned()),
                answered: false,
                date: None,
                failed_part: Some(part),
                outcome: Err(UpstreamError::unavailable("because")),
            };
            judge_way(&probe, None)
        };
        for (part, word) in [
            (ConnectPart::LookUp, "DNS"),
            (ConnectPart::Tcp, "TCP 443"),
            (ConnectPart::Proxy, "CONNECT"),
            (ConnectPart::Tls, "AWS_CA_BUNDLE"),
        ] {
            let found = failed(part);
            assert_eq!(found.status, Status::Fail);
            assert!(found.remedy.as_deref().unwrap().contains(word), "{found:?}");
        }
    }

    #[test]
    fn the_agent_must_not_sign_with_a_pods_role() {
        let signer = |source: &str, end: Option<u64>| {
            let signer = Signer {
                source: source.to_owned(),
                expires_at: end.map(|end| UNIX_EPOCH + Duration::from_secs(end)),
            };
            judge_signer(Ok(signer), UNIX_EPOCH + 100 * SECOND).status
        };
        assert_eq!(signer("IMDSv2", Some(4000)), Status::Pass);
        assert_eq!(signer("EnvironmentVariable", None), Status::Pass);
        assert_eq!(signer("EcsContainer", Some(4000)), Status::Warn);
        assert_eq!(signer("IMDSv2", Some(99)), Status::Fail);
    }
}
