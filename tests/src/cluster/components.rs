//! What runs on the node, and with which arguments.

use std::{ffi::OsString, path::PathBuf};

use super::{layout::Layout, network};

/// A process of the node that is started again when it ends.
#[derive(Clone, Debug)]
pub(super) struct Component {
    /// Its name, which is also that of its log.
    pub(super) name: &'static str,
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
}

impl Component {
    fn new(name: &'static str, program: impl Into<PathBuf>, arguments: &str) -> Self {
        let arguments = arguments.split_whitespace().map(OsString::from).collect();
        Self {
            name,
            program: program.into(),
            arguments,
        }
    }
}

pub(super) fn etcd(layout: &Layout) -> Component {
    let data = layout.run().join("etcd");
    let data = data.display();
    let (clients, peers) = ("http://127.0.0.1:2379", "http://127.0.0.1:2380");
    Component::new(
        "etcd",
        "etcd",
        &format!(
            "--name=node --data-dir={data} --unsafe-no-fsync --log-level=warn
             --listen-client-urls={clients} --advertise-client-urls={clients}
             --listen-peer-urls={peers} --initial-advertise-peer-urls={peers}
             --initial-cluster=node={peers}"
        ),
    )
}

pub(super) fn api_server(layout: &Layout) -> Component {
    let (own, node) = (network::API_ADDRESS, network::NODE_ADDRESS);
    let services = network::SERVICES;
    let folder = layout.certificates();
    let folder = folder.display();
    Component::new(
        "apiserver",
        "kube-apiserver",
        &format!(
            "--etcd-servers=http://127.0.0.1:2379
             --bind-address=0.0.0.0 --advertise-address={node} --secure-port=443
             --tls-cert-file={folder}/apiserver.crt --tls-private-key-file={folder}/apiserver.key
             --client-ca-file={folder}/ca.crt
             --service-account-issuer=https://kubernetes.default.svc
             --service-account-jwks-uri=https://{own}/openid/v1/jwks
             --service-account-key-file={folder}/tokens.pub
             --service-account-signing-key-file={folder}/tokens.key
             --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction
             --allow-privileged=true --service-cluster-ip-range={services}
             --endpoint-reconciler-type=none
             --feature-gates=MutatingAdmissionPolicy=true
             --runtime-config=admissionregistration.k8s.io/v1beta1=true
             --kubelet-certificate-authority={folder}/ca.crt
             --kubelet-client-certificate={folder}/apiserver-to-kubelet.crt
             --kubelet-client-key={folder}/apiserver-to-kubelet.key
             --kubelet-preferred-address-types=InternalIP"
        ),
    )
}

pub(super) fn controllers(layout: &Layout) -> Component {
    let config = layout.kubeconfig("controllers");
    let config = config.display();
    let folder = layout.certificates();
    let folder = folder.display();
    Component::new(
        "controllers",
        "kube-controller-manager",
        &format!(
            "--kubeconfig={config} --leader-elect=false --bind-address=127.0.0.1
             --service-account-private-key-file={folder}/tokens.key --root-ca-file={folder}/ca.crt
             --use-service-account-credentials"
        ),
    )
}

pub(super) fn scheduler(layout: &Layout) -> Component {
    let config = layout.kubeconfig("scheduler");
    let config = config.display();
    Component::new(
        "scheduler",
        "kube-scheduler",
        &format!("--kubeconfig={config} --leader-elect=false --bind-address=127.0.0.1"),
    )
}

/// Plain HTTP to the API server, on a socket that only root can use.
pub(super) fn proxy(layout: &Layout) -> Component {
    let (config, socket) = (layout.kubeconfig("admin"), layout.api_socket());
    let (config, socket) = (config.display(), socket.display());
    Component::new(
        "proxy",
        "kubectl",
        &format!("proxy --kubeconfig={config} --unix-socket={socket}"),
    )
}

pub(super) fn containerd(layout: &Layout) -> Component {
    let config = layout.config().join("containerd.toml");
    Component::new(
        "containerd",
        "containerd",
        &format!("--config={}", config.display()),
    )
}

pub(super) fn kubelet(layout: &Layout) -> Component {
    let (config, user) = (
        layout.config().join("kubelet.yaml"),
        layout.kubeconfig("kubelet"),
    );
    let (config, user) = (config.display(), user.display());
    let address = network::NODE_ADDRESS;
    Component::new(
        "kubelet",
        "kubelet",
        &format!(
            "--config={config} --kubeconfig={user} --hostname-override=node --node-ip={address}"
        ),
    )
}

/// AWS, as the node sees it: EKS Auth and the instance's metadata.
pub(super) fn aws(program: PathBuf) -> Component {
    Component::new("aws", program, "aws")
}
