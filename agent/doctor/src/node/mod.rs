//! What is looked at on a node.

mod addresses;
mod agent;
mod capabilities;
mod cgroup;
mod eks_auth;
mod handover;
mod hooks;
mod imds;
mod kernel;
mod keys;
mod limits;
mod ports;
mod programs;
mod redirect;

pub(crate) use self::agent::{Agent, look_for as look_for_agent};
pub(crate) use self::eks_auth::connect as connect_to_eks_auth;

use crate::{Config, checks::Check};

/// All checks of a node that make sense with this configuration.
pub(crate) fn checks(config: &Config) -> Vec<Check> {
    let config = config.clone();
    let mut checks = vec![Check::machine("kernel", || vec![kernel::check()])];
    if config.ebpf {
        checks.extend(of_ebpf(&config));
    }
    let found = config.clone();
    checks.push(Check::machine("agent", move || agent::check(&found)));
    if config.ebpf {
        let (agent, root) = (config.clone(), config.cgroup_root.clone());
        let redirect = move || redirect::check(&agent, root);
        checks.push(Check::machine("redirect", redirect));
    }
    if !config.node.is_empty() {
        let (at, is_only) = (config.node.clone(), !config.ebpf);
        checks.push(Check::machine("addresses", move || {
            vec![addresses::check(&at, is_only)]
        }));
        let at = config.node.clone();
        checks.push(Check::machine("port", move || vec![ports::check(&at)]));
    }
    checks.push(Check::network("imds", async { vec![imds::check().await] }));
    let upstream = config.upstream.clone();
    checks.push(Check::network("eks-auth", eks_auth::check(upstream)));
    let server = config.keys.clone();
    checks.push(Check::network("keys", async {
        vec![keys::check(server).await]
    }));
    let place = config.handover.clone();
    checks.push(Check::machine("handover", move || {
        vec![handover::check(place.as_ref())]
    }));
    let root = config.cgroup_root.clone();
    checks.push(Check::machine("inotify", move || {
        vec![limits::check_inotify(root)]
    }));
    checks.push(Check::machine("files", || vec![limits::check_files()]));
    checks
}

fn of_ebpf(config: &Config) -> Vec<Check> {
    let root = || config.cgroup_root.clone();
    let (cgroup, hooks, programs) = (root(), root(), root());
    vec![
        Check::machine("capabilities", || vec![capabilities::check()]),
        Check::machine("cgroup", move || vec![cgroup::check(cgroup)]),
        Check::machine("hooks", move || vec![hooks::check(hooks)]),
        Check::machine("programs", move || vec![programs::check(programs)]),
    ]
}
