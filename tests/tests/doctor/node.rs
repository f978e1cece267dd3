//! Faults of a node.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    time::Duration,
};

use aya::{
    Ebpf,
    programs::{CgroupAttachMode, CgroupSockAddr},
};
use podcreds_tests::{between::Tls, binary, needs_privileges, pod::cgroup, program};

use crate::scene::Scene;

/// The node path's address, at which AWS's agent listens too.
const OFFICIAL: &str = "169.254.170.23:80";

#[test]
fn a_healthy_node_is_all_green() {
    needs_privileges!();
    let mut scene = Scene::new();
    let _agent = scene.agent();
    let (_pod, _app) = scene.pod(&[]);
    scene.examine().assert_green();
}

#[test]
fn a_node_without_an_agent_is_looked_at_too() {
    needs_privileges!();
    let scene = Scene::new();
    let found = scene.examine();
    found.assert("agent", "warn", "no agent answers", "--probe-port");
    found.assert("programs", "pass", "redirect a connect", "");
    found.assert("signed-call", "pass", "accepts the node's signature", "");
}

#[test]
fn an_agent_that_does_not_redirect_is_found() {
    needs_privileges!();
    let mut scene = Scene::new();
    let agent = scene.agent();
    // Pods that are elsewhere it redirects as little.
    let mount = cgroup::mount_point().unwrap();
    let name = scene
        .node
        .cgroup()
        .file_name()
        .unwrap()
        .display()
        .to_string();
    let beside = mount.join(name + ".beside");
    fs::create_dir(&beside).unwrap();
    scene.set("--cgroup-root", beside.to_str().unwrap());
    let found = scene.examine();
    cgroup::remove_tree(&beside);
    drop(agent);
    found.assert(
        "redirect",
        "fail",
        "was not redirected",
        "restart the agent",
    );
}

#[test]
fn no_way_to_eks_auth_is_found_at_its_part() {
    needs_privileges!();
    let mut scene = Scene::new();
    scene.set("--endpoint", "http://127.0.0.1:1");
    let found = scene.examine();
    found.assert("eks-auth", "fail", "connecting to 127.0.0.1:1", "TCP 443");
    scene.set("--endpoint", "https://eks-auth.invalid");
    let found = scene.examine();
    found.assert("eks-auth", "fail", "looking up eks-auth.invalid", "DNS");
    let eks_auth = scene.eks_auth.address();
    let tls = scene
        .node
        .enter(|| Tls::start("other.invalid", eks_auth, Duration::ZERO));
    scene.set(
        "--endpoint",
        &format!("https://localhost:{}", tls.address().port()),
    );
    let bundle = tls.bundle().display().to_string();
    scene.environment.insert("AWS_CA_BUNDLE", bundle);
    let found = scene.examine();
    found.assert(
        "eks-auth",
        "fail",
        "the TLS handshake with localhost",
        "--endpoint",
    );
    scene.environment.remove("AWS_CA_BUNDLE");
    let found = scene.examine();
    found.assert("eks-auth", "fail", "UnknownIssuer", "AWS_CA_BUNDLE");
    scene
        .environment
        .insert("HTTPS_PROXY", "http://127.0.0.1:1".to_owned());
    scene.set("--endpoint", "https://eks-auth.invalid");
    let found = scene.examine();
    found.assert("eks-auth", "fail", "HTTPS_PROXY", "TCP 443");
}

#[test]
fn a_signature_that_eks_auth_refuses_and_a_wrong_cluster_are_found() {
    needs_privileges!();
    let mut scene = Scene::new();
    scene.set("--cluster-name", "other");
    let found = scene.examine();
    found.assert(
        "signed-call",
        "fail",
        "does not know the cluster other",
        "--cluster-name",
    );
    scene
        .environment
        .insert("AWS_SECRET_ACCESS_KEY", "wrong".to_owned());
    let found = scene.examine();
    let action = "eks-auth:AssumeRoleForPodIdentity";
    found.assert("signed-call", "fail", "this node's own credentials", action);
}

#[test]
fn a_clock_that_is_wrong_is_found() {
    needs_privileges!();
    let scene = Scene::new();
    scene.eks_auth.set_clock_ahead(100);
    scene
        .examine()
        .assert("clock", "warn", "s behind", "chrony");
    scene.eks_auth.set_clock_ahead(-3600);
    scene
        .examine()
        .assert("clock", "fail", "signatures are refused", "chrony");
}

#[test]
fn a_node_without_region_credentials_or_metadata_is_found() {
    needs_privileges!();
    let mut scene = Scene::new();
    // It takes connections, and answers none.
    let silent = scene
        .node
        .enter(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let url = format!("http://{}", silent.local_addr().unwrap());
    scene
        .environment
        .insert("AWS_EC2_METADATA_SERVICE_ENDPOINT", url);
    scene
        .examine()
        .assert("imds", "warn", "does not answer", "hop-limit 2");
    scene
        .environment
        .insert("AWS_EC2_METADATA_DISABLED", "true".to_owned());
    scene
        .environment
        .retain(|name, _| !name.starts_with("AWS_ACCESS"));
    scene
        .examine()
        .assert("credentials", "fail", "no AWS credentials", "role");
    scene.environment.remove("AWS_REGION");
    scene
        .examine()
        .assert("region", "fail", "names a region", "AWS_REGION");
}

#[test]
fn other_programs_at_the_port_and_missing_addresses_are_found() {
    needs_privileges!();
    let scene = Scene::new();
    let network = scene.node.network().unwrap().clone();
    let at: SocketAddr = OFFICIAL.parse().unwrap();
    let other = network.enter(|| TcpListener::bind(at).unwrap());
    scene
        .examine()
        .assert("port", "fail", "is taken by", "stop that program");
    drop(other);
    let folder = tempfile::tempdir().unwrap();
    let official = folder.path().join("eks-pod-identity-agent");
    program::copy(&binary::pod_client(), &official);
    let mut command = network.join().command(&official);
    let mut official = command
        .args(["bind-all", "--from", "80", "--to", "80"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    podcreds_tests::wait::until("AWS's agent listens", || {
        network.enter(|| std::net::TcpStream::connect(at).is_ok())
    });
    let found = scene.examine();
    let _ = official.kill();
    let _ = official.wait();
    found.assert("port", "fail", "AWS's agent", "add-on");
    network.ip("address del 169.254.170.23/32 dev pod-id-link0");
    scene
        .examine()
        .assert("addresses", "warn", "169.254.170.23", "podcreds initialize");
}

/// The agent's own programs under another name of the same length, taken out of its binary.
fn programs_of_a_stranger() -> Vec<u8> {
    /// An ELF file for the kernel's machine.
    const IDENTITY: &[u8] = b"\x7fELF\x02\x01\x01";
    const MACHINE: [u8; 2] = [0xf7, 0x00];
    let binary = fs::read(binary::podcreds()).unwrap();
    let is_object = |at: &usize| {
        binary[*at..].starts_with(IDENTITY) && binary.get(at + 18..at + 20) == Some(&MACHINE[..])
    };
    let at = (0..binary.len()).find(is_object).unwrap();
    let mut object = binary[at..(at + 1024 * 1024).min(binary.len())].to_vec();
    for at in 0..object.len() {
        if object[at..].starts_with(b"podcreds_connect4") {
            object[at..at + 8].copy_from_slice(b"stranger");
        }
    }
    object
}

#[test]
fn a_program_of_an_unknown_owner_is_found() {
    needs_privileges!();
    let scene = Scene::new();
    let mut object = Ebpf::load(&programs_of_a_stranger()).unwrap();
    let program = object.program_mut("stranger_connect4").unwrap();
    let program: &mut CgroupSockAddr = program.try_into().unwrap();
    program.load().unwrap();
    let root = File::open(scene.node.cgroup()).unwrap();
    let _link = program.attach(root, CgroupAttachMode::Single).unwrap();
    let found = scene.examine();
    found.assert("hooks", "warn", "stranger_connec", "bpftool prog show");
    found.assert("hooks", "warn", "held by doctor", "connect");
}

#[test]
fn a_handover_folder_that_others_can_write_to_is_found() {
    needs_privileges!();
    let mut scene = Scene::new();
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    scene.set("--handover-dir", folder.path().to_str().unwrap());
    scene
        .examine()
        .assert("handover", "fail", "can write to it", "belongs to root");
}

#[test]
fn missing_capabilities_are_named() {
    needs_privileges!();
    let mut scene = Scene::new();
    let wrapper = ["setpriv", "--bounding-set", "-bpf"];
    scene.wrapper = wrapper.map(str::to_owned).to_vec();
    let found = scene.examine();
    found.assert("capabilities", "fail", "CAP_BPF", "give the container");
}

#[test]
fn keys_that_cannot_be_had_are_found() {
    needs_privileges!();
    let mut scene = Scene::new();
    scene.set("--jwks-url", "http://127.0.0.1:1/openid/v1/jwks");
    scene
        .examine()
        .assert("keys", "warn", "127.0.0.1:1", "--jwks-url");
}
