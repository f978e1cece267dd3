//! A view of the cgroup hierarchy in which cgroups can be made.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::CWD,
    mount::{OpenTreeFlags, open_tree},
};

/// A mount of one's own, gone with this.
pub struct Writable(OwnedFd);

impl Writable {
    /// Where it can be reached, by this process and by those that inherit its descriptors.
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

/// Makes a copy of the mount at `path` that can be written to. Nobody else sees it.
///
/// In the agent's container the hierarchy is mounted for reading only. Needs `CAP_SYS_ADMIN`.
///
/// # Errors
///
/// When the kernel refuses it.
pub fn writable(path: &Path) -> io::Result<Writable> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let copy = open_tree(CWD, path, flags)?;
    let change = libc::mount_attr {
        attr_set: 0,
        attr_clr: libc::MOUNT_ATTR_RDONLY,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is a string that ends with a zero byte, and the kernel reads the given
    // number of bytes of `change`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            copy.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const change,
            size_of::<libc::mount_attr>(),
        )
    };
    match result {
        0 => Ok(Writable(copy)),
        _ => Err(io::Error::last_os_error()),
    }
}
