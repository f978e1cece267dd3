//! A folder for sockets and locks. Only root can have prepared it.
//!
//! Its descriptor is kept, and all that is in it is reached through that: whatever becomes of the
//! path, the folder stays the one that was looked at.

use std::{
    fs::{DirBuilder, File, Metadata},
    io,
    os::{
        fd::AsRawFd,
        unix::{
            fs::{DirBuilderExt, MetadataExt},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, fchmod, open},
    io::Errno,
    process::geteuid,
};
use socket2::{Domain, SockAddr, Socket, Type};

/// What is wrong with a folder, or with a file in it.
#[derive(Debug, thiserror::Error)]
pub enum FolderProblem {
    /// The process is not root's.
    #[error("only root may use it; run as root, or name none")]
    NotRoot,
    /// It is not there, and cannot be made.
    #[error("cannot be made ({0}); name another folder, or none")]
    Make(#[source] io::Error),
    /// It cannot be opened.
    #[error("cannot be opened ({0}); name another folder, or none")]
    Open(#[source] io::Error),
    /// It is a file, or a symbolic link.
    #[error("is no folder; a symbolic link to one will not do")]
    NoFolder,
    /// Another user could have prepared it.
    #[error("belongs to user {0}, not to root; remove it")]
    OtherOwner(u32),
    /// Others may write to it.
    #[error("others than root can write to it (mode {0:04o}); make that 0700")]
    Writable(u32),
    /// It cannot be used.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A folder that only root can have prepared.
pub struct RootFolder(File);

impl FolderProblem {
    /// Whether somebody else may have prepared what is there, so that it must not be used.
    pub fn is_unsafe(&self) -> bool {
        match self {
            Self::NotRoot | Self::Make(_) | Self::Open(_) | Self::Io(_) => false,
            Self::NoFolder | Self::OtherOwner(_) | Self::Writable(_) => true,
        }
    }
}

impl RootFolder {
    /// Opens the folder, and makes it if need be.
    ///
    /// # Errors
    ///
    /// When it cannot be had, or could be another user's.
    pub fn open(path: &Path) -> Result<Self, FolderProblem> {
        if !geteuid().is_root() {
            return Err(FolderProblem::NotRoot);
        }
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(FolderProblem::Make(error));
            }
            Ok(()) | Err(_) => {}
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = open(path, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOTDIR | Errno::LOOP => FolderProblem::NoFolder,
            errno => FolderProblem::Open(errno.into()),
        })?;
        let folder = File::from(folder);
        check_owner(&folder.metadata()?)?;
        Ok(Self(folder))
    }

    /// The path of a file in it.
    pub fn inside(&self, name: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()).into()
    }

    /// Listens on a new socket in it, which is root's alone and does not block.
    ///
    /// # Errors
    ///
    /// When that cannot be, or there is something of that name.
    pub fn listen(&self, name: &str, backlog: i32) -> io::Result<UnixListener> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
        // What it is given now is what its file has from the first moment.
        fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        socket.bind(&SockAddr::unix(self.inside(name))?)?;
        socket.listen(backlog)?;
        Ok(socket.into())
    }
}

/// Refuses what is another user's, or what others can write to. That they may look at a folder does
/// no harm: kubelet makes it so when a pod mounts it.
///
/// # Errors
///
/// What is wrong with it.
pub fn check_owner(metadata: &Metadata) -> Result<(), FolderProblem> {
    if metadata.uid() != 0 {
        Err(FolderProblem::OtherOwner(metadata.uid()))
    } else if metadata.mode() & 0o022 != 0 {
        Err(FolderProblem::Writable(metadata.mode() & 0o7777))
    } else {
        Ok(())
    }
}
