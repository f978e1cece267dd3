//! Service meshes and other packet filters in pods: which of them stand between a pod and its
//! credentials.
//!
//! Each pod has the rules that one mesh sets up, and a proxy that swallows what these send to it. A
//! real proxy passes it on, if it is there already, still there, and configured to; so what reaches
//! the agent without it is what can be relied on. `docs/meshes.md` has the table.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

mod rules;

use podcreds_tests::{
    needs_privileges,
    pod::{Client, Pod},
    scenario::{Scenario, wait_served},
};

use rules::{Mesh, Place, meshes};

const IPV4: &str = "169.254.170.23:80";
const IPV6: &str = "[fd00:ec2::23]:80";
/// What a proxy swallows takes as long as the client waits.
const PATIENCE_MS: &str = "700";

const DOCUMENT: &str = include_str!("../../../docs/meshes.md");

/// A pod in a mesh, and its proxy.
struct Member {
    mesh: Mesh,
    pod: Pod,
    _proxy: Client,
}

impl Member {
    /// Starts a pod as a mesh does: first the proxy and the rules, then the application.
    fn start(scene: &Scenario, number: usize, mesh: Mesh) -> Self {
        let pod = scene.pod(mesh.id).start();
        let (from, to) = mesh.ports;
        let mut proxy = pod.spawn(["bind-all", "--from", from, "--to", to]);
        proxy.line();
        match &mesh.place {
            Place::Pod => pod.filter(&mesh.rules),
            Place::Host => {
                let network = scene.node.network().unwrap();
                network.filter(&mesh.rules.replace("VETH", &format!("pod{number}")));
            }
        }
        pod.add_container();
        Self {
            mesh,
            pod,
            _proxy: proxy,
        }
    }

    /// Checks that the pod is served at an address, or is not.
    #[track_caller]
    fn check(&self, destination: &str, is_served: bool) {
        if is_served {
            wait_served(&self.pod, ["--dst", destination]);
            return;
        }
        let answer = (self.pod).run(["get", "--dst", destination, "--timeout-ms", PATIENCE_MS]);
        let id = self.mesh.id;
        assert!(answer["status"].is_null(), "{id}, {destination}: {answer}");
    }
}

fn start(datapath: &str) -> (Scenario, Vec<Member>) {
    let scene = Scenario::on_network(datapath, []);
    let start = |(at, mesh)| Member::start(&scene, at + 1, mesh);
    let members = meshes().into_iter().enumerate().map(start).collect();
    (scene, members)
}

/// The agent listens where AWS's does: whatever passes here reaches that one too.
#[test]
fn what_passes_directly_is_as_documented() {
    needs_privileges!();
    let (_scene, members) = start("node");
    for member in &members {
        let (ipv4, ipv6) = member.mesh.direct;
        member.check(IPV4, ipv4);
        member.check(IPV6, ipv6);
    }
}

#[test]
fn no_mesh_stands_between_a_pod_and_its_own_listener() {
    needs_privileges!();
    let (scene, members) = start("ebpf");
    for member in &members {
        member.check(IPV4, true);
        member.check(IPV6, true);
    }
    let metrics = scene.agent.metrics();
    assert_eq!(metrics.sum("podcreds_unreachable_listeners", &[]), 0.0);
}

#[test]
fn the_document_has_each_row() {
    let cell = |is_served| {
        if is_served {
            "yes"
        } else {
            "only through the proxy, or not"
        }
    };
    for Mesh { name, direct, .. } in meshes() {
        let (ipv4, ipv6) = (cell(direct.0), cell(direct.1));
        let row = format!("| {name} | {ipv4} | {ipv6} | yes | yes |");
        assert!(
            DOCUMENT.contains(&row),
            "docs/meshes.md lacks this row:\n{row}"
        );
    }
}
