//! `docs/install.md`, walked there and back as its readers do: with the commands that it shows, and
//! with pods that ask all the while.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output},
};

use podcreds_tests::{
    checkout,
    cluster::{Cluster, EKS_AUTH, addon, agent},
    eks_auth::CLUSTER,
    guide::{Guide, Section, replace_word},
    privileged::can_run,
    program,
    wait::until,
};
use tempfile::TempDir;

use crate::load::Load;

/// What is not run: there is no registry, and so no image of the AWS CLI. The pods that ask stand
/// for the pod that the guide checks with.
const NOT_RUN: [&str; 3] = [
    "cargo xtask image",
    "skopeo copy",
    "kubectl -n NAMESPACE run check",
];

/// What is said to AWS about the add-on.
const AWS: &str = r#"#!/bin/sh -e
case "$1 $2" in
    "iam list-attached-role-policies" | "eks list-pod-identity-associations" | "eks describe-addon") ;;
    "eks create-addon") kubectl apply --filename "$ADDON" ;;
    "eks delete-addon") kubectl delete --filename "$ADDON" ;;
    "eks wait") kubectl -n kube-system rollout status daemonset/eks-pod-identity-agent --timeout=1m ;;
    *) echo "nothing stands for aws $*" >&2; exit 1 ;;
esac
"#;

/// Somebody who follows the guide.
struct Reader {
    folder: TempDir,
    guide: Guide,
    /// What the commands so far have set in the shell.
    variables: BTreeMap<String, String>,
}

impl Reader {
    fn new(helm: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).unwrap();
        symlink(helm, bin.join("helm")).unwrap();
        program::write(&bin.join("aws"), AWS);
        fs::write(folder.path().join("addon.yaml"), addon::manifest()).unwrap();
        symlink(checkout::file("deploy"), folder.path().join("deploy")).unwrap();
        Self {
            folder,
            guide: Guide::read("docs/install.md").unwrap(),
            variables: BTreeMap::new(),
        }
    }

    /// What the guide's capitals stand for here.
    fn fill_in(text: &str) -> String {
        let node = ["NODE", "node"];
        let values = [["CLUSTER", CLUSTER], ["REGISTRY", "localhost"], node];
        let values = values.into_iter().chain([["REGION", "eu-central-1"]]);
        values.fold(text.to_owned(), |text, [word, value]| {
            replace_word(&text, word, value)
        })
    }

    fn shell(&self, command: &str) -> Output {
        let path = env::var_os("PATH").unwrap_or_default();
        let bin = self.folder.path().join("bin");
        let path: OsString =
            env::join_paths([bin].into_iter().chain(env::split_paths(&path))).unwrap();
        Command::new("sh")
            .args(["-e", "-c", command])
            .current_dir(self.folder.path())
            .envs(&self.variables)
            .env("PATH", path)
            .env("HOME", self.folder.path())
            .env("ADDON", self.folder.path().join("addon.yaml"))
            .output()
            .unwrap()
    }

    /// Runs a command that must succeed, and returns what it prints.
    fn run(&self, command: &str) -> String {
        let Output {
            status,
            stdout,
            stderr,
        } = self.shell(command);
        let printed = String::from_utf8_lossy(&stdout).into_owned();
        let said = String::from_utf8_lossy(&stderr);
        assert!(status.success(), "{command}\n{status}\n{printed}{said}");
        eprintln!("$ {command}\n{printed}");
        printed
    }

    fn section(&self, title: &str) -> Section {
        self.guide.section(title).unwrap().clone()
    }

    /// Does what a section says.
    fn follow(&mut self, title: &str) {
        self.follow_with(title, |command| command.to_owned());
    }

    /// The same, with each command changed.
    fn follow_with(&mut self, title: &str, change: impl Fn(&str) -> String) {
        let section = self.section(title);
        for yaml in &section.yaml {
            let ours = format!("agent:\n  additionalArgs:\n    --endpoint: http://{EKS_AUTH}\n");
            let values = Self::fill_in(yaml) + &ours;
            fs::write(self.folder.path().join("values.yaml"), values).unwrap();
        }
        for command in &section.commands {
            if NOT_RUN.iter().any(|not_run| command.starts_with(not_run)) {
                continue;
            }
            let command = change(&Self::fill_in(command));
            let name = command.split_once('=').map_or("", |(name, _)| name);
            if !name.is_empty() && name.chars().all(|letter| letter.is_ascii_uppercase()) {
                let value = self.run(&format!("{command}\nprintf %s \"${name}\""));
                self.variables.insert(name.to_owned(), value);
            } else {
                self.run(&command);
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Other tests go on with what `cargo xtask cluster` has installed. What has gone already
        // cannot be removed, and if the rest fails they say so.
        self.shell("helm uninstall podcreds --namespace kube-system --wait");
        self.shell("kubectl delete --ignore-not-found --filename addon.yaml");
        let installed = agent::install();
        if let Err(why) = installed {
            eprintln!("podcreds is not back: {why:#}");
        }
    }
}

fn walk(major: &str) {
    let cluster = Cluster::alone();
    let helm = cluster.layout().helm(major);
    let is_there = if helm.is_file() {
        Ok(())
    } else {
        Err(format!(
            "Helm {major} is not installed (`cargo xtask setup` does it)"
        ))
    };
    if !can_run(is_there) {
        return;
    }
    let mut reader = Reader::new(&helm);
    reader.run("helm version --short");
    // The registry's image is the one that is there.
    reader.run(&format!(
        "ctr --namespace k8s.io images tag --force {} localhost/{}",
        agent::IMAGE,
        agent::PUBLISHED
    ));
    reader.run("kubectl -n kube-system delete daemonset,serviceaccount podcreds");
    until("podcreds is gone", || {
        let pods = cluster.api().get(&agent::pods_path());
        pods.is_ok_and(|list| list["items"].as_array().is_some_and(Vec::is_empty))
    });
    reader.run("aws eks create-addon && aws eks wait");

    let namespace = cluster.namespace("install");
    let load = Load::start(&namespace);
    reader.follow("0. What is there");
    reader.follow("1. The image into a registry of yours");
    reader.follow("2. One node");
    reader.follow("3. All nodes");
    no_check_passes_on_no_node(&mut reader);
    reader.follow("4. Without the add-on");
    reader.follow("And back");
    let (requests, longest) = load.finish();
    eprintln!(
        "the guide walked there and back with Helm {major}: {requests} requests, 0 failed, {longest} ms at most"
    );

    // For nodes that this one is not, and without Helm: it is enough that the API server takes it.
    reader.follow_with("Hybrid nodes", |command| {
        format!("{command} --dry-run=server")
    });
    reader.follow_with("Without Helm", |command| {
        command.replace("kubectl apply", "kubectl apply --dry-run=server")
    });
}

/// A selector that no node has empties the fleet, and the guide's check says so though the rollout
/// is called a success.
fn no_check_passes_on_no_node(reader: &mut Reader) {
    let commands = reader.section("3. All nodes").commands;
    let [upgrade, count, rollout] = &commands[..] else {
        panic!("{commands:?}");
    };
    let upgrade = Reader::fill_in(upgrade);
    reader.run(&format!("{upgrade} --set nodeSelector.nobody=here"));
    reader.run("kubectl -n kube-system wait daemonset/podcreds --for=jsonpath='{.status.desiredNumberScheduled}'=0");
    reader.run(rollout);
    let output = reader.shell(&count.replace("--timeout=1m", "--timeout=2s"));
    assert!(!output.status.success(), "{output:?}");
    reader.follow("3. All nodes");
}

#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn the_install_guide_leads_there_and_back_with_helm_3() {
    walk("3");
}

#[test]
#[ignore = "runs in a cluster: cargo xtask cluster test"]
fn the_install_guide_leads_there_and_back_with_helm_4() {
    walk("4");
}
