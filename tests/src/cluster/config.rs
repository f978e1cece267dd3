//! Configuration files of the components.

use std::fs;

use anyhow::{Context, Result};

use super::{images, layout::Layout, network};

/// Writes them all.
///
/// # Errors
///
/// When a file cannot be written.
pub(super) fn write(layout: &Layout) -> Result<()> {
    let files = [
        ("kubelet.yaml", kubelet(layout)),
        ("containerd.toml", containerd(layout)),
        ("cni/pods.conflist", network::plugins()),
    ];
    for (name, text) in files {
        let path = layout.config().join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Nothing is evicted however full the machine is, and kubelet leaves the machine's firewall alone.
fn kubelet(layout: &Layout) -> String {
    let folder = layout.certificates();
    let folder = folder.display();
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: '{folder}/ca.crt'}}
authorization: {{mode: Webhook}}
tlsCertFile: '{folder}/kubelet-server.crt'
tlsPrivateKeyFile: '{folder}/kubelet-server.key'
address: 0.0.0.0
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
resolvConf: /etc/resolv.conf
clusterDomain: cluster.local
volumePluginDir: /var/lib/kubelet/volumeplugins
makeIPTablesUtilChains: false
maxPods: 250
podPidsLimit: -1
evictionHard:
  memory.available: 50Mi
  nodefs.available: 0%
  nodefs.inodesFree: 0%
  imagefs.available: 0%
  imagefs.inodesFree: 0%
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
nodeStatusUpdateFrequency: 5s
registryPullQPS: 0
serializeImagePulls: false
kubeAPIQPS: 200
kubeAPIBurst: 400
"
    )
}

/// Without AppArmor, and without raising anybody's OOM score: containers may be denied both.
fn containerd(layout: &Layout) -> String {
    let (plugins, config) = (
        layout.kubernetes().join("usr/lib/cni"),
        layout.config().join("cni"),
    );
    let (plugins, config) = (plugins.display(), config.display());
    let pause = images::PAUSE;
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{config}"
"#
    )
}
