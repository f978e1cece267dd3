//! The node from outside: making its namespaces, entering them, and taking it down.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{certificates, hierarchies::NodeCgroups, init, layout::Layout};
use crate::{privileged, sdk, wait::poll};

/// How long the kernel may take to end a whole node.
const END: Duration = Duration::from_secs(30);
/// The namespaces of a node, as `unshare` and `nsenter` name them.
const NAMESPACES: [&str; 4] = ["--net", "--mount", "--pid", "--cgroup"];

/// This checkout's node, running or not.
pub struct Host {
    layout: Layout,
}

impl Host {
    /// Looks at it.
    ///
    /// # Errors
    ///
    /// When its folders cannot be made.
    pub fn of_checkout() -> Result<Self> {
        let layout = Layout::of_checkout()?;
        Ok(Self { layout })
    }

    /// Where its files are.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        self.node_pid().is_some()
    }

    /// Starts it, and waits until it is up. `report` is told what has been done. A node that is
    /// `bound` ends with this process.
    ///
    /// # Errors
    ///
    /// What did not come up.
    pub fn up(&self, bound: bool, mut report: impl FnMut(&str)) -> Result<()> {
        privileged::check().map_err(anyhow::Error::msg)?;
        ensure!(
            !self.is_up(),
            "the cluster is up: `cargo xtask cluster down` ends it"
        );
        self.clean();
        for log in fs::read_dir(self.layout.logs())?.flatten() {
            fs::remove_file(log.path())?;
        }
        certificates::make(&self.layout)?;
        self.make_mount_points()?;
        let mut child = self.spawn(bound)?;
        let stdout = child.stdout.take().context("the node's output")?;
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if !self.layout.node_pid().exists() {
                fs::write(self.layout.node_pid(), only_child(child.id())?)?;
            }
            if line == init::UP {
                return Ok(());
            }
            report(&line);
        }
        let log = self.layout.logs().join("init.log");
        bail!(
            fs::read_to_string(log)
                .unwrap_or_default()
                .trim()
                .to_owned()
        )
    }

    fn spawn(&self, bound: bool) -> Result<Child> {
        let own = env::current_exe().context("the path of this program")?;
        let mut command = if bound {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL"]).arg(own);
            command
        } else {
            Command::new(own)
        };
        let log = fs::File::create(self.layout.logs().join("init.log"))?;
        sdk::remove_settings(&mut command)
            .arg("make-node")
            .current_dir("/")
            .env("PATH", self.layout.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            // Ctrl-C ends the process that waits for the node, and not the node.
            .process_group(0)
            .spawn()
            .context("cannot start the node")
    }

    /// Becomes the node's first process, in namespaces of its own. Only `up` calls this, in a
    /// process for the purpose.
    ///
    /// # Errors
    ///
    /// When the machine does not allow it.
    pub fn make_node(&self) -> Result<()> {
        NodeCgroups::of(&self.layout)?.make()?;
        let own = env::current_exe().context("the path of this program")?;
        let failed = Command::new("unshare")
            .args(NAMESPACES)
            .args(["--fork", "--kill-child", "--mount-proc"])
            .args(["--propagation", "private", "--"])
            .arg(own)
            .arg("init")
            .exec();
        Err(failed).context("cannot start unshare")
    }

    /// Becomes a program in the node.
    ///
    /// # Errors
    ///
    /// When there is no node, or no such program.
    pub fn enter(&self, program: &str, arguments: &[String]) -> Result<()> {
        let pid = self
            .node_pid()
            .context("there is no cluster: `cargo xtask cluster up` makes one")?;
        NodeCgroups::of(&self.layout)?.join()?;
        let mut chdir = std::ffi::OsString::from("--chdir=");
        chdir.push(env::current_dir().context("the current folder")?);
        let mut command = Command::new("nsenter");
        let failed = sdk::remove_settings(&mut command)
            .arg("--target")
            .arg(pid.to_string())
            .args(NAMESPACES)
            .args(["--", "env"])
            .arg(chdir)
            .arg(program)
            .args(arguments)
            .env("PATH", self.layout.path())
            .env("KUBECONFIG", self.layout.kubeconfig("admin"))
            .exec();
        Err(failed).context("cannot start nsenter")
    }

    /// Runs a program in the node, and says whether it succeeded.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn run(&self, program: &str, arguments: &[String]) -> Result<bool> {
        let own = env::current_exe().context("the path of this program")?;
        let status = Command::new(own)
            .args(["run", program])
            .args(arguments)
            .status()
            .context("cannot start a program in the node")?;
        Ok(status.success())
    }

    /// Ends it, and removes all that it has left on the machine.
    ///
    /// # Errors
    ///
    /// What is left.
    pub fn down(&self) -> Result<()> {
        if let Some(pid) = self.node_pid() {
            kill(pid, Signal::SIGKILL).context("cannot end the node")?;
            let gone = poll(END, || self.node_pid().is_none().then_some(()));
            ensure!(
                gone.is_some(),
                "the node's first process {pid} does not end"
            );
        }
        self.clean();
        let left = self.left()?;
        ensure!(left.is_empty(), "left behind: {}", left.join(", "));
        Ok(())
    }

    /// Removes what is left of a node that has ended.
    fn clean(&self) {
        if let Ok(cgroups) = NodeCgroups::of(&self.layout) {
            cgroups.remove();
        }
        let _ = fs::remove_file(self.layout.node_pid());
        let made = fs::read_to_string(self.made()).unwrap_or_default();
        for folder in made.lines() {
            // What is not empty is somebody else's by now.
            let _ = fs::remove_dir(folder);
        }
        let _ = fs::remove_file(self.made());
    }

    /// What there is of a node on the machine, none of which should be after its end.
    fn left(&self) -> Result<Vec<String>> {
        let mut left: Vec<_> = NodeCgroups::of(&self.layout)?
            .present()
            .iter()
            .map(|cgroup| cgroup.display().to_string())
            .collect();
        let mounts = fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?;
        let folder = self.layout.folder().display().to_string();
        left.extend(
            mounts
                .lines()
                .filter(|mount| mount.contains(&folder))
                .map(str::to_owned),
        );
        Ok(left)
    }

    /// Makes the folders that the node mounts over, and remembers those that were not there.
    fn make_mount_points(&self) -> Result<()> {
        let mut made = String::new();
        for folder in init::mount_points(&self.layout) {
            if !folder.exists() {
                made += &format!("{}\n", folder.display());
                fs::write(self.made(), &made)?;
                fs::create_dir_all(&folder)
                    .with_context(|| format!("cannot make {}", folder.display()))?;
            }
        }
        Ok(())
    }

    /// The list of folders that were made on the machine.
    fn made(&self) -> PathBuf {
        self.layout.folder().join("made.txt")
    }

    /// The node's first process, as the machine sees it, if it runs.
    fn node_pid(&self) -> Option<Pid> {
        let pid: i32 = fs::read_to_string(self.layout.node_pid())
            .ok()?
            .trim()
            .parse()
            .ok()?;
        is_init(pid).then(|| Pid::from_raw(pid))
    }
}

/// The process that `unshare` has started and waits for.
fn only_child(parent: u32) -> Result<String> {
    let file = format!("/proc/{parent}/task/{parent}/children");
    let children = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    Ok(children.trim().to_owned())
}

/// Whether a process is the first one of a PID namespace below this one: it may be another by now.
fn is_init(pid: i32) -> bool {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"));
    let status = status.unwrap_or_default();
    let ids = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .map(|ids| ids.split_whitespace().collect::<Vec<_>>());
    let dead = status.contains("\nState:\tZ");
    !dead && ids.is_some_and(|ids| ids.len() > 1 && ids.last() == Some(&"1"))
}
