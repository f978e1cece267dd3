//! What is looked at in a pod.
//!
//! What a pod shows of itself (its environment, its files) is under its control. It is opened so
//! that it cannot make the doctor wait or read elsewhere, is limited in size, and decides about
//! nothing but what is reported.

mod eks_auth;
mod environment;
mod find;
mod name;
mod process;
mod proxy;
mod request;
mod token;

use std::net::SocketAddr;

use podcreds_types::Token;
use tokio::task::spawn_blocking;

use self::{environment::Environment, find::Found, process::PodProcess};
use crate::{
    Config, Report,
    checks::{self, Check},
    report::Finding,
};

pub use name::PodName;

/// Where kubelet mounts the token, unless the pod says otherwise.
const TOKEN_FILE: &str =
    "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token";

/// What is known of a pod once its processes have been looked at.
struct Look {
    findings: Vec<Finding>,
    token: Option<Token>,
    request: Option<request::Place>,
}

/// Looks at a pod.
pub(crate) async fn examine(config: &Config, name: &PodName) -> Report {
    let (root, wanted) = (config.cgroup_root.clone(), name.clone());
    let found = spawn_blocking(move || find::find(root, &wanted)).await;
    let found = found.unwrap_or_else(|_| Err("the search itself failed".to_owned()));
    let subject = format!("pod {name}");
    let found = match found {
        Ok(found) => found,
        Err(why) => return Report::new(subject, vec![find::judge_missing(&why)]),
    };
    let mut findings = vec![find::judge(&found)];
    let look = spawn_blocking(move || look_at(&found)).await;
    let Ok(look) = look else {
        return Report::new(subject, findings);
    };
    findings.extend(look.findings);
    let upstream = config.upstream.clone();
    let mut asking = Vec::new();
    if let Some(token) = look.token.clone() {
        asking.push(Check::network("eks-auth", eks_auth::check(upstream, token)));
    }
    if let Some(place) = look.request {
        let config = config.clone();
        let ask = move || request::check(&config, &place, look.token.as_ref());
        asking.push(Check::machine("request", ask));
    }
    findings.extend(checks::run(asking).await);
    Report::new(subject, findings)
}

fn look_at(found: &Found) -> Look {
    let processes = PodProcess::all_of(&found.pod.path);
    let mut environments: Vec<Environment> = processes.iter().filter_map(Environment::of).collect();
    // Those that are told where to ask come first: a pause container is not.
    environments.sort_by_key(|it| !it.is_told());
    let mut findings = vec![environment::judge(&environments)];
    let told = environments.iter().find(|it| it.is_told());
    findings.extend(told.and_then(|told| proxy::judge(told.proxy(), told.no_proxy())));
    let process = told.and_then(|told| processes.iter().find(|it| it.pid == told.pid));
    // Without a hint, the pod's youngest container is most likely its application.
    let process = process.or(processes.last());
    let file = told.and_then(Environment::token_file).unwrap_or(TOKEN_FILE);
    let token = process.map(|process| token::read(process, file));
    let token = match token {
        Some(Ok(token)) => {
            findings.push(token::judge(
                &token,
                found.pod.uid,
                std::time::SystemTime::now(),
            ));
            Some(token)
        }
        Some(Err(error)) => {
            findings.push(token::judge_missing(file, &error));
            None
        }
        None => None,
    };
    let asked: SocketAddr = told
        .and_then(Environment::address)
        .unwrap_or(podcreds_datapath::diagnosis::CREDENTIALS);
    let request = process.map(|process| request::Place {
        mount: found.tree.mount.clone(),
        cgroup: process.cgroup.clone(),
        network: format!("/proc/{}/ns/net", process.pid).into(),
        address: asked,
    });
    Look {
        findings,
        token,
        request,
    }
}
