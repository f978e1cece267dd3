//! A doctor that is ended in the middle of a check.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use podcreds_tests::{needs_privileges, pod::cgroup, wait::until};

use crate::scene::Scene;

/// A folder of cgroups in which no agent redirects: there a visitor tries for seconds.
struct Beside(PathBuf);

impl Beside {
    fn of(scene: &mut Scene) -> Self {
        let mut name = scene.node.cgroup().file_name().unwrap().to_owned();
        name.push(".ended");
        let beside = cgroup::mount_point().unwrap().join(name);
        fs::create_dir(&beside).unwrap();
        scene.set("--cgroup-root", beside.to_str().unwrap());
        Self(beside)
    }

    /// The doctor's cgroup for the check that takes so long.
    fn made(&self) -> Option<PathBuf> {
        let entries = fs::read_dir(&self.0).unwrap().flatten();
        let mut paths = entries.map(|entry| entry.path());
        paths.find(|path| path.extension().is_some_and(|it| it == "redirect"))
    }

    /// Starts a doctor, and waits until its visitor is there.
    fn doctor(&self, scene: &Scene) -> Child {
        let doctor = scene.command(&[]).stdout(Stdio::null()).spawn().unwrap();
        let is_there = || {
            self.made()
                .is_some_and(|made| !processes_below(&made).is_empty())
        };
        until("the visitor is in its cgroup", is_there);
        doctor
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        cgroup::remove_tree(&self.0);
    }
}

fn processes_below(path: &Path) -> Vec<u32> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.path().is_dir());
    let below = folders.flat_map(|entry| processes_below(&entry.path()));
    let own = cgroup::processes(path).unwrap_or_default();
    own.into_iter().chain(below).collect()
}

fn send(doctor: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(doctor.id()).unwrap());
    kill(pid, signal).unwrap();
}

#[test]
fn a_doctor_that_a_signal_ends_leaves_no_cgroup_and_no_visitor() {
    needs_privileges!();
    let mut scene = Scene::new();
    let _agent = scene.agent();
    let beside = Beside::of(&mut scene);
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        let mut doctor = beside.doctor(&scene);
        send(&doctor, signal);
        doctor.wait().unwrap();
        let left: Vec<_> = fs::read_dir(&beside.0).unwrap().flatten().collect();
        let left = left.iter().filter(|entry| entry.path().is_dir());
        assert_eq!(left.count(), 0, "{signal}");
    }
}

#[test]
fn a_doctor_that_is_killed_takes_its_visitor_along_and_the_next_one_removes_its_cgroup() {
    needs_privileges!();
    let mut scene = Scene::new();
    let _agent = scene.agent();
    let beside = Beside::of(&mut scene);
    let mut doctor = beside.doctor(&scene);
    let made = beside.made().unwrap();
    send(&doctor, Signal::SIGKILL);
    doctor.wait().unwrap();
    until("the visitor has ended", || {
        processes_below(&made).is_empty()
    });
    assert!(made.exists());
    scene.command(&[]).stdout(Stdio::null()).status().unwrap();
    assert!(!made.exists());
}
