//! The agent as the chart runs it: with a few capabilities, in a cgroup namespace of its own, and
//! with a file system that it can only read.

use podcreds_tests::{
    eks_auth::EksAuth,
    needs_privileges,
    node::Node,
    pod::cgroup,
    scenario::{Scenario, wait_served},
};

/// Runs the rest of its arguments where nothing can be written to, least of all the cgroups in its
/// first one.
const CONTAINER: &str = r#"
set -e
mount --make-rprivate /
for path in / "$1"; do
    mount --bind "$path" "$path"
    mount -o remount,bind,ro "$path"
done
shift
! touch /root/written 2>/dev/null
exec setpriv --no-new-privs --inh-caps=-all --bounding-set \
    -all,+bpf,+net_admin,+net_bind_service,+sys_admin,+sys_ptrace "$@"
"#;

#[test]
fn an_agent_in_a_container_serves_pods() {
    needs_privileges!();
    let cgroups = cgroup::mount_point().expect("a cgroup2 mount");
    let cgroups = cgroups.to_str().expect("a path of text");
    let contained = [
        "unshare", "--mount", "--cgroup", "sh", "-c", CONTAINER, "sh", cgroups,
    ];
    let scene = Scenario::run(Node::new(), EksAuth::start(), |agent| {
        agent.set("--datapath", "auto").through(contained)
    });
    for (number, arguments) in [&[][..], &["--dst", "[fd00:ec2::23]:80"]]
        .iter()
        .enumerate()
    {
        let pod = scene.pod(&format!("web-{number}")).start();
        wait_served(&pod, arguments.iter().copied());
    }
}
