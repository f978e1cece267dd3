//! What a simulated pod is to be like.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    Driver, Pod, Qos, names,
    sandbox::{Network, Sandbox},
};
use crate::{
    network::HostNetwork,
    token::{BoundObject, Claims, Issuer, new_uid},
};

/// Describes a pod, and starts it.
pub struct PodBuilder {
    name: String,
    namespace: String,
    service_account: String,
    uid: String,
    node_cgroup: PathBuf,
    host: Option<HostNetwork>,
    prefix: PathBuf,
    kubelet_root: Option<String>,
    driver: Driver,
    qos: Qos,
    sandbox: Sandbox,
}

impl PodBuilder {
    pub(crate) fn new(node_cgroup: &Path, host: Option<HostNetwork>, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            service_account: "default".to_owned(),
            uid: new_uid(),
            node_cgroup: node_cgroup.to_owned(),
            host,
            prefix: PathBuf::new(),
            kubelet_root: None,
            driver: Driver::default(),
            qos: Qos::default(),
            sandbox: Sandbox {
                network: Network::Own,
                loopback: true,
                ipv6: true,
                user_namespace: false,
            },
        }
    }

    /// Its namespace and service account.
    #[must_use]
    pub fn account(mut self, namespace: &str, service_account: &str) -> Self {
        self.namespace = namespace.to_owned();
        self.service_account = service_account.to_owned();
        self
    }

    /// Its UID, in place of a random one.
    #[must_use]
    pub fn uid(mut self, uid: &str) -> Self {
        self.uid = uid.to_owned();
        self
    }

    /// A static pod, whose UID is 32 hexadecimal digits without dashes.
    #[must_use]
    pub fn static_pod(mut self) -> Self {
        self.uid = new_uid().replace('-', "");
        self
    }

    /// The kubelet's cgroup driver.
    #[must_use]
    pub fn driver(mut self, driver: Driver) -> Self {
        self.driver = driver;
        self
    }

    /// Its quality of service class.
    #[must_use]
    pub fn qos(mut self, qos: Qos) -> Self {
        self.qos = qos;
        self
    }

    /// Cgroups between the node's and the kubelet's, as where the node is a container itself.
    #[must_use]
    pub fn below(mut self, prefix: impl AsRef<Path>) -> Self {
        self.prefix = prefix.as_ref().to_owned();
        self
    }

    /// The kubelet's own `--cgroup-root`, which becomes part of systemd's slice names: kind has
    /// `kubelet`.
    #[must_use]
    pub fn kubelet_root(mut self, name: &str) -> Self {
        self.kubelet_root = Some(name.to_owned());
        self
    }

    /// Runs in the host's network namespace.
    #[must_use]
    pub fn host_network(mut self) -> Self {
        self.sandbox.network = match &self.host {
            Some(host) => Network::Of(host.path()),
            None => Network::Host,
        };
        self
    }

    /// Runs in another pod's network namespace.
    #[must_use]
    pub fn network_of(mut self, other: &Pod) -> Self {
        self.sandbox.network = Network::Of(other.network());
        self
    }

    /// Leaves `lo` down in its network namespace, until [`Pod::raise_loopback`].
    #[must_use]
    pub fn loopback_down(mut self) -> Self {
        self.sandbox.loopback = false;
        self
    }

    /// Has IPv6 switched off in its network namespace.
    #[must_use]
    pub fn without_ipv6(mut self) -> Self {
        self.sandbox.ipv6 = false;
        self
    }

    /// Has a user namespace of its own, which owns its network namespace.
    #[must_use]
    pub fn user_namespace(mut self) -> Self {
        self.sandbox.user_namespace = true;
        self
    }

    /// The pod's cgroup, which exists once it has been started.
    pub fn cgroup(&self) -> PathBuf {
        let root = self.kubelet_root.as_deref();
        let pod = names::pod(self.driver, self.qos, root, &self.uid);
        self.node_cgroup.join(&self.prefix).join(pod)
    }

    /// Starts it: cgroups, namespaces, the pause process and the token on disk are there when this
    /// returns.
    ///
    /// # Panics
    ///
    /// When something of that cannot be made.
    pub fn start(self) -> Pod {
        let cgroup = self.cgroup();
        let app = names::container(self.driver, &cgroup);
        fs::create_dir_all(&cgroup).unwrap_or_else(|why| panic!("cannot make {cgroup:?}: {why}"));
        // From here on the pod is removed when something goes wrong.
        let mut pod = Pod {
            claims: Claims::new(
                &self.namespace,
                &self.service_account,
                BoundObject {
                    name: self.name.clone(),
                    uid: self.uid.clone(),
                },
            ),
            driver: self.driver,
            folder: tempfile::tempdir().expect("a temporary folder"),
            cgroup,
            app,
            sandbox: self.sandbox,
            pause: None,
        };
        // A container runtime makes the sandbox first, so that it is the oldest container.
        pod.restart_pause();
        if let (Some(host), Network::Own) = (&self.host, &pod.sandbox.network) {
            host.connect(&pod, pod.sandbox.ipv6);
        }
        let app = pod.app_cgroup();
        fs::create_dir(app).unwrap_or_else(|why| panic!("cannot make {app:?}: {why}"));
        pod.write_token(&Issuer::cluster().sign(&pod.claims));
        pod
    }
}
