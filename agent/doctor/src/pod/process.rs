//! A process of a pod, and its files, read so that the pod cannot make trouble.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use podcreds_datapath::diagnosis;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, fstatfs, openat, openat2};
use zeroize::Zeroizing;

/// The most of an environment that is read: what the kernel takes from an ordinary caller.
const MAX_ENVIRONMENT: u64 = 256 * 1024;
/// File systems in which reading a file asks the kernel, or a process that need not answer, to do
/// something: proc, sysfs, debugfs, tracefs, securityfs, configfs, cgroup2 and cgroup, bpf,
/// efivarfs, pstore, selinuxfs and FUSE. Kubelet's tokens are in none of them.
const NOT_FOR_TOKENS: [u32; 13] = [
    0x9fa0,
    0x6265_6572,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0x6265_6570,
    0x6367_7270,
    0x0027_e0eb,
    0xcafe_4a11,
    0xde5e_81e4,
    0x6165_676c,
    0xf97c_ff8c,
    0x6573_5546,
];

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

    /// Its network namespace. What is opened stays the same, whatever the process does.
    ///
    /// # Errors
    ///
    /// When it has ended, or may not be looked at (`CAP_SYS_PTRACE`).
    pub(super) fn network(&self) -> io::Result<OpenNamespace> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(&self.folder, "ns/net", flags, Mode::empty())?;
        let seen = fstat(&file)?;
        Ok(OpenNamespace {
            file,
            id: (seen.st_dev, seen.st_ino),
        })
    }

    /// The beginning of its environment, as it was started with or has made it since.
    ///
    /// # Errors
    ///
    /// When it has ended, or may not be looked at (`CAP_SYS_PTRACE`).
    pub(super) fn environment(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        let mut start = self.start_of("environ", MAX_ENVIRONMENT)?;
        if start.len() as u64 > MAX_ENVIRONMENT {
            // The last variable is there in part.
            let end = start.iter().rposition(|byte| *byte == 0);
            start.truncate(end.unwrap_or(0));
        }
        Ok(start)
    }

    /// What it calls itself.
    pub(super) fn command(&self) -> String {
        let command = self.read("comm", 64).unwrap_or_default();
        String::from_utf8_lossy(&command).trim_end().to_owned()
    }

    /// A regular file of at most `most` bytes, at a path as the process itself would see it.
    ///
    /// Whatever links the pod has made, they end in its own root. Nothing is opened before it is
    /// known to be a regular file: opening a device may already do something.
    ///
    /// # Errors
    ///
    /// When there is no such file, or it is something else, or larger.
    pub(super) fn file(&self, path: &str, most: u64) -> io::Result<Zeroizing<Vec<u8>>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(&self.folder, "root", flags, Mode::empty())?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let place = openat2(&root, path, flags, Mode::empty(), resolve)?;
        refuse_what_holds_no_token(place.as_fd())?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let itself = format!("/proc/self/fd/{}", place.as_raw_fd());
        read(openat(CWD, itself, flags, Mode::empty())?.into(), most)
    }

    fn read(&self, name: &str, most: u64) -> io::Result<Zeroizing<Vec<u8>>> {
        all_of(self.start_of(name, most)?, most)
    }

    /// At most one byte more than `most`.
    fn start_of(&self, name: &str, most: u64) -> io::Result<Zeroizing<Vec<u8>>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(&self.folder, name, flags, Mode::empty())?;
        start_of(file.into(), most)
    }
}

/// A namespace that is held open.
pub(super) struct OpenNamespace {
    file: OwnedFd,
    id: (u64, u64),
}

impl OpenNamespace {
    pub(super) fn is(&self, other: &Self) -> bool {
        self.id == other.id
    }

    /// A file that stands for it as long as this is there, also for a child of this process.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }
}

fn refuse_what_holds_no_token(place: BorrowedFd<'_>) -> io::Result<()> {
    let refused = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    if NOT_FOR_TOKENS.contains(&(fstatfs(place)?.f_type as u32)) {
        return refused("it is in a file system that holds no tokens");
    }
    match FileType::from_raw_mode(fstat(place)?.st_mode) {
        FileType::RegularFile => Ok(()),
        _ => refused("it is no regular file"),
    }
}

/// Reads it into a buffer that is wiped.
fn read(file: File, most: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    all_of(start_of(file, most)?, most)
}

fn start_of(file: File, most: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    // Large enough from the start: a buffer that grows leaves copies behind.
    let mut content = Zeroizing::new(Vec::with_capacity(most as usize + 64));
    file.take(most + 1).read_to_end(&mut content)?;
    Ok(content)
}

fn all_of(content: Zeroizing<Vec<u8>>, most: u64) -> io::Result<Zeroizing<Vec<u8>>> {
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
    use std::{
        fs,
        os::unix::{fs::symlink, net::UnixListener},
        process::Command,
    };

    use rustix::fs::mkfifoat;

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
        mkfifoat(CWD, at("fifo"), Mode::RWXU).unwrap();
        let read = |name: &str| own().file(at(name).to_str().unwrap(), 1000);
        assert_eq!(&**read("token").unwrap(), b"a.b.c");
        assert_eq!(&**read("link").unwrap(), b"a.b.c");
        for bad in ["fifo", "huge", "missing", "magic"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(own().file("/dev/zero", 1000).is_err());
    }

    #[test]
    fn what_is_no_regular_file_is_not_even_opened() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        // The kernel's own error would say that it was opened.
        let refused = own().file(socket.to_str().unwrap(), 1000).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        for kernels in [
            "/proc/self/status",
            "/sys/kernel/mm/transparent_hugepage/enabled",
        ] {
            if let Err(refused) = own().file(kernels, 16 * 1024) {
                let kinds = [io::ErrorKind::InvalidInput, io::ErrorKind::NotFound];
                assert!(kinds.contains(&refused.kind()), "{kernels}: {refused}");
            } else {
                panic!("{kernels} was read");
            }
        }
    }

    #[test]
    fn of_a_huge_environment_the_beginning_counts() {
        let long = "x".repeat(100_000);
        let mut child = Command::new("sleep")
            .arg("60")
            .env_clear()
            .envs([
                ("PATH", "/usr/bin:/bin"),
                ("A", &long),
                ("B", &long),
                ("C", &long),
            ])
            .spawn()
            .unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let folder = format!("/proc/{}", child.id());
        let process = PodProcess {
            pid: child.id(),
            cgroup: PathBuf::new(),
            folder: openat(CWD, folder, flags, Mode::empty()).unwrap(),
        };
        let environment = process.environment().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(environment.len() as u64 <= MAX_ENVIRONMENT);
        let variables = environment.split(|byte| *byte == 0);
        // The one that is cut off is left out.
        assert_eq!(variables.count(), 2);
    }

    #[test]
    fn a_process_that_is_not_in_the_pod_is_not_taken_for_its() {
        assert!(!own().is_in(Path::new("/sys/fs/cgroup/kubepods/podx")));
    }
}
