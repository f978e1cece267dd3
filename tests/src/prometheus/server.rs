//! A Prometheus that scrapes agents, and has the rules of `deploy/prometheus`.

use std::{
    fs,
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Stdio},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    agent::Agent,
    http::client::{Answer, read_answer},
    node::Node,
    pod::Join,
    wait::{self, until},
};

use super::{all, program};

/// How long a test waits for an alert.
const DEADLINE: Duration = Duration::from_secs(120);

/// A running Prometheus. It ends when this is dropped.
pub struct Prometheus {
    child: Child,
    folder: TempDir,
    address: SocketAddr,
}

impl Prometheus {
    /// Starts one in a cgroup of `node`, which ends it if the test cannot. It has nothing to scrape
    /// yet, and is so many times [in a hurry](super::RuleFile::hurried).
    ///
    /// # Panics
    ///
    /// When there is none, or it does not answer.
    pub fn start(node: &Node, haste: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder for Prometheus");
        for rule in all() {
            fs::write(folder.path().join(&rule.name), rule.hurried(haste).text).expect("rules");
        }
        fs::write(folder.path().join("targets.json"), "[]").expect("targets");
        fs::write(folder.path().join("prometheus.yml"), CONFIG).expect("a configuration");
        // It takes no port of the kernel's choice.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr());
        let address = port.expect("a free port");
        let cgroup = node.cgroup().join("prometheus");
        fs::create_dir_all(&cgroup).expect("a cgroup for Prometheus");
        let log = fs::File::create(folder.path().join("log")).expect("a log");
        let child = Join::nothing()
            .cgroup(&cgroup)
            .command(program("prometheus").expect("Prometheus"))
            .current_dir(folder.path())
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            // What is older is gone.
            .arg("--query.lookback-delta=3s")
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("Prometheus starts");
        let prometheus = Self {
            child,
            folder,
            address,
        };
        until("Prometheus is ready", || {
            prometheus
                .get("/-/ready")
                .is_ok_and(|answer| answer.status == 200)
        });
        prometheus
    }

    /// Where it answers.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Has it scrape these agents and no others, each as the node of this name.
    ///
    /// # Panics
    ///
    /// When it cannot be told.
    pub fn scrape<'a>(&self, agents: impl IntoIterator<Item = (&'a str, &'a Agent)>) {
        let target = |(node, agent): (&str, &Agent)| {
            json!({
                "targets": [agent.metrics_address().to_string()],
                "labels": { "cluster": "test", "namespace": "kube-system", "node": node, "instance": node },
            })
        };
        let targets: Vec<_> = agents.into_iter().map(target).collect();
        // Whole or not at all.
        let [next, file] = ["next.json", "targets.json"].map(|name| self.folder.path().join(name));
        fs::write(&next, Value::from(targets).to_string()).expect("targets");
        fs::rename(&next, &file).expect("targets");
    }

    /// The number of series with a value that a query has.
    ///
    /// # Panics
    ///
    /// When it is no query.
    pub fn count(&self, query: &str) -> f64 {
        let query = format!("count(({query}) >= -Inf)");
        let answer = self.query(&query);
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        let value = answer["data"]["result"][0]["value"][1].as_str();
        value.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// Waits until these alerts fire, all at once.
    ///
    /// # Panics
    ///
    /// When they do not in time.
    pub fn wait_firing<'a>(&self, alerts: impl IntoIterator<Item = &'a str> + Clone) {
        self.wait_alerts(alerts, true);
    }

    /// Waits until none of these alerts fires.
    ///
    /// # Panics
    ///
    /// When one still does after some time.
    pub fn wait_clear<'a>(&self, alerts: impl IntoIterator<Item = &'a str> + Clone) {
        self.wait_alerts(alerts, false);
    }

    /// Waits until no alert fires or is about to.
    ///
    /// # Panics
    ///
    /// When one still does after some time.
    pub fn wait_quiet(&self) {
        let is_quiet = || self.alerts().as_array().is_some_and(Vec::is_empty);
        let met = wait::poll(DEADLINE, || is_quiet().then_some(()));
        assert!(met.is_some(), "something is wrong: {}", self.alerts());
    }

    fn wait_alerts<'a>(&self, alerts: impl IntoIterator<Item = &'a str> + Clone, wanted: bool) {
        let fires = |alert: &&str| {
            self.count(&format!(
                "ALERTS{{alertname=\"{alert}\", alertstate=\"firing\"}}"
            )) > 0.0
        };
        let mut others = Vec::new();
        let met = wait::poll(DEADLINE, || {
            others = alerts
                .clone()
                .into_iter()
                .filter(|alert| fires(alert) != wanted)
                .collect();
            thread::sleep(Duration::from_millis(200));
            others.is_empty().then_some(())
        });
        let what = if wanted {
            "does not fire"
        } else {
            "does not clear"
        };
        assert!(met.is_some(), "{what}: {others:?}; {}", self.alerts());
    }

    /// Every alert that fires or is about to, with what it says.
    ///
    /// # Panics
    ///
    /// When it does not answer.
    pub fn alerts(&self) -> Value {
        let answer = self
            .get("/api/v1/alerts")
            .ok()
            .and_then(|answer| answer.json());
        answer.expect("alerts")["data"]["alerts"].take()
    }

    fn query(&self, query: &str) -> Value {
        let encode = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        };
        let query: String = query.bytes().map(encode).collect();
        let answer = self.get(&format!("/api/v1/query?query={query}"));
        answer
            .ok()
            .and_then(|answer| answer.json())
            .expect("an answer of Prometheus")
    }

    /// In the old version of HTTP, which has no chunks.
    fn get(&self, path: &str) -> io::Result<Answer> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        read_answer(&mut stream)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Both fail only for a process that has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(10)..];
            eprintln!("---- Prometheus' last log lines ----\n{}", last.join("\n"));
        }
    }
}

const CONFIG: &str = "\
global: { scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms }
rule_files: ['*.yaml']
scrape_configs:
  - job_name: podcreds
    file_sd_configs: [{ files: [targets.json], refresh_interval: 1s }]
";
