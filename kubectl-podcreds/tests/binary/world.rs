//! A cluster and an account as the program sees them: fixed answers of Kubernetes, EKS and IAM on
//! one server.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    path::PathBuf,
    process::{Command, Output},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http::{Request, Response, StatusCode};
use podcreds_tests::{
    associations,
    http::server::{Action, Handler, Server, full},
    iam,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The cluster, as EKS names it, and as `aws eks update-kubeconfig` does.
const ARN: &str = "arn:aws:eks:eu-central-1:111122223333:cluster/prod";

/// What is answered, by path. What is not here is forbidden. The second page of a list is at its
/// path with `?2` behind it.
#[derive(Clone, Default)]
pub(crate) struct World {
    answers: BTreeMap<String, Value>,
    /// Trust policies by the role's name.
    roles: BTreeMap<String, Value>,
    agents: Vec<Value>,
    /// The key that calls of AWS must be signed with, if it matters.
    key: Option<&'static str>,
}

/// The world, served, and a kubeconfig for it.
pub(crate) struct Served {
    server: Server,
    folder: TempDir,
}

impl World {
    /// A cluster in which the pod `shop/web` has the role `reader`.
    pub(crate) fn healthy() -> Self {
        let mut world = Self::default();
        world.set("/api/v1/nodes", list(vec![node()]));
        world.set("/api/v1/serviceaccounts", list(vec![account()]));
        world.set("/api/v1/pods", list(vec![pod()]));
        world.set("/api/v1/namespaces/shop/pods", list(vec![pod()]));
        world.set("/api/v1/namespaces/shop/pods/web", pod());
        world.set(
            "/api/v1/namespaces/shop/serviceaccounts",
            list(vec![account()]),
        );
        for path in ["networkpolicies", "namespaces/shop/networkpolicies"] {
            let path = format!("/apis/networking.k8s.io/v1/{path}");
            world.set(&path, list(Vec::new()));
        }
        world.set(
            "/clusters/prod",
            json!({ "cluster": { "name": "prod", "arn": ARN } }),
        );
        world.associate(&[("shop", "reader", "reader")]);
        world.trust("reader", &["sts:AssumeRole", "sts:TagSession"]);
        // AWS's own, which is not asked for more than whether it is there.
        let mut agent = pod();
        agent["metadata"] = json!({
            "namespace": "kube-system", "name": "eks-pod-identity-agent-x",
            "labels": { "app.kubernetes.io/name": "eks-pod-identity-agent" },
        });
        world.agents = vec![agent];
        world
    }

    pub(crate) fn set(&mut self, path: &str, answer: Value) {
        self.answers.insert(path.to_owned(), answer);
    }

    /// From now on AWS knows no other key than this.
    pub(crate) fn expect_key(&mut self, key: &'static str) {
        self.key = Some(key);
    }

    /// From now on this is forbidden.
    pub(crate) fn forbid(&mut self, path: &str) {
        self.answers.remove(path);
    }

    /// The associations: namespace, service account and role of each.
    pub(crate) fn associate(&mut self, all: &[(&str, &str, &str)]) {
        let list = "/clusters/prod/pod-identity-associations";
        let mut summaries = Vec::new();
        for (number, (namespace, account, role)) in (1..).zip(all) {
            let id = format!("a-{number}");
            summaries.push(json!({ "namespace": namespace, "serviceAccount": account,
                                   "associationId": id, "clusterName": "prod" }));
            let details = json!({ "associationId": id, "createdAt": 1_700_000_000,
                                  "roleArn": associations::role_arn(role) });
            self.set(&format!("{list}/{id}"), json!({ "association": details }));
        }
        self.set(list, json!({ "associations": summaries }));
    }

    /// Makes a role, which EKS may use in this way.
    pub(crate) fn trust(&mut self, role: &str, actions: &[&str]) {
        let policy = iam::trust("pods.eks.amazonaws.com", actions, Value::Null);
        self.role(role, policy);
    }

    /// Makes a role with this trust policy.
    pub(crate) fn role(&mut self, role: &str, trust: Value) {
        self.roles.insert(role.to_owned(), trust);
    }

    pub(crate) fn serve(self) -> Served {
        let server = Server::start("world", Arc::new(self) as Arc<dyn Handler>);
        let folder = tempfile::tempdir().unwrap();
        let context = |name: &str, cluster: &str| {
            let context = json!({ "cluster": cluster, "user": "u" });
            json!({ "name": name, "context": context })
        };
        let cluster = |name: &str| json!({ "name": name, "cluster": { "server": server.url() } });
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "contexts": [context("here", "c"), context("eks", ARN)],
            "clusters": [cluster("c"), cluster(ARN)],
            "users": [{ "name": "u", "user": { "token": "t" } }],
        });
        let served = Served { server, folder };
        served.write("kubeconfig", &kubeconfig.to_string());
        served
    }

    /// Whether a call of AWS has the key that it must have.
    fn is_signed(&self, request: &Request<Bytes>) -> bool {
        let signature = request.headers().get("authorization");
        let signature = signature
            .and_then(|it| it.to_str().ok())
            .unwrap_or_default();
        let has = |key| signature.contains(&format!("Credential={key}/"));
        !signature.starts_with("AWS4-") || self.key.is_none_or(has)
    }

    fn answer_role(&self, body: &Bytes) -> (StatusCode, String) {
        let role = iam::role_wanted(body).and_then(|name| self.roles.get_key_value(name));
        match role {
            Some((name, policy)) => (StatusCode::OK, iam::answer(name, policy)),
            None => (
                StatusCode::FORBIDDEN,
                iam::refusal("AccessDenied", "not you"),
            ),
        }
    }
}

impl Handler for World {
    fn handle(self: Arc<Self>, request: Request<Bytes>) -> BoxFuture<'static, Action> {
        let path = request.uri().path();
        let query = request.uri().query().unwrap_or_default();
        let place = match query.contains("continue=2") {
            true => format!("{path}?2"),
            false => path.to_owned(),
        };
        let (status, body) = match self.answers.get(&place) {
            _ if !self.is_signed(&request) => {
                let why = json!({ "__type": "UnrecognizedClientException", "message": "no" });
                (StatusCode::FORBIDDEN, why.to_string())
            }
            _ if path == "/" => self.answer_role(request.body()),
            Some(_) if query.contains("labelSelector") => {
                (StatusCode::OK, list(self.agents.clone()).to_string())
            }
            Some(answer) => (StatusCode::OK, answer.to_string()),
            None => {
                let message = format!("{path} is forbidden\u{1b}[2J");
                let status = json!({
                    "kind": "Status", "apiVersion": "v1", "status": "Failure",
                    "reason": "Forbidden", "code": 403, "message": message,
                    "__type": "AccessDeniedException",
                });
                (StatusCode::FORBIDDEN, status.to_string())
            }
        };
        let mut answer = Response::new(full(body));
        *answer.status_mut() = status;
        async move { Action::Answer(answer) }.boxed()
    }
}

impl Served {
    /// Runs the program with these words, and nothing of this machine's settings.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.run_with(words, self.kubeconfig().as_os_str())
    }

    /// The same with other kubeconfigs.
    pub(crate) fn run_with(&self, words: &[&str], kubeconfigs: &OsStr) -> Output {
        let mut command = self.command(words);
        command.env("KUBECONFIG", kubeconfigs).output().unwrap()
    }

    /// The program with these words, and flags that say which cluster is meant.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = self.command_without_flags(words);
        command.args(["--cluster-name", "prod", "--region", "eu-central-1"]);
        command
    }

    /// The program with these words alone.
    pub(crate) fn command_without_flags(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-podcreds"));
        command
            .args(words)
            .env_clear()
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.folder.path())
            .env("AWS_ENDPOINT_URL", self.server.url())
            .env("AWS_ACCESS_KEY_ID", "id")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .env("AWS_EC2_METADATA_DISABLED", "true");
        command
    }

    /// Writes a file into the program's home directory.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }
}

fn list(items: Vec<Value>) -> Value {
    json!({ "metadata": {}, "items": items })
}

fn node() -> Value {
    json!({
        "metadata": { "name": "n1", "labels": { "kubernetes.io/os": "linux" } },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
    })
}

fn account() -> Value {
    json!({ "metadata": { "namespace": "shop", "name": "reader" } })
}

/// A pod as EKS's webhook leaves it.
pub(crate) fn pod() -> Value {
    let folder = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount";
    json!({
        "metadata": { "namespace": "shop", "name": "web",
                      "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": {
            "serviceAccountName": "reader", "nodeName": "n1",
            "containers": [{
                "name": "app",
                "env": [
                    { "name": "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                      "value": "http://169.254.170.23/v1/credentials" },
                    { "name": "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
                      "value": format!("{folder}/eks-pod-identity-token") },
                ],
                "volumeMounts": [{ "name": "token", "mountPath": folder }],
            }],
            "volumes": [{ "name": "token", "projected": { "sources": [{ "serviceAccountToken": {
                "audience": "pods.eks.amazonaws.com", "path": "eks-pod-identity-token" } }] } }],
        },
        "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] },
    })
}
