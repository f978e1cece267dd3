//! What is logged changes while the agent runs.

use nix::sys::signal::Signal;
use podcreds_tests::{needs_privileges, wait::until};

use crate::scene::Scene;

#[test]
fn the_log_level_changes_without_a_restart() {
    needs_privileges!();
    let scene = Scene::new();
    let agent = scene.agent().start();
    let debug_lines = || {
        let lines = agent.logs().all();
        lines
            .iter()
            .filter(|line| line.raw.contains("\"DEBUG\""))
            .count()
    };
    assert_eq!(scene.ask(&["log-level"]), "info\n");
    let first = scene.served_pod("first");
    assert_eq!(debug_lines(), 0);
    assert_eq!(
        scene.ask(&["log-level", "debug"]),
        "debug (started with info)\n"
    );
    let second = scene.served_pod("second");
    until("there are debug lines", || debug_lines() > 0);
    assert_eq!(scene.ask(&["log-level", "info"]), "info\n");

    let shown = scene.ask(&["log-level", "debug", "--for", "1s"]);
    assert!(shown.starts_with("debug (back to info in "), "{shown}");
    until("it goes back by itself", || {
        scene.ask(&["log-level"]) == "info\n"
    });
    agent.signal(Signal::SIGUSR1);
    until("the signal is heard", || {
        scene.ask(&["log-level"]).starts_with("debug")
    });
    agent.signal(Signal::SIGUSR1);
    until("and once more", || scene.ask(&["log-level"]) == "info\n");

    for arguments in [
        &["log-level", "loud"][..],
        &["log-level", "info,hyper=trace"],
        &["log-level", "debug", "--for", "0"],
    ] {
        let output = scene.run(arguments);
        assert_eq!(output.status.code(), Some(64), "{output:?}");
    }
    assert_eq!(scene.ask(&["log-level"]), "info\n");
    // No crate that sees tokens has been let loose.
    let lines = agent.logs().all();
    for pod in [first, second] {
        let body = &pod.run(["get"])["body"];
        let secret = body["SecretAccessKey"].as_str().unwrap();
        assert!(lines.iter().all(|line| !line.raw.contains(secret)));
    }
}
