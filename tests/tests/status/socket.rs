//! Who may ask, and where.

use std::{
    fs::{self, Permissions},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixListener,
    },
    path::Path,
    process::{Command, Output},
};

use nix::sys::signal::Signal;
use podcreds_tests::{agent::Agent, binary, needs_privileges};

use crate::scene::{Scene, command};

#[test]
fn only_root_is_answered() {
    needs_privileges!();
    let scene = Scene::new();
    let _agent = scene.agent().start();
    let nobody = |arguments: &[&str]| {
        let ids = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        let mut command = Command::new("setpriv");
        command.args(ids).arg(binary::podcreds()).args(arguments);
        command.arg("--admin-dir").arg(scene.folder());
        command.output().unwrap()
    };
    let socket = scene.sockets().remove(0);
    assert_eq!(fs::metadata(&socket).unwrap().mode() & 0o777, 0o600);
    let output = nobody(&["status"]);
    assert_eq!(output.status.code(), Some(77), "{output:?}");
    // Also where somebody has opened the folder and the socket to all.
    fs::set_permissions(scene.folder(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
    for arguments in [&["status"][..], &["log-level", "trace"]] {
        let output = nobody(arguments);
        assert_eq!(output.status.code(), Some(77), "{output:?}");
        assert!(output.stdout.is_empty());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("run this as root"), "{said}");
    }
    assert_eq!(scene.ask(&["log-level"]), "info\n");
}

#[test]
fn a_command_logs_which_agents_it_asks_where_that_is_wanted() {
    needs_privileges!();
    let scene = Scene::new();
    let _agent = scene.agent().start();
    let socket = scene.sockets()[0].to_str().unwrap().to_owned();
    let said = |arguments: &[&str]| {
        let output = scene.run(arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(said(&["status"]), "");
    let json = said(&["log-level", "-v", "debug"]);
    assert!(json.starts_with('{') && json.contains(&socket), "{json}");
    let text = said(&["status", "-v", "debug", "--log-format", "text"]);
    assert!(!text.contains('{') && text.contains(&socket), "{text}");
}

#[test]
fn what_a_killed_agent_left_behind_does_no_harm() {
    needs_privileges!();
    let scene = Scene::new();
    let mut first = scene.agent().start();
    first.signal(Signal::SIGKILL);
    first.wait_exit();
    let left = scene.sockets();
    assert_eq!(left.len(), 1);
    let output = scene.run(&["status"]);
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("no agent answers in") && said.contains("kubectl exec"),
        "{said}"
    );
    let next = scene.agent().start();
    assert_eq!(scene.agents()[0]["agent"]["process"], next.id());
    assert!(!left[0].exists());
}

#[test]
fn an_agent_without_a_folder_says_so_and_one_with_a_bad_one_ends() {
    needs_privileges!();
    let scene = Scene::new();
    let alone = Agent::on(&scene.node, &scene.eks_auth).start();
    alone.logs().wait_for("there is no place to ask", |line| {
        line.message.contains("there is no --admin-dir")
    });
    drop(alone);
    let file = scene.folder().join("file");
    drop(UnixListener::bind(&file).unwrap());
    let named = ["--admin-dir", file.to_str().unwrap()];
    let mut agent = Agent::on(&scene.node, &scene.eks_auth).args(named).spawn();
    assert_eq!(agent.wait_exit().code(), Some(64));
    let own = scene.folder().join("own");
    let agent = Agent::on(&scene.node, &scene.eks_auth);
    let _agent = agent.args(["--admin-dir", own.to_str().unwrap()]).start();
    assert!(asked_at(&own).status.success());
}

fn asked_at(folder: &Path) -> Output {
    command(folder, &["status"]).output().unwrap()
}
