//! A cluster as tests see it, from inside of the node.

use std::{
    fs,
    ops::Deref,
    process::{Command, Output},
    sync::{
        LazyLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::{
    api::{Api, ApiError},
    associations::Associations,
    layout::Layout,
    machine::Machine,
    workload::{ClusterPod, PodSpec},
};
use crate::{
    agent::Metrics,
    http::client,
    wait::{DEADLINE, poll, until},
};

/// Tests that disturb the node keep all others out.
static GATE: RwLock<()> = RwLock::new(());

/// A test's stay in the cluster, beside other tests.
pub struct Visit {
    cluster: &'static Cluster,
    _gate: RwLockReadGuard<'static, ()>,
}

/// A test's stay in the cluster, with no other test in it.
pub struct Solitude {
    cluster: &'static Cluster,
    _gate: RwLockWriteGuard<'static, ()>,
}

impl Deref for Visit {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        self.cluster
    }
}

impl Deref for Solitude {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        self.cluster
    }
}

/// The cluster that this process is in.
pub struct Cluster {
    layout: Layout,
    api: Api,
    machine: Machine,
}

impl Cluster {
    /// For a test that disturbs no other. It is dropped after everything that the test has made.
    ///
    /// # Panics
    ///
    /// When this is no cluster.
    pub fn visit() -> Visit {
        Visit {
            // A test that has failed is no reason for others to fail.
            _gate: GATE.read().unwrap_or_else(PoisonError::into_inner),
            cluster: Self::here(),
        }
    }

    /// For a test that disturbs others, or counts what others would add to.
    ///
    /// # Panics
    ///
    /// When this is no cluster.
    pub fn alone() -> Solitude {
        let gate = GATE.write().unwrap_or_else(PoisonError::into_inner);
        let cluster = Self::here();
        cluster.wait_empty();
        Solitude {
            cluster,
            _gate: gate,
        }
    }

    /// The one that `cargo xtask cluster test` has started, and runs the tests in.
    fn here() -> &'static Self {
        static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| {
            let layout = Layout::of_checkout().expect("the checkout");
            let api = Api::of(&layout);
            assert!(
                api.is_ready(),
                "there is no cluster here: run `cargo xtask cluster test`"
            );
            Cluster {
                machine: Machine::of(&layout),
                layout,
                api,
            }
        });
        &CLUSTER
    }

    /// Waits until the pods of earlier tests are gone.
    fn wait_empty(&self) {
        const OTHERS: &str = "/api/v1/pods?fieldSelector=metadata.namespace!=kube-system";
        let mut left = Value::Null;
        let empty = poll(DEADLINE, || {
            left = self.api.get(OTHERS).ok()?["items"].take();
            left.as_array()?.is_empty().then_some(())
        });
        let names = left.as_array().into_iter().flatten();
        let names: Vec<_> = names.map(|pod| &pod["metadata"]["name"]).collect();
        assert!(
            empty.is_some(),
            "pods of earlier tests are still there: {names:?}"
        );
    }

    /// The API server.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Where the cluster's files are.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What pods take from the machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Which service account has which role.
    pub fn associations(&self) -> Associations {
        Associations::of(&self.api)
    }

    /// kubectl, with all rights.
    pub fn kubectl<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut kubectl = Command::new("kubectl");
        kubectl
            .arg("--kubeconfig")
            .arg(self.layout.kubeconfig("admin"))
            .args(arguments);
        kubectl
    }

    /// Runs kubectl, and returns what it prints.
    ///
    /// # Panics
    ///
    /// When it fails, with its complaint.
    pub fn run_kubectl<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> String {
        let output = self.kubectl(arguments).output().expect("kubectl");
        let Output {
            status,
            stderr,
            stdout,
        } = output;
        let complaint = String::from_utf8_lossy(&stderr);
        assert!(status.success(), "kubectl failed ({status}): {complaint}");
        String::from_utf8_lossy(&stdout).into_owned()
    }

    /// The agent's metrics, now.
    ///
    /// # Panics
    ///
    /// When they cannot be had.
    pub fn agent_metrics(&self) -> Metrics {
        let address = ([127, 0, 0, 1], 2705).into();
        let answer = client::get(address, "/metrics").expect("the agent's metrics");
        assert_eq!(answer.status, 200, "{}", answer.body);
        Metrics::parse(&answer.body)
    }

    /// Ends a component of the node without warning, and waits until the next one is there.
    ///
    /// # Panics
    ///
    /// When it cannot be ended, or none comes.
    pub fn kill_component(&self, name: &str) {
        let file = self.layout.component_pid(name);
        // Empty while it is written.
        let running = || {
            let pid = fs::read_to_string(&file).ok()?;
            pid.trim().parse().ok().map(Pid::from_raw)
        };
        let old = running().expect("a component's process ID");
        kill(old, Signal::SIGKILL).unwrap_or_else(|why| panic!("cannot end {name}: {why}"));
        until(&format!("{name} is started again"), || {
            running().is_some_and(|pid| pid != old)
        });
    }

    /// Has the agent stand still (SIGSTOP).
    ///
    /// # Panics
    ///
    /// When there is not just one.
    pub fn stop_agent(&self) {
        let processes = procfs::process::all_processes().expect("the processes of the node");
        let is_agent = |words: &[String]| words.starts_with(&["/podcreds".into(), "server".into()]);
        let agents: Vec<_> = processes
            .flatten()
            .filter(|process| process.cmdline().is_ok_and(|words| is_agent(&words)))
            .map(|process| Pid::from_raw(process.pid))
            .collect();
        let [agent] = agents[..] else {
            panic!("one agent, not {agents:?}");
        };
        kill(agent, Signal::SIGSTOP).expect("a signal to the agent");
    }

    /// A new namespace, which goes when it is dropped, with all that is in it.
    ///
    /// # Panics
    ///
    /// When the API server does not make it.
    pub fn namespace(&self, purpose: &str) -> Namespace {
        let cluster = Self::here();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{purpose}-{}-{number}", std::process::id());
        let object = json!({ "metadata": { "name": name } });
        let made = self.api.create("/api/v1/namespaces", &object);
        made.unwrap_or_else(|why| panic!("namespace {name}: {why}"));
        let namespace = Namespace { cluster, name };
        // Pods of a namespace whose default account is not there yet are refused.
        until("the default service account", || {
            self.api
                .get(&namespace.path("serviceaccounts/default"))
                .is_ok()
        });
        namespace
    }
}

/// A namespace of a test's own.
pub struct Namespace {
    cluster: &'static Cluster,
    name: String,
}

impl Namespace {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster that it is in.
    pub fn cluster(&self) -> &'static Cluster {
        self.cluster
    }

    /// The path of an object of the core group, such as `pods/name`.
    pub fn path(&self, object: &str) -> String {
        format!("/api/v1/namespaces/{}/{object}", self.name)
    }

    /// The path of an object of another group, such as `apps/v1` and `deployments/name`.
    pub fn path_in(&self, group: &str, object: &str) -> String {
        format!("/apis/{group}/namespaces/{}/{object}", self.name)
    }

    /// Makes a service account without a role.
    ///
    /// # Panics
    ///
    /// When the API server does not make it.
    pub fn account(&self, name: &str) {
        self.create(
            &self.path("serviceaccounts"),
            &json!({ "metadata": { "name": name } }),
        );
    }

    /// Makes a service account with a role, and waits until its pods are told where to ask.
    ///
    /// # Panics
    ///
    /// When that does not happen.
    pub fn associated(&self, name: &str, role: &str) {
        self.account(name);
        self.associate(name, role);
    }

    /// Gives a service account a role, and waits until its pods are told where to ask.
    ///
    /// # Panics
    ///
    /// When that does not happen.
    pub fn associate(&self, name: &str, role: &str) {
        let associations = self.cluster.associations();
        associations
            .associate(&self.name, name, role)
            .expect("an association");
        until("the webhook knows of the association", || {
            let probe = PodSpec::new("probe").account(name).object(self);
            let path = self.path("pods?dryRun=All");
            let made = self.cluster.api.create(&path, &probe);
            made.is_ok_and(|pod| {
                pod.to_string()
                    .contains("AWS_CONTAINER_CREDENTIALS_FULL_URI")
            })
        });
    }

    /// Takes a service account's role away.
    ///
    /// # Panics
    ///
    /// When the API server does not take it.
    pub fn dissociate(&self, name: &str) {
        let associations = self.cluster.associations();
        associations
            .dissociate(&self.name, name)
            .expect("no association");
    }

    /// Makes an object.
    ///
    /// # Panics
    ///
    /// When the API server does not make it.
    pub fn create(&self, path: &str, object: &Value) -> Value {
        let made: Result<Value, ApiError> = self.cluster.api.create(path, object);
        made.unwrap_or_else(|why| panic!("{path}: {why}"))
    }

    /// Makes a pod, and does not wait for it.
    ///
    /// # Panics
    ///
    /// When the API server does not make it.
    pub fn start(&self, spec: &PodSpec) -> ClusterPod {
        let made = self.create(&self.path("pods"), &spec.object(self));
        ClusterPod::of(self.cluster, &made)
    }

    /// All pods that are in it.
    ///
    /// # Panics
    ///
    /// When the API server does not list them.
    pub fn pods(&self) -> Vec<ClusterPod> {
        let list = self.cluster.api.get(&self.path("pods")).expect("the pods");
        let pods = list["items"].as_array().cloned().unwrap_or_default();
        pods.iter()
            .map(|pod| ClusterPod::of(self.cluster, pod))
            .collect()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // What cannot be deleted goes with the cluster.
        let _ = self
            .cluster
            .api
            .delete(&format!("/api/v1/namespaces/{}", self.name));
    }
}
