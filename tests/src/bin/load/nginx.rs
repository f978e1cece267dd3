//! nginx with one worker and one static file, in a pod's network.

use std::{
    fs,
    path::Path,
    process::{Child, Stdio},
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use podcreds_tests::{
    node::Node,
    pod::{Join, Pod},
    wait::{DEADLINE, poll},
};
use tempfile::TempDir;

/// Where it listens, in the pod's network.
pub(crate) const ADDRESS: &str = "127.0.0.1:8080";

/// The path of its file: the same as the agent's, so that requests are the same too.
const FILE: &str = "v1/credentials";

/// A running nginx. It is stopped when this is dropped.
pub(crate) struct Nginx {
    master: Child,
    worker: u32,
    _folder: TempDir,
}

impl Nginx {
    /// Starts the program, with a file of these contents, and waits until it serves.
    pub(crate) fn start(program: &Path, node: &Node, pod: &Pod, contents: &str) -> Result<Self> {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let file = folder.path().join(FILE);
        fs::create_dir_all(file.parent().unwrap_or(folder.path()))?;
        fs::write(&file, contents)?;
        let configuration = folder.path().join("nginx.conf");
        fs::write(&configuration, self::configuration(folder.path()))?;
        // Its sockets are in the pod's network, its processes are on the node but not in the pod.
        let cgroup = node.cgroup().join("nginx");
        fs::create_dir_all(&cgroup).with_context(|| format!("cannot make {}", cgroup.display()))?;
        let join = Join::nothing().cgroup(&cgroup).network(&pod.network());
        let mut command = join.command(program);
        let mut master = command
            .arg("-e")
            .arg(folder.path().join("error.log"))
            .arg("-c")
            .arg(&configuration)
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start nginx")?;
        match poll(DEADLINE, || worker_of(master.id()).filter(|_| serves(pod))) {
            Some(worker) => Ok(Self {
                master,
                worker,
                _folder: folder,
            }),
            None => {
                // It may have ended already.
                let _ = master.kill();
                let _ = master.wait();
                let log = fs::read_to_string(folder.path().join("error.log"));
                anyhow::bail!("nginx does not serve: {}", log.unwrap_or_default())
            }
        }
    }

    /// The process that does the work.
    pub(crate) fn worker(&self) -> u32 {
        self.worker
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // A master that is killed would leave its worker behind.
        let _ = kill(
            Pid::from_raw(self.master.id().cast_signed()),
            Signal::SIGTERM,
        );
        let _ = self.master.wait();
    }
}

fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "daemon off;
user root;
worker_processes 1;
pid {folder}/nginx.pid;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    default_type application/json;
    keepalive_requests 100000000;
    sendfile on;
    tcp_nopush on;
    client_body_temp_path {folder}/client;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{ listen {ADDRESS}; root {folder}; }}
}}
"
    )
}

fn worker_of(master: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

fn serves(pod: &Pod) -> bool {
    pod.run(["get", "--dst", ADDRESS])["status"] == 200
}
