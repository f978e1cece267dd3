//! A host's network: a namespace of its own, so that a test may have the host's addresses to
//! itself.

use std::{
    fs::File,
    os::fd::AsRawFd,
    path::PathBuf,
    process::{self, Command},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

use crate::{
    binary,
    pod::{Join, Pod, filter},
};

/// A network namespace that stands for a host's. It is gone with its last process once all clones
/// of this are dropped.
#[derive(Clone)]
pub struct HostNetwork(Arc<Inner>);

struct Inner {
    file: File,
    /// Pods that are connected to it.
    pods: AtomicU16,
}

impl HostNetwork {
    /// One with nothing but `lo`, which is up.
    ///
    /// # Panics
    ///
    /// When it cannot be made; [`needs_privileges!`](crate::needs_privileges) comes first.
    #[expect(
        clippy::new_without_default,
        reason = "making a namespace is not a default value"
    )]
    pub fn new() -> Self {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace");
            File::open("/proc/thread-self/ns/net").expect("the new namespace's file")
        });
        let network = Self(Arc::new(Inner {
            file: made.join().expect("a thread for the namespace"),
            pods: AtomicU16::new(0),
        }));
        network.ip("link set lo up");
        network
    }

    /// Whether the kernel has dummy links, of which `podcreds initialize` makes one.
    pub fn has_dummies(&self) -> bool {
        let add = ["link", "add", "probe", "type", "dummy"];
        let added = self.join().command("ip").args(add).output();
        let has = added.is_ok_and(|output| output.status.success());
        if has {
            self.ip("link delete probe");
        }
        has
    }

    /// One whose link for the node path is there, though it is of a kind that every kernel has.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    pub fn with_link() -> Self {
        let network = Self::new();
        network.ip("link add pod-id-link0 type veth peer name other");
        network.ip("link set other up");
        network
    }

    /// Runs `podcreds initialize` in it.
    ///
    /// # Panics
    ///
    /// When that fails.
    pub fn initialize(&self) {
        let mut command = self.join().command(binary::podcreds());
        let status = command
            .args(["initialize", "--verbosity", "error"])
            .status();
        assert!(status.expect("podcreds initialize").success());
    }

    /// The file that stands for it, for as long as this lives.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", process::id(), self.0.file.as_raw_fd()).into()
    }

    /// What a process joins to be in it.
    pub fn join(&self) -> Join {
        Join::nothing().network(&self.path())
    }

    /// Does something in it, in a thread of its own. Threads that this starts are in it too.
    ///
    /// # Panics
    ///
    /// When `work` does.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(&self.0.file, CloneFlags::CLONE_NEWNET).expect("into the namespace");
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join()).expect("work in the namespace")
    }

    /// Runs `ip` with these arguments in it, and returns what it prints.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn ip(&self, arguments: &str) -> String {
        ip(self.join().command("ip"), arguments)
    }

    /// Loads a ruleset of nftables into it.
    ///
    /// # Panics
    ///
    /// When that fails.
    pub fn filter(&self, ruleset: &str) {
        filter::load(self.join().command("nft"), ruleset);
    }

    /// Makes a link to a pod, with an address of its own for the pod, and has the pod send
    /// everything there.
    pub(crate) fn connect(&self, pod: &Pod, with_ipv6: bool) {
        let number = self.0.pods.fetch_add(1, Ordering::Relaxed) + 1;
        let (ipv4, ipv6) = prefixes(number);
        // From outside, as a CNI plugin does.
        let inside = Join::nothing().network(&pod.network());
        let in_pod = |arguments: &str| ip(inside.command("ip"), arguments);
        let pid = pod.pause_pid();
        self.ip(&format!(
            "link add pod{number} type veth peer name eth0 netns {pid}"
        ));
        self.ip(&format!("address add {ipv4}.1/24 dev pod{number}"));
        self.ip(&format!("link set pod{number} up"));
        in_pod(&format!("address add {ipv4}.2/24 dev eth0"));
        in_pod("link set eth0 up");
        in_pod(&format!("route add default via {ipv4}.1"));
        if with_ipv6 {
            self.ip(&format!("address add {ipv6}::1/64 dev pod{number} nodad"));
            in_pod(&format!("address add {ipv6}::2/64 dev eth0 nodad"));
            in_pod(&format!("-6 route add default via {ipv6}::1"));
        }
    }
}

/// The networks of a host's link to its pod of this number, 10.X.Y.0/24 and fd23:N::/64, without
/// what follows the prefix. There are enough for all that come and go in days.
fn prefixes(number: u16) -> (String, String) {
    let [high, low] = number.to_be_bytes();
    let ipv4 = format!("10.{}.{low}", high.wrapping_add(23));
    (ipv4, format!("fd23:{number:x}"))
}

fn ip(mut ip: Command, arguments: &str) -> String {
    let output = ip.args(arguments.split_whitespace()).output();
    let output = output.expect("ip (package iproute2)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        net::{Ipv4Addr, Ipv6Addr},
    };

    use super::*;

    #[test]
    fn each_of_65535_pods_has_a_valid_network_of_its_own() {
        let networks = (1..=u16::MAX).map(|number| {
            let (ipv4, ipv6) = prefixes(number);
            let ipv4: Ipv4Addr = format!("{ipv4}.0").parse().unwrap();
            let ipv6: Ipv6Addr = format!("{ipv6}::").parse().unwrap();
            (ipv4, ipv6)
        });
        let (ipv4, ipv6): (HashSet<_>, HashSet<_>) = networks.unzip();
        assert_eq!((ipv4.len(), ipv6.len()), (65_535, 65_535));
        assert_eq!(prefixes(1), ("10.23.1".to_owned(), "fd23:1".to_owned()));
    }
}
