//! The node's network: one bridge for the node, one for its pods, and the addresses that AWS has on
//! every instance.

use anyhow::Result;

use super::command;

/// The node's own address.
pub(super) const NODE_ADDRESS: &str = "10.88.255.1";
/// The service address of the API server. It is on the node itself, so no service proxy is needed.
pub(super) const API_ADDRESS: &str = "10.96.0.1";
/// Where services have their addresses.
pub(super) const SERVICES: &str = "10.96.0.0/16";
/// How the components reach the API server.
pub(super) const API_URL: &str = "https://127.0.0.1:443";
/// Where pods have their addresses.
pub(super) const PODS: &str = "10.88.0.0/24";
/// The same in IPv6.
pub(super) const PODS_V6: &str = "fd00:88::/64";
/// Where every instance finds its metadata.
pub(super) const METADATA: &str = "169.254.169.254";
/// The link with the addresses that pods without eBPF ask.
const LINK: &str = "pod-id-link0";
/// Where the EKS Auth stand-in listens.
pub const EKS_AUTH: &str = "127.0.0.1:8088";

/// Brings the network of this namespace up.
pub(super) fn raise() -> Result<()> {
    command::run("ip", "link set lo up")?;
    command::run("ip", &format!("addr add {METADATA}/32 dev lo"))?;
    command::run("ip", "link add node0 type bridge")?;
    for address in [NODE_ADDRESS, API_ADDRESS] {
        command::run("ip", &format!("addr add {address}/32 dev node0"))?;
    }
    command::run("ip", "link set node0 up")?;
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    replace_dummy()
}

/// The link that `podcreds initialize` makes is a dummy, which not every kernel has. Where there is
/// none, it finds a bridge in its place, which does the same without a port.
fn replace_dummy() -> Result<()> {
    if command::run("ip", &format!("link add {LINK} type dummy")).is_ok() {
        return command::run("ip", &format!("link delete {LINK}"));
    }
    command::run("ip", &format!("link add {LINK} type bridge"))
}

/// What the container runtime tells its network plugins.
pub(super) fn plugins() -> String {
    format!(
        r#"{{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [{{
    "type": "bridge",
    "bridge": "pods0",
    "isGateway": true,
    "isDefaultGateway": true,
    "hairpinMode": true,
    "ipam": {{
      "type": "host-local",
      "dataDir": "/run/cni-addresses",
      "ranges": [[{{"subnet": "{PODS}"}}], [{{"subnet": "{PODS_V6}"}}]]
    }}
  }}]
}}
"#
    )
}
