//! What EKS Auth says to a pod's token.

use std::time::SystemTime;

use podcreds_types::{Credentials, EksRefusal, RefusalKind, Token};
use podcreds_upstream::{Config, UpstreamError};

use crate::{node::connect_to_eks_auth, report::Finding};

const NAME: &str = "eks-auth";

pub(super) async fn check(config: Config, token: Token) -> Vec<Finding> {
    let outcome = match connect_to_eks_auth(config).await {
        Ok(eks_auth) => eks_auth.probe(token).await.outcome,
        Err(error) => Err(UpstreamError::unavailable(error.to_string())),
    };
    vec![judge(outcome, SystemTime::now())]
}

fn judge(outcome: Result<Credentials, UpstreamError>, now: SystemTime) -> Finding {
    let error = match outcome {
        Ok(credentials) => {
            let left = credentials
                .expiration
                .duration_since(now)
                .unwrap_or_default();
            let account = credentials.account_id;
            return Finding::pass(
                NAME,
                format!(
                    "gives credentials of account {account}, good for {} minutes",
                    left.as_secs() / 60
                ),
            );
        }
        Err(error) => error,
    };
    let said = error.to_string();
    let remedy = match &error {
        UpstreamError::Refused(EksRefusal { kind, .. }) => match kind {
            RefusalKind::NotFound => {
                "make an association for the pod's namespace and service account: aws eks \
                 create-pod-identity-association; and see --cluster-name"
            }
            RefusalKind::BadToken => {
                "see the check token; a token of another cluster is refused as well \
                 (--cluster-name)"
            }
            RefusalKind::Denied => {
                "let the role trust pods.eks.amazonaws.com for sts:AssumeRole and sts:TagSession, \
                 and see the association's target role and policy"
            }
        },
        UpstreamError::Rejected { .. } => "see the check token",
        UpstreamError::Throttled { .. } => "see PodcredsThrottled in the runbook",
        UpstreamError::Unavailable { .. } => "run `podcreds doctor`: it is the node's trouble",
    };
    Finding::fail(NAME, said, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Status;

    #[test]
    fn each_refusal_has_its_remedy() {
        for (kind, word) in [
            (RefusalKind::NotFound, "create-pod-identity-association"),
            (RefusalKind::BadToken, "check token"),
            (RefusalKind::Denied, "sts:TagSession"),
        ] {
            let refusal = EksRefusal {
                kind,
                code: "Code".to_owned(),
                message: "words".to_owned(),
            };
            let found = judge(Err(UpstreamError::Refused(refusal)), SystemTime::now());
            assert_eq!((found.status, &*found.seen), (Status::Fail, "Code: words"));
            assert!(found.remedy.as_deref().unwrap().contains(word), "{found:?}");
        }
    }
}
