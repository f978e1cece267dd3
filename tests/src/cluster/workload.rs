//! Pods in a cluster: how they are described, and what becomes of them.

use std::process::{Command, Output};

use serde_json::{Value, json};

use super::{
    images::{BUSYBOX, MACHINE},
    suite::{Cluster, Namespace},
};
use crate::{aws::Owner, binary, wait::poll};

/// How long a pod may take to start, or to end.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

/// A pod to be. Its first container is `main`, and has the machine's programs.
#[derive(Clone, Debug)]
pub struct PodSpec {
    name: String,
    account: String,
    fields: Value,
    containers: Vec<Container>,
}

/// A container to be.
#[derive(Clone, Debug)]
pub struct Container {
    name: String,
    command: Vec<String>,
    fields: Value,
    image: &'static str,
    is_init: bool,
}

impl Container {
    /// One that runs a program of the machine, or of this workspace.
    pub fn new<'a>(name: &str, command: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            name: name.to_owned(),
            command: command.into_iter().map(str::to_owned).collect(),
            fields: json!({}),
            image: MACHINE,
            is_init: false,
        }
    }

    /// One that runs `pod-client`.
    pub fn client<'a>(name: &str, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        let program = binary::pod_client().display().to_string();
        let mut container = Self::new(name, arguments);
        container.command.insert(0, program);
        container
    }

    /// Takes busybox in place of the machine's programs.
    #[must_use]
    pub fn busybox(mut self) -> Self {
        self.image = BUSYBOX;
        self
    }

    /// Runs before the others, and they wait for it.
    #[must_use]
    pub fn init(mut self) -> Self {
        self.is_init = true;
        self
    }

    /// Sets fields, such as `securityContext`.
    #[must_use]
    pub fn with(mut self, fields: &Value) -> Self {
        merge(&mut self.fields, fields);
        self
    }

    fn object(&self, cluster: &Cluster) -> Value {
        let mut object = json!({
            "name": self.name,
            "image": self.image,
            "imagePullPolicy": "Never",
            "command": self.command,
            "env": [{ "name": "NODE_PATH", "value": crate::sdk::node_modules() }],
        });
        if self.image == MACHINE {
            object["volumeMounts"] = cluster.machine().mounts().into();
        }
        merge(&mut object, &self.fields);
        object
    }
}

impl PodSpec {
    /// A pod of the default service account that does nothing until it is deleted.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            account: "default".to_owned(),
            fields: json!({ "restartPolicy": "Never", "terminationGracePeriodSeconds": 1 }),
            containers: vec![Container::new("main", ["sleep", "infinity"])],
        }
    }

    /// One whose only container runs this.
    pub fn running(name: &str, container: Container) -> Self {
        Self {
            containers: vec![container],
            ..Self::new(name)
        }
    }

    /// One whose only container runs `pod-client`.
    pub fn client<'a>(name: &str, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        Self::running(name, Container::client("main", arguments))
    }

    /// Gives it a service account.
    #[must_use]
    pub fn account(mut self, name: &str) -> Self {
        self.account = name.to_owned();
        self
    }

    /// Gives it another container.
    #[must_use]
    pub fn container(mut self, container: Container) -> Self {
        self.containers.push(container);
        self
    }

    /// Sets fields of its `spec`, such as `hostNetwork`.
    #[must_use]
    pub fn with(mut self, fields: &Value) -> Self {
        merge(&mut self.fields, fields);
        self
    }

    /// As the API server takes it.
    pub fn object(&self, namespace: &Namespace) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": self.name, "namespace": namespace.name() },
            "spec": self.spec(namespace.cluster()),
        })
    }

    /// The `spec` alone, for the template of a Job or Deployment.
    pub fn spec(&self, cluster: &Cluster) -> Value {
        let (init, main): (Vec<_>, Vec<_>) = self
            .containers
            .iter()
            .partition(|container| container.is_init);
        let objects = |containers: Vec<&Container>| -> Vec<_> {
            let objects = containers.into_iter();
            objects.map(|container| container.object(cluster)).collect()
        };
        let mut spec = json!({
            "serviceAccountName": self.account,
            "enableServiceLinks": false,
            "volumes": cluster.machine().volumes(),
            "initContainers": objects(init),
            "containers": objects(main),
        });
        merge(&mut spec, &self.fields);
        spec
    }
}

/// A pod that the API server knows.
pub struct ClusterPod {
    cluster: &'static Cluster,
    namespace: String,
    name: String,
    uid: String,
}

impl ClusterPod {
    pub(super) fn of(cluster: &'static Cluster, object: &Value) -> Self {
        let text = |field: &str| {
            let text = object["metadata"][field].as_str();
            text.unwrap_or_default().to_owned()
        };
        Self {
            cluster,
            namespace: text("namespace"),
            name: text("name"),
            uid: text("uid"),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its UID.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// Its object, now.
    ///
    /// # Panics
    ///
    /// When the API server does not have it.
    pub fn object(&self) -> Value {
        let object = self.cluster.api().get(&self.path());
        object.unwrap_or_else(|why| panic!("pod {}: {why}", self.name))
    }

    /// Waits until it is ready.
    ///
    /// # Panics
    ///
    /// When it does not get ready.
    pub fn ready(self) -> Self {
        self.wait("ready", |pod| {
            let conditions = pod["status"]["conditions"].as_array();
            conditions
                .into_iter()
                .flatten()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        });
        self
    }

    /// Waits until all of its containers have ended, and returns what `container` has printed.
    ///
    /// # Panics
    ///
    /// When it does not end, or has failed.
    pub fn output_of(&self, container: &str) -> String {
        let ended = self.wait("ended", |pod| {
            matches!(
                pod["status"]["phase"].as_str(),
                Some("Succeeded" | "Failed")
            )
        });
        assert_eq!(
            ended["status"]["phase"],
            "Succeeded",
            "pod {}: {}\n{}",
            self.name,
            self.logs(),
            ended["status"]
        );
        self.log(container)
    }

    /// What all containers have printed, as far as it can be had, for the reader of a failure.
    fn logs(&self) -> String {
        let object = self.object();
        let lists =
            ["initContainers", "containers"].map(|list| object["spec"][list].as_array().cloned());
        let containers = lists.into_iter().flatten().flatten();
        let logs = containers.filter_map(|container| {
            let name = container["name"].as_str()?;
            let log = self
                .cluster
                .api()
                .text(&format!("{}/log?container={name}", self.path()));
            Some(format!("{name}: {}", log.ok()?.trim()))
        });
        logs.collect::<Vec<_>>().join("\n")
    }

    /// The same of the first container, in whose last line is JSON.
    ///
    /// # Panics
    ///
    /// When it is none.
    pub fn result(&self) -> Value {
        result(&self.output_of("main"))
    }

    /// What a container has printed so far.
    ///
    /// # Panics
    ///
    /// When it cannot be had.
    pub fn log(&self, container: &str) -> String {
        let path = format!("{}/log?container={container}", self.path());
        let log = self.cluster.api().text(&path);
        log.unwrap_or_else(|why| panic!("the log of {}: {why}", self.name))
    }

    /// Runs a command in its first container.
    ///
    /// # Panics
    ///
    /// When kubectl cannot be run.
    pub fn exec<'a>(&self, command: impl IntoIterator<Item = &'a str>) -> Output {
        let mut exec = self.exec_command();
        exec.args(command).output().expect("kubectl exec")
    }

    /// What runs a command in its first container; the command is added to it.
    pub fn exec_command(&self) -> Command {
        let namespace = ["--namespace", &self.namespace];
        let arguments =
            namespace
                .into_iter()
                .chain(["exec", &self.name, "--container", "main", "--"]);
        self.cluster.kubectl(arguments)
    }

    /// Runs `pod-client` in its first container, and returns its last result.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn client<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Value {
        let program = binary::pod_client();
        let mut exec = self.exec_command();
        let output = exec
            .arg(program)
            .args(arguments)
            .output()
            .expect("kubectl exec");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "pod {}: {complaint}", self.name);
        result(&String::from_utf8_lossy(&output.stdout))
    }

    /// Deletes it, and does not wait.
    ///
    /// # Panics
    ///
    /// When the API server does not take it.
    pub fn delete(&self) {
        self.cluster.api().delete(&self.path()).expect("no pod");
    }

    /// Checks that credentials are this pod's.
    ///
    /// # Panics
    ///
    /// When they are not.
    #[track_caller]
    pub fn assert_owns(&self, session_token: &Value) {
        let token = session_token.as_str().unwrap_or_default();
        let owner = token.parse::<Owner>();
        let uid = owner.map(|owner| owner.uid);
        assert_eq!(
            uid.as_deref(),
            Ok(self.uid()),
            "pod {}: {session_token}",
            self.name
        );
    }

    fn path(&self) -> String {
        format!("/api/v1/namespaces/{}/pods/{}", self.namespace, self.name)
    }

    fn wait(&self, what: &str, met: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let found = poll(PATIENCE, || {
            // The API server itself may be down for a while.
            last = self.cluster.api().get(&self.path()).ok()?;
            met(&last).then_some(())
        });
        assert!(
            found.is_some(),
            "gave up after {PATIENCE:?}: pod {} is not {what}: {}",
            self.name,
            last["status"]
        );
        last
    }
}

/// The last line of what `pod-client` prints.
fn result(printed: &str) -> Value {
    let line = printed.trim().lines().next_back().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {printed}"))
}

/// Puts fields into an object. Lists are added to lists.
fn merge(object: &mut Value, fields: &Value) {
    match (object, fields) {
        (Value::Object(object), Value::Object(fields)) => {
            for (name, value) in fields {
                merge(object.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(object), Value::Array(fields)) => object.extend(fields.iter().cloned()),
        (object, fields) => *object = fields.clone(),
    }
}
