//! An operator's desk: a namespace, the EKS API, IAM, and the plugin with access to all of them.

use std::{
    process::Command,
    time::{Duration, SystemTime},
};

use podcreds_tests::{
    associations::Association,
    aws::REGION,
    binary,
    cluster::{Cluster, Container, Namespace, PodSpec},
    eks::{self, Eks},
    eks_auth::{CLUSTER, EksAuth},
    iam::{self, Iam},
    sdk,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The service that assumes pods' roles.
pub(super) const SERVICE: &str = "pods.eks.amazonaws.com";
/// What it must be allowed.
pub(super) const ACTIONS: [&str; 2] = ["sts:AssumeRole", "sts:TagSession"];
/// Associations are older than their pods, and long settled.
const AGE: Duration = Duration::from_secs(3600);

/// What a pod asks the agent with.
const ASK: &str = "wget -qO- \
                   --header \"Authorization: $(cat $AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE)\" \
                   $AWS_CONTAINER_CREDENTIALS_FULL_URI";

pub(super) struct Desk {
    pub(super) namespace: Namespace,
    pub(super) iam: Iam,
    eks: Eks,
    /// Holds the table of associations. The agent asks another one, the node's.
    _eks_auth: EksAuth,
    home: TempDir,
}

/// What the plugin said, and its exit code.
pub(super) struct Said {
    pub(super) text: String,
    pub(super) code: Option<i32>,
}

impl Said {
    /// What it said for programs.
    #[track_caller]
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|why| panic!("{why}: {}", self.text))
    }
}

impl Desk {
    pub(super) fn new(cluster: &Cluster, purpose: &str) -> Self {
        let eks_auth = EksAuth::start();
        Self {
            namespace: cluster.namespace(purpose),
            iam: Iam::start(),
            eks: Eks::beside(&eks_auth),
            _eks_auth: eks_auth,
            home: tempfile::tempdir().unwrap(),
        }
    }

    /// A service account with a role of the same name, as EKS, its webhook, EKS Auth and IAM are to
    /// know it.
    pub(super) fn associate(&self, account: &str) {
        self.namespace.associated(account, account);
        self.put(Association::new(self.namespace.name(), account, account));
        self.trust(account, &ACTIONS);
    }

    /// The same, and EKS's webhook has not heard of it.
    pub(super) fn associate_unheard(&self, account: &str) {
        self.namespace.account(account);
        self.put(Association::new(self.namespace.name(), account, account));
        self.trust(account, &ACTIONS);
    }

    /// An association that the EKS API has known for an hour.
    pub(super) fn put(&self, association: Association) {
        let created = SystemTime::now() - AGE;
        self.put_now(Association {
            created,
            ..association
        });
    }

    /// An association that was just made.
    pub(super) fn put_now(&self, association: Association) {
        self.eks.associations().put(association);
    }

    /// Takes a service account's association away, for everybody who knows of it.
    pub(super) fn dissociate(&self, account: &str) {
        let namespace = self.namespace.name();
        self.eks.associations().remove_of(namespace, account);
        self.namespace.dissociate(account);
    }

    /// Has a role trust EKS with these actions.
    pub(super) fn trust(&self, role: &str, actions: &[&str]) {
        self.iam
            .put(role, iam::trust(SERVICE, actions, Value::Null));
    }

    /// A pod that does nothing, with a service account of its own name.
    pub(super) fn pod(&self, name: &str) -> Value {
        let sleeps = Container::new("main", ["sleep", "1d"]).busybox();
        let pod = PodSpec::running(name, sleeps).account(name);
        pod.object(&self.namespace)
    }

    /// Makes an object, such as a pod.
    pub(super) fn make(&self, kind: &str, object: &Value) {
        self.namespace.create(&self.namespace.path(kind), object);
    }

    /// Changes a service account.
    pub(super) fn annotate_account(&self, name: &str, annotations: &Value) {
        let path = self.namespace.path(&format!("serviceaccounts/{name}"));
        let fields = json!({ "metadata": { "annotations": annotations } });
        let patched = self.namespace.cluster().api().patch(&path, &fields);
        patched.unwrap();
    }

    /// Waits until these pods are ready.
    pub(super) fn wait_ready(&self, names: impl IntoIterator<Item = &'static str>) {
        let mut pods = self.namespace.pods();
        for name in names {
            let at = pods.iter().position(|pod| pod.name() == name).unwrap();
            pods.swap_remove(at).ready();
        }
    }

    /// What a pod gets where it asks the agent, if it gets something.
    pub(super) fn ask(&self, pod: &str) -> Option<Value> {
        let namespace = self.namespace.name();
        let words = ["exec", "-n", namespace, pod, "--", "sh", "-c", ASK];
        let output = self.namespace.cluster().kubectl(words).output().unwrap();
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Runs the plugin.
    pub(super) fn run(&self, words: &[&str]) -> Said {
        let keys = eks::operator();
        let mut command = Command::new(binary::kubectl_podcreds());
        let layout = self.namespace.cluster().layout();
        let output = sdk::remove_settings(&mut command)
            .args(words)
            .args(["--cluster-name", CLUSTER, "--region", REGION])
            .env("KUBECONFIG", layout.kubeconfig("admin"))
            .env("HOME", self.home.path())
            .env("AWS_ENDPOINT_URL_EKS", self.eks.url())
            .env("AWS_ENDPOINT_URL_IAM", self.iam.url())
            .env("AWS_ACCESS_KEY_ID", keys.access_key_id())
            .env("AWS_SECRET_ACCESS_KEY", keys.secret_access_key())
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        Said {
            text: format!("{}{said}", String::from_utf8_lossy(&output.stdout)),
            code: output.status.code(),
        }
    }

    /// `doctor pod`, for a pod of the namespace.
    pub(super) fn doctor(&self, pod: &str) -> Said {
        let name = format!("{}/{pod}", self.namespace.name());
        self.run(&["doctor", "pod", &name, "--output", "json"])
    }

    /// Checks that a pod's doctor finds nothing.
    #[track_caller]
    pub(super) fn assert_healthy(&self, pod: &str) {
        let said = self.doctor(pod);
        assert_eq!(said.json()["firstCause"], Value::Null, "{}", said.text);
        assert_eq!(said.code, Some(0), "{}", said.text);
    }
}
