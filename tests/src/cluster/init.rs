//! The node's first process: it makes the node out of its namespaces, starts the components, and
//! starts those again that end.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::wait::{WaitPidFlag, waitpid},
    unistd::Pid,
};

use super::{
    api::Api, command, components, components::Component, config, hierarchies, images, install,
    layout::Layout, network,
};
use crate::wait::poll;

/// How long a component may take to get ready. The first start reads a large file from disk.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a component that has ended stays down, so that one that cannot start does not spin.
const PAUSE: Duration = Duration::from_millis(500);

/// What the components write outside of the checkout, as on a node that is a machine.
const MACHINE_FOLDERS: [&str; 7] = [
    "/run/containerd",
    "/run/netns",
    "/run/podcreds",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
];

/// What kubelet sets for the whole machine, unless it reads these values.
const KUBELETS_SYSCTLS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// What the node's first process says when all is up. The reader stops there.
pub(super) const UP: &str = "the node is up";

/// The folders that are mounted over, and have to exist on the machine for that.
pub(super) fn mount_points(layout: &Layout) -> Vec<PathBuf> {
    let machine = MACHINE_FOLDERS.iter().map(PathBuf::from);
    machine.chain([layout.run()]).collect()
}

/// Starts everything, then looks after it for ever. Progress goes to standard output.
///
/// # Errors
///
/// When something does not come up.
pub fn run() -> Result<()> {
    ensure!(
        std::process::id() == 1,
        "this is for the first process of a node: use `cluster up`"
    );
    let layout = Layout::of_checkout()?;
    let mut node = Node {
        running: Vec::new(),
        layout,
    };
    node.boot()?;
    println!("{UP}");
    node.supervise()
}

struct Node {
    layout: Layout,
    running: Vec<(Pid, Component)>,
}

impl Node {
    fn boot(&mut self) -> Result<()> {
        let layout = self.layout.clone();
        step("mounts and network", || {
            mount_all(&layout)?;
            network::raise()?;
            config::write(&layout)
        })?;
        step("container images", || images::build(&layout))?;
        step("etcd and API server", || {
            self.start(components::etcd(&layout))?;
            self.start(components::api_server(&layout))?;
            self.start(components::proxy(&layout))?;
            self.wait("the API server", || Api::of(&layout).is_ready())
        })?;
        step("controllers, scheduler and AWS", || {
            self.start(components::controllers(&layout))?;
            self.start(components::scheduler(&layout))?;
            let program = env::current_exe().context("the path of this program")?;
            self.start(components::aws(program))
        })?;
        step("containerd and images", || {
            self.start(components::containerd(&layout))?;
            self.wait("containerd", || command::run("ctr", "version").is_ok())?;
            import(&layout)
        })?;
        step("kubelet", || {
            self.start(components::kubelet(&layout))?;
            self.wait("kubelet's node", || {
                install::node_is_ready(&Api::of(&layout))
            })
        })?;
        step("what EKS has in its clusters", || install::eks(&layout))
    }

    fn start(&mut self, component: Component) -> Result<()> {
        let log = self.layout.logs().join(format!("{}.log", component.name));
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let child = Command::new(&component.program)
            .args(&component.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", component.name))?;
        let pid = self.layout.component_pid(component.name);
        fs::write(&pid, child.id().to_string())
            .with_context(|| format!("cannot write {}", pid.display()))?;
        let id = i32::try_from(child.id()).context("a process ID")?;
        self.running.push((Pid::from_raw(id), component));
        Ok(())
    }

    /// Waits until something is ready, or a component has ended meanwhile.
    fn wait(&mut self, what: &str, ready: impl Fn() -> bool) -> Result<()> {
        let mut ended = None;
        let met = poll(PATIENCE, || {
            ended = self.reap(WaitPidFlag::WNOHANG);
            (ended.is_some() || ready()).then_some(())
        });
        if let Some(component) = ended {
            let log = self.layout.logs().join(format!("{}.log", component.name));
            bail!(
                "{} has ended; the end of {}:\n{}",
                component.name,
                log.display(),
                tail(&log)
            );
        }
        ensure!(
            met.is_some(),
            "gave up after {PATIENCE:?} waiting for {what}; the logs are in {}",
            self.layout.logs().display()
        );
        Ok(())
    }

    fn supervise(&mut self) -> Result<()> {
        loop {
            if let Some(component) = self.reap(WaitPidFlag::empty()) {
                thread::sleep(PAUSE);
                self.start(component)?;
            }
        }
    }

    /// Takes leave of one process that has ended, and says which component it was if it was one.
    fn reap(&mut self, how: WaitPidFlag) -> Option<Component> {
        let pid = match waitpid(None, Some(how)) {
            Ok(status) => status.pid()?,
            Err(Errno::ECHILD | Errno::EINTR) => return None,
            Err(why) => {
                eprintln!("waiting for children: {why}");
                return None;
            }
        };
        let at = self
            .running
            .iter()
            .position(|(running, _)| *running == pid)?;
        Some(self.running.swap_remove(at).1)
    }
}

fn step<T>(title: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let result = work().with_context(|| title.to_owned())?;
    println!("    {:5.1} s  {title}", start.elapsed().as_secs_f64());
    Ok(result)
}

fn mount_all(layout: &Layout) -> Result<()> {
    // Namespaces of the machine that are mounted here would be kept from going.
    while umount2("/run/netns", MntFlags::MNT_DETACH).is_ok() {}
    for folder in mount_points(layout) {
        mount_memory(&folder)?;
    }
    hierarchies::remount()?;
    for (name, value) in KUBELETS_SYSCTLS {
        shadow(layout, name, value)?;
    }
    // Kubelet passes mounts on to containers, and containers to each other.
    let shared = MsFlags::MS_REC | MsFlags::MS_SHARED;
    mount(None::<&str>, "/", None::<&str>, shared, None::<&str>).context("sharing mounts")
}

fn mount_memory(folder: &Path) -> Result<()> {
    let (kind, options) = (Some("tmpfs"), Some("mode=0755"));
    mount(kind, folder, kind, MsFlags::empty(), options)
        .with_context(|| format!("cannot mount {}", folder.display()))
}

/// Shows the node a file in place of a setting of the machine.
fn shadow(layout: &Layout, name: &str, value: &str) -> Result<()> {
    let folder = layout.run().join("sysctl");
    fs::create_dir_all(&folder)?;
    let file = folder.join(name.replace('/', "."));
    fs::write(&file, format!("{value}\n"))?;
    let setting = Path::new("/proc/sys").join(name);
    let bind = MsFlags::MS_BIND;
    mount(Some(&file), &setting, None::<&str>, bind, None::<&str>)
        .with_context(|| format!("cannot cover {}", setting.display()))
}

fn import(layout: &Layout) -> Result<()> {
    let archives = fs::read_dir(layout.images()).context("the folder with images")?;
    for archive in archives.flatten() {
        let mut ctr = Command::new("ctr");
        ctr.args(["--namespace", "k8s.io", "images", "import"])
            .arg(archive.path());
        command::output(&mut ctr)?;
    }
    Ok(())
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}
