//! A virtual machine, from its start to its end.

use std::{
    ffi::OsString,
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::run::bound;

const QEMU: &str = "qemu-system-x86_64";

/// How long a machine without a file system may take to give up. A second is plenty where the
/// processor helps.
const TRIAL: Duration = Duration::from_secs(5);

/// What programs have to run in, in MiB, beside the file system that they are in.
const ROOM: u64 = 640;

/// What the kernel is told: where its console is, to end when it crashes, to have random numbers
/// from the start, and that cgroup v1 is not wanted.
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 loglevel=5 random.trust_cpu=on cgroup_no_v1=all";

/// What carries out the machine's instructions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Accelerator {
    /// The processor.
    Kvm,
    /// QEMU, which is ten times slower and more.
    Tcg,
}

impl Accelerator {
    /// The best that works here. That `/dev/kvm` can be opened does not say that it works, least of
    /// all in a virtual machine. So a kernel is booted for a trial; for want of a file system it
    /// ends soon.
    pub(super) fn find(kernel: &Path, console: &Path) -> Result<Self> {
        let device = File::options().read(true).write(true).open("/dev/kvm");
        if device.is_err() {
            return Ok(Self::Tcg);
        }
        let mut machine = Machine::start(Self::Kvm, kernel, None, console)?;
        let ended = machine.wait(Instant::now() + TRIAL);
        Ok(if ended.is_ok_and(|status| status.success()) {
            Self::Kvm
        } else {
            Self::Tcg
        })
    }

    /// How many processors the machine has, and how it tells the time.
    fn clock(self) -> &'static [&'static str] {
        match self {
            Self::Kvm => &["-smp", "2"],
            Self::Tcg => &COUNTING,
        }
    }

    /// Its name, as QEMU has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// What QEMU is told for a machine whose clock counts instructions: a billion are a second, and
/// when there is nothing to do the time until there is passes at once. So nothing in the machine
/// notices how slow or busy its host is, and no time limit of a test is too short. One processor
/// only: several would take turns that are long.
const COUNTING: [&str; 6] = [
    "-icount",
    "shift=0,sleep=off",
    "-rtc",
    "clock=vm",
    "-smp",
    "1",
];

/// A machine that runs. It is switched off when this is dropped.
pub(super) struct Machine {
    qemu: Child,
    lines: Receiver<String>,
}

impl Machine {
    /// Boots `kernel` with a file system, if any. What it prints goes to the file `console`.
    pub(super) fn start(
        accelerator: Accelerator,
        kernel: &Path,
        files: Option<&Path>,
        console: &Path,
    ) -> Result<Self> {
        let complaints = File::create(console.with_extension("qemu"))?;
        let memory = memory(files)?;
        let mut serial = OsString::from("file:");
        serial.push(console);
        let mut qemu = bound(QEMU);
        qemu.args(["-accel", accelerator.name(), "-cpu", "max"])
            .args(["-m", &memory.to_string()])
            .args(accelerator.clock())
            .args(["-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none"])
            .args(["-append", COMMAND_LINE, "-kernel"])
            .arg(kernel)
            .arg("-serial")
            .arg(serial)
            .args(["-serial", "stdio"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(complaints);
        if let Some(files) = files {
            qemu.arg("-initrd").arg(files);
        }
        let mut qemu = qemu
            .spawn()
            .with_context(|| format!("cannot start {QEMU}"))?;
        let results = qemu.stdout.take().context("QEMU has no output")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let lines = BufReader::new(results).lines().map_while(Result::ok);
            // Nobody listens any more when the machine has been given up.
            for line in lines {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { qemu, lines })
    }

    /// The next line on its second serial line, or `None` when it has ended.
    ///
    /// # Errors
    ///
    /// When there is neither by `end`.
    pub(super) fn line(&self, end: Instant) -> Result<Option<String>> {
        match self
            .lines
            .recv_timeout(end.saturating_duration_since(Instant::now()))
        {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => bail!("the machine does not get on"),
        }
    }

    /// Waits for it to end by itself.
    ///
    /// # Errors
    ///
    /// When it has not by `end`.
    fn wait(&mut self, end: Instant) -> Result<ExitStatus> {
        while self.line(end)?.is_some() {}
        Ok(self.qemu.wait()?)
    }
}

/// How much memory a machine gets, in MiB. Its kernel keeps the archive of its file system until
/// that is unpacked, and unpacks it into half of what is left then.
fn memory(files: Option<&Path>) -> Result<u64> {
    let bytes = files.map_or(Ok(0), |files| files.metadata().map(|file| file.len()))?;
    Ok(ROOM + 3 * bytes.div_ceil(1 << 20))
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only for a process that has ended and been waited for.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
