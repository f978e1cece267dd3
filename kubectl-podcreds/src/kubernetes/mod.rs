//! Kubernetes: lists as plain values, and commands that run in agents' containers.

mod convert;
mod exec;

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use k8s_openapi::api::{
    core::v1::{Node, Pod, ServiceAccount as Account},
    networking::v1::NetworkPolicy,
};
use kube::{
    Api, Client,
    api::{ListParams, Resource},
    client::AuthError,
};
use podcreds_types::ServiceAccount;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

pub(crate) use exec::{Answer, CONTAINER, ExecError, exec};

use crate::{
    checks::agent_labels,
    snapshot::{self, Missing, Seen},
};

/// So many objects a page, which is what kubectl asks for.
const PAGE: u32 = 500;
/// How long the API server may take for an answer, such as a page of a list.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where objects are: in a namespace or in all of them.
#[derive(Clone)]
pub(crate) struct Kubernetes {
    client: Client,
    namespace: Option<String>,
}

impl Kubernetes {
    /// Looks in one namespace, or in all of them.
    pub(crate) fn new(client: Client, namespace: Option<String>) -> Self {
        Self { client, namespace }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    pub(crate) async fn pods(&self) -> Seen<Vec<snapshot::Pod>> {
        let pods = list(self.api::<Pod>(), ListParams::default(), "pods").await?;
        Ok(pods.into_iter().map(convert::pod).collect())
    }

    /// One pod, or nothing where there is none.
    pub(crate) async fn pod(&self, namespace: &str, name: &str) -> Seen<Option<snapshot::Pod>> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let pod = answered("pods", "get", PATIENCE, api.get_opt(name)).await?;
        Ok(pod.map(convert::pod))
    }

    /// The pods of podcreds' agents and of AWS's.
    pub(crate) async fn agents(&self, label: &str) -> Seen<Vec<snapshot::Pod>> {
        let params = ListParams::default().labels(&agent_labels(label));
        let api: Api<Pod> = Api::all(self.client.clone());
        let pods = list(api, params, "pods in all namespaces").await?;
        Ok(pods.into_iter().map(convert::pod).collect())
    }

    pub(crate) async fn accounts(&self) -> Seen<BTreeMap<ServiceAccount, snapshot::Account>> {
        let api = self.api::<Account>();
        let accounts = list(api, ListParams::default(), "serviceaccounts").await?;
        Ok(accounts.into_iter().map(convert::account).collect())
    }

    pub(crate) async fn nodes(&self) -> Seen<BTreeMap<String, snapshot::Node>> {
        let api: Api<Node> = Api::all(self.client.clone());
        let nodes = list(api, ListParams::default(), "nodes").await?;
        Ok(nodes.into_iter().map(convert::node).collect())
    }

    pub(crate) async fn network_policies(&self) -> Seen<Vec<snapshot::NetworkPolicy>> {
        let api = self.api::<NetworkPolicy>();
        let policies = list(api, ListParams::default(), "networkpolicies").await?;
        Ok(policies.into_iter().map(convert::network_policy).collect())
    }
}

/// All pages of a list.
async fn list<K>(api: Api<K>, params: ListParams, what: &str) -> Seen<Vec<K>>
where
    K: Clone + DeserializeOwned + Debug,
{
    let mut params = params.limit(PAGE);
    let mut all = Vec::new();
    loop {
        let page = answered(what, "list", PATIENCE, api.list(&params)).await?;
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(all),
        }
    }
}

/// What the API server answers, if it does so in time.
async fn answered<T>(
    what: &str,
    verb: &str,
    limit: Duration,
    call: impl Future<Output = kube::Result<T>>,
) -> Seen<T> {
    match timeout(limit, call).await {
        Ok(answer) => answer.map_err(|error| missing(what, verb, &error)),
        Err(_) => Err(Missing {
            what: what.to_owned(),
            why: format!("the API server gives no answer in {} s", limit.as_secs()),
            needs: None,
        }),
    }
}

/// Why something could not be listed, and the permission for it.
fn missing(what: &str, verb: &str, error: &kube::Error) -> Missing {
    Missing {
        what: what.to_owned(),
        why: why(error),
        needs: is_denied(error).then(|| format!("to {verb} {what}")),
    }
}

fn is_denied(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

/// What went wrong, in the API server's words if they are its.
fn why(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.message.is_empty() => {
            format!("the API server answers {}", status.code)
        }
        kube::Error::Api(status) => status.message.clone(),
        other => chain(other),
    }
}

/// An error with what caused it.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    if let Some(text) = of_login(error) {
        return text;
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(&format!(": {more}"));
        }
        source = error.source();
    }
    text
}

/// What is wrong with the command by which a kubeconfig logs in. kube's own words for it have the
/// command's environment and its output, in which there may be secrets.
fn of_login(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        match error.downcast_ref() {
            Some(AuthError::AuthExecRun { out, .. }) => {
                return Some(format!(
                    "the command that the kubeconfig's user logs in with has failed ({}): run \
                     kubectl, or that command, to see why",
                    out.status
                ));
            }
            Some(AuthError::AuthExecParse(_)) => {
                let said =
                    "the command that the kubeconfig's user logs in with gives no credential";
                return Some(said.to_owned());
            }
            _ => next = error.source(),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt as _, process};

    use super::*;
    use crate::kubeconfig::KubeconfigError;

    #[tokio::test]
    async fn an_api_server_that_never_answers_is_given_up() {
        let never = std::future::pending::<kube::Result<()>>();
        let limit = Duration::from_millis(1);
        let missing = answered("nodes", "list", limit, never).await;
        let missing = missing.unwrap_err();
        assert_eq!(missing.why, "the API server gives no answer in 0 s");
        assert_eq!((missing.what.as_str(), missing.needs), ("nodes", None));
    }

    #[test]
    fn a_login_that_fails_shows_no_secret() {
        let out = process::Output {
            status: process::ExitStatus::from_raw(256),
            stdout: b"secret-token".to_vec(),
            stderr: Vec::new(),
        };
        let error = AuthError::AuthExecRun {
            cmd: "AWS_SECRET_ACCESS_KEY=\"secret-key\" \"/bin/false\"".to_owned(),
            out: Box::new(out),
        };
        let error = KubeconfigError::Client(kube::Error::Auth(error));
        let text = chain(&error);
        assert!(text.contains("exit status: 1"), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
}
