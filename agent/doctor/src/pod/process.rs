//! A process of a pod, and its files, read so that the pod cannot make trouble.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use podcreds_datapath::diagnosis;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use zeroize::Zeroizing;

/// The most of an environment that is read: what the kernel takes from an ordinary caller.
const MAX_ENVIRONMENT: u64 = 256 * 1024;

/// A process that is in the pod, by its folder in `/proc`: no later process of the same number is
/// taken for it.
pub(super) struct PodProcess {
    pub(super) pid: u32,
    /// Its cgroup, at or below the pod's.
    pub(super) cgroup: PathBuf,
    folder: OwnedFd,
}

impl PodProcess {
    /// The first processes of each of the pod's containers, the oldest container first.
    pub(super) fn all_of(pod: &Path) -> Vec<Self> {
        let processes = diagnosis::processes_of(pod).into_iter();
        let opened = processes.filter_map(|process| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let folder = openat(CWD, format!("/proc/{}", process.pid), flags, Mode::empty());
            let opened = Self {
                pid: process.pid,
                cgroup: process.cgroup,
                folder: folder.ok()?,
            };
            opened.is_in(pod).then_some(opened)
        });
        opened.collect()
    }

    /// Whether it was the pod's process that was opened.
    fn is_in(&self, pod: &Path) -> bool {
        let cgroups = self.read("cgroup", 64 * 1024).unwrap_or_default();
        let cgroups = String::from_utf8_lossy(&cgroups);
        let unified = cgroups.lines().find_map(|line| line.strip_prefix("0::"));
        unified.is_some_and(|path| {
            let mut parts = Path::new(path).components();
            parts.any(|part| Some(part.as_os_str()) == pod.file_name())
        })
    }

    /// Its environment, as it was started with or has made it since.
    ///
    /// # Errors
    ///
    /// When it has ended, or may not be looked at (`CAP_SYS_PTRACE`).
    pub(super) fn environment(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        self.read("environ", MAX_ENVIRONMENT)
    }

    /// What it calls itself.
    pub(super) fn command(&self) -> String {
        let command = self.read("comm", 64).unwrap_or_default();
        String::from_utf8_lossy(&command).trim_end().to_owned()
    }

    /// A regular file of at most `most` bytes, at a path as the process itself would see it.
    ///
    /// Whatever links the pod has made, they end in its own root, and whatever lies there, opening
    /// it does not wait.
    ///
    /// # Errors
    ///
    /// When there is no such file, or it is something else, or larger.
    pub(super) fn file(&self, path: &str, most: u64) -> io::Result<Zeroizing<Vec<u8>>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(&self.folder, "root", flags, Mode::empty())?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let file = File::from(openat2(&root, path, flags, Mode::empty(), resolve)?);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is no regular file",
            ));
        }
        read(file, most)
    }

    fn read(&self, name: &str, most: u64) -> io::Result<Zeroizing<Vec<u8>>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(&self.folder, name, flags, Mode::empty())?;
        read(file.into(), most)
    }
}

/// Reads it into a buffer that is wiped.
fn read(file: File, most: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    // Large enough from the start: a buffer that grows leaves copies behind.
    let mut content = Zeroizing::new(Vec::with_capacity(most as usize + 64));
    file.take(most + 1).read_to_end(&mut content)?;
    match content.len() as u64 <= most {
        true => Ok(content),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it is larger than {most} bytes"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use nix::{sys::stat::Mode as NixMode, unistd::mkfifo};

    use super::*;

    /// This very process, as if it were a pod's.
    fn own() -> PodProcess {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        PodProcess {
            pid: std::process::id(),
            cgroup: PathBuf::new(),
            folder: openat(CWD, "/proc/self", flags, Mode::empty()).unwrap(),
        }
    }

    #[test]
    fn only_small_regular_files_are_read_and_nothing_waits() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("token"), "a.b.c").unwrap();
        symlink("token", at("link")).unwrap();
        symlink("/proc/self/environ", at("magic")).unwrap();
        fs::write(at("huge"), vec![b'x'; 2000]).unwrap();
        mkfifo(&at("fifo"), NixMode::S_IRWXU).unwrap();
        let read = |name: &str| own().file(at(name).to_str().unwrap(), 1000);
        assert_eq!(&**read("token").unwrap(), b"a.b.c");
        assert_eq!(&**read("link").unwrap(), b"a.b.c");
        for bad in ["fifo", "huge", "missing", "magic"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(own().file("/dev/zero", 1000).is_err());
    }

    #[test]
    fn a_process_that_is_not_in_the_pod_is_not_taken_for_its() {
        assert!(!own().is_in(Path::new("/sys/fs/cgroup/kubepods/podx")));
    }
}
