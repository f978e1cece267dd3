//! A node with all that a doctor looks at.

use std::{
    collections::HashMap,
    fs,
    process::{Command, Output},
};

use podcreds_tests::{
    agent::Agent,
    aws::{NodeCredentials, REGION},
    binary,
    eks_auth::{CLUSTER, EksAuth},
    imds::Imds,
    jwks::Jwks,
    node::Node,
    pod::{Pod, cgroup},
    scenario::{ACCOUNT, ROLE},
    token::Issuer,
};
use serde_json::Value;

/// A node, what it needs from AWS and from its cluster, and the doctor's command line.
pub(crate) struct Scene {
    pub(crate) node: Node,
    pub(crate) eks_auth: EksAuth,
    _imds: Imds,
    _jwks: Jwks,
    pub(crate) flags: Vec<(&'static str, String)>,
    pub(crate) environment: HashMap<&'static str, String>,
    /// What starts it.
    pub(crate) wrapper: Vec<String>,
}

/// What it found.
pub(crate) struct Found {
    report: Value,
    pub(crate) code: Option<i32>,
    said: String,
}

impl Scene {
    /// A node on which nothing is wrong, and no agent runs.
    pub(crate) fn new() -> Self {
        let node = Node::with_network();
        let (eks_auth, imds, jwks) = node.enter(|| {
            let imds = Imds::start(NodeCredentials::default());
            (EksAuth::start(), imds, Jwks::start(&Issuer::cluster()))
        });
        eks_auth.associate(ACCOUNT.0, ACCOUNT.1, ROLE);
        let flags = vec![
            ("--cluster-name", CLUSTER.to_owned()),
            ("--endpoint", eks_auth.url()),
            ("--jwks-url", jwks.url()),
            ("--cgroup-root", node.cgroup().display().to_string()),
            ("--handover-dir", "none".to_owned()),
            ("--output", "json".to_owned()),
        ];
        let mut environment: HashMap<_, _> = NodeCredentials::default().env();
        environment.insert("AWS_REGION", REGION.to_owned());
        environment.insert("AWS_EC2_METADATA_SERVICE_ENDPOINT", imds.url());
        Self {
            node,
            eks_auth,
            _imds: imds,
            _jwks: jwks,
            flags,
            environment,
            wrapper: Vec::new(),
        }
    }

    /// Starts an agent on both paths, of which the doctor knows the ports.
    pub(crate) fn agent(&mut self) -> Agent {
        let agent = Agent::on(&self.node, &self.eks_auth)
            .set("--datapath", "auto")
            .start();
        let metrics = agent.metrics_address().port().to_string();
        self.flags.push(("--metrics-port", metrics));
        let probes = agent.probe_address().port().to_string();
        self.flags.push(("--probe-port", probes));
        agent
    }

    /// Changes a flag.
    pub(crate) fn set(&mut self, flag: &'static str, value: &str) {
        self.flags.retain(|(held, _)| *held != flag);
        self.flags.push((flag, value.to_owned()));
    }

    /// Starts a pod with an application that sleeps, with these variables besides EKS's own.
    pub(crate) fn pod(&self, variables: &[(&str, &str)]) -> (Pod, Sleeper) {
        self.pod_with_app(&["sleep"], variables)
    }

    /// Starts a pod with an application that becomes `sleep` by these words.
    pub(crate) fn pod_with_app(
        &self,
        words: &[&str],
        variables: &[(&str, &str)],
    ) -> (Pod, Sleeper) {
        let pod = self.node.pod("web").account(ACCOUNT.0, ACCOUNT.1).start();
        let sleeper = Sleeper::in_pod(&pod, words, variables);
        (pod, sleeper)
    }

    /// Has the doctor look at the node.
    pub(crate) fn examine(&self) -> Found {
        self.run(&[])
    }

    /// Has it look at a pod.
    pub(crate) fn examine_pod(&self, name: &str) -> Found {
        self.run(&["pod", name])
    }

    fn run(&self, what: &[&str]) -> Found {
        let found = Found::read(&self.command(what).output().unwrap());
        self.assert_nothing_is_left();
        found
    }

    /// The doctor, who is to look at this.
    pub(crate) fn command(&self, what: &[&str]) -> Command {
        let join = self.node.network().unwrap().join();
        let podcreds = binary::podcreds().display().to_string();
        let mut words = self.wrapper.iter().cloned().chain([podcreds]);
        let mut command = join.command(words.next().unwrap());
        command.args(words).arg("doctor").args(what);
        for (flag, value) in &self.flags {
            command.arg(format!("{flag}={value}"));
        }
        command
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap());
        command.envs(&self.environment);
        command
    }

    fn assert_nothing_is_left(&self) {
        let entries = fs::read_dir(self.node.cgroup()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let left: Vec<_> = names
            .filter(|name| name.starts_with("podcreds-doctor"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

impl Found {
    fn read(output: &Output) -> Self {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        for secret in ["secret-of-", "session-of-", "eyJ"] {
            assert!(!printed.contains(secret), "{secret} is shown: {printed}");
        }
        Self {
            report: serde_json::from_str(&printed).unwrap_or_default(),
            code: output.status.code(),
            said,
        }
    }

    fn checks(&self) -> &[Value] {
        let checks = self.report["checks"].as_array();
        checks.unwrap_or_else(|| panic!("{}", self.said))
    }

    /// Checks that all is well.
    #[track_caller]
    pub(crate) fn assert_green(&self) {
        let bad = self.checks().iter().filter(|it| it["status"] != "pass");
        let bad: Vec<_> = bad.collect();
        assert!(bad.is_empty(), "{bad:#?}");
        assert_eq!(self.code, Some(0));
    }

    /// Checks that these words are nowhere in the report.
    #[track_caller]
    pub(crate) fn assert_says_nothing_of(&self, words: &str) {
        let report = self.report.to_string();
        assert!(!report.contains(words), "{report}");
    }

    /// Checks that one check ended so, and that what was seen and the remedy have these words.
    #[track_caller]
    pub(crate) fn assert(&self, check: &str, status: &str, seen: &str, remedy: &str) {
        let matching = |it: &&Value| it["check"] == check && it["status"] == status;
        let all = || serde_json::to_string_pretty(&self.report).unwrap();
        let found = self.checks().iter().find(matching);
        let found = found.unwrap_or_else(|| panic!("{check}, {status}: {}", all()));
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        assert!(text("seen").contains(seen), "{seen}: {found}");
        assert!(text("remedy").contains(remedy), "{remedy}: {found}");
        let worst = self.report["worst"].as_str();
        assert_eq!(self.code, Some(i32::from(worst == Some("fail"))));
    }
}

/// An application in a pod. It ends when this is dropped.
pub(crate) struct Sleeper(std::process::Child);

impl Sleeper {
    fn in_pod(pod: &Pod, words: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = pod.command(words[0]);
        command.args(&words[1..]);
        for (name, value) in variables {
            match *value {
                "" => command.env_remove(name),
                value => command.env(name, value),
            };
        }
        let child = command.arg("infinity").spawn().unwrap();
        let is_there = || {
            let name = fs::read_to_string(format!("/proc/{}/comm", child.id()));
            let is_in = cgroup::processes(pod.app_cgroup()).unwrap();
            is_in.contains(&child.id()) && name.is_ok_and(|name| name == "sleep\n")
        };
        podcreds_tests::wait::until("the application runs", is_there);
        Self(child)
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
