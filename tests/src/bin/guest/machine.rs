//! A bare kernel, and what makes a node of it.

use std::{
    env,
    fs::{self, File},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    sys::{
        reboot::{RebootMode, reboot},
        utsname::uname,
        wait::{WaitStatus, wait},
    },
    unistd::sync,
};

/// What is mounted where, in this order.
const MOUNTS: [(&str, &str); 6] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
];

/// Drivers of the kernel that do not depend on each other.
const MODULES: &str = "/modules";

/// Mounts what programs expect, loads drivers, and brings `lo` up.
pub(crate) fn prepare() -> Result<()> {
    for (kind, target) in MOUNTS {
        fs::create_dir_all(target).with_context(|| format!("making {target}"))?;
        mount(
            Some(kind),
            target,
            Some(kind),
            MsFlags::empty(),
            None::<&str>,
        )
        .with_context(|| format!("mounting {target}"))?;
    }
    for driver in fs::read_dir(MODULES).with_context(|| format!("reading {MODULES}"))? {
        load(driver?.path())?;
    }
    let lo = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    ensure!(lo.context("running ip")?.success(), "lo does not come up");
    Ok(())
}

fn load(driver: PathBuf) -> Result<()> {
    let shown = driver.display();
    let file = File::open(&driver).with_context(|| format!("opening {shown}"))?;
    finit_module(file, c"", ModuleInitFlags::empty()).with_context(|| format!("loading {shown}"))
}

/// Starts this program with `argument`, and sees all processes of the machine off until that one
/// ends.
pub(crate) fn supervise(argument: &str) -> Result<()> {
    let program = env::current_exe().context("the path of this program")?;
    let worker = Command::new(program)
        .arg(argument)
        .env("PATH", "/bin")
        // What cannot run here fails, rather than being skipped.
        .env("CI", "true")
        .spawn();
    let worker = i32::try_from(worker.context("starting the checks")?.id())?;
    loop {
        match wait().context("waiting for the checks")? {
            WaitStatus::Exited(pid, _) if pid.as_raw() == worker => return Ok(()),
            WaitStatus::Signaled(pid, signal, _) if pid.as_raw() == worker => {
                bail!("what runs the checks has died of {signal}")
            }
            _ => {}
        }
    }
}

/// The version of the running kernel.
pub(crate) fn kernel() -> Result<String> {
    let uname = uname().context("asking for the kernel's version")?;
    Ok(uname.release().to_string_lossy().into_owned())
}

/// Ends the machine. If that fails the kernel panics when this process ends, which ends it too.
pub(crate) fn switch_off() {
    sync();
    let Err(error) = reboot(RebootMode::RB_POWER_OFF);
    eprintln!("guest: switching off: {error}");
}
