//! What is looked at in a pod.
//!
//! What a pod shows of itself (its environment, its files) is under its control. It is opened so
//! that it cannot make the doctor wait or read elsewhere, is limited in size, and decides about
//! nothing but what is reported. Only its own token for EKS is ever sent anywhere.

mod eks_auth;
mod environment;
mod find;
mod look;
mod name;
mod process;
mod proxy;
mod request;
mod token;

use self::look::{Look, TokenRead};
use crate::{
    Config, Report,
    checks::{self, Check},
};

pub use name::PodName;

/// Where kubelet mounts the token, unless the pod says otherwise.
const TOKEN_FILE: &str =
    "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token";

/// What keeps a look at a pod's files or memory from its end, most likely.
const HUNG: &str = "see whether the pod has a mount (FUSE, NFS) whose server does not answer";

/// Looks at a pod.
pub(crate) async fn examine(config: &Config, name: &PodName) -> Report {
    let (root, wanted) = (config.cgroup_root.clone(), name.clone());
    let found = checks::look(find::NAME, HUNG, move || find::find(root, &wanted)).await;
    let subject = format!("pod {name}");
    let found = match found {
        Ok(Ok(found)) => found,
        Ok(Err(why)) => return Report::new(subject, vec![find::judge_missing(&why)]),
        Err(late) => return Report::new(subject, vec![late]),
    };
    let mut findings = vec![find::judge(&found)];
    let mut look = match checks::look(environment::NAME, HUNG, move || Look::at(found)).await {
        Ok(look) => look,
        Err(late) => {
            findings.push(late);
            return Report::new(subject, findings);
        }
    };
    findings.append(&mut look.findings);
    let request = look.place();
    let read = checks::look(token::NAME, HUNG, move || look.read_token()).await;
    let TokenRead { finding, token } = read.unwrap_or_else(TokenRead::failed);
    findings.extend(finding);
    let mut asking = Vec::new();
    if let Some(token) = token.clone() {
        let upstream = config.upstream.clone();
        asking.push(Check::network("eks-auth", eks_auth::check(upstream, token)));
    }
    match request {
        Some(Ok(place)) => {
            let config = config.clone();
            let ask = move || request::check(&config, &place, token.as_ref());
            asking.push(Check::machine("request", ask));
        }
        Some(Err(why)) => findings.push(request::judge_no_place(&why)),
        None => {}
    }
    findings.extend(checks::run(asking).await);
    Report::new(subject, findings)
}
