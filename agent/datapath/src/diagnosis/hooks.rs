//! Which programs are attached where ours are, and who keeps them there.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    path::Path,
};

use aya::programs::loaded_programs;

/// The kernel's number of the command (`BPF_PROG_QUERY` in linux/bpf.h).
const PROG_QUERY: libc::c_int = 16;
/// A cgroup holds at most 64 programs of a kind.
const MOST_PROGRAMS: usize = 64;
/// The modes of a hook (`BPF_F_ALLOW_MULTI` in linux/bpf.h): programs live beside each other.
const ALLOW_MULTI: u32 = 2;

/// A hook that the agent's programs use, by the kernel's number for it (`enum bpf_attach_type` in
/// linux/bpf.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `cgroup/connect4`
    Connect4 = 10,
    /// `cgroup/connect6`
    Connect6 = 11,
    /// `cgroup/getpeername4`
    Peer4 = 29,
    /// `cgroup/getpeername6`
    Peer6 = 30,
    /// `cgroup/bind4`
    Bind4 = 8,
    /// `cgroup/bind6`
    Bind6 = 9,
}

impl Hook {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Connect4,
        Self::Connect6,
        Self::Peer4,
        Self::Peer6,
        Self::Bind4,
        Self::Bind6,
    ];

    /// The kernel's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
            Self::Peer4 => "getpeername4",
            Self::Peer6 => "getpeername6",
            Self::Bind4 => "bind4",
            Self::Bind6 => "bind6",
        }
    }
}

/// A process that keeps a program attached: it holds the link, or the program itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its ID, as this process sees it.
    pub pid: u32,
    /// What it is called. A process chooses that itself.
    pub command: String,
}

/// A program at one of the hooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The hook.
    pub hook: Hook,
    /// The program's number.
    pub id: u32,
    /// Its name, of which the kernel keeps 15 characters; empty if it cannot be seen.
    pub name: String,
    /// The digest of its instructions.
    pub tag: u64,
    /// Whether the hook of this cgroup takes other programs too.
    pub is_exclusive: bool,
    /// Processes that hold it. None hold what is pinned to a file, or was attached without a link.
    pub holders: Vec<Holder>,
}

/// The programs that are attached to a cgroup itself, at the agent's hooks.
///
/// Needs `CAP_NET_ADMIN`, and for names and holders `CAP_SYS_ADMIN` and `CAP_SYS_PTRACE`.
///
/// # Errors
///
/// When the kernel does not say.
pub fn programs_at(cgroup: &Path) -> io::Result<Vec<Attached>> {
    let cgroup = File::open(cgroup)?;
    let mut attached = Vec::new();
    for hook in Hook::ALL {
        let (ids, mode) = query(&cgroup, hook)?;
        attached.extend(ids.into_iter().map(|id| Attached {
            hook,
            id,
            name: String::new(),
            tag: 0,
            is_exclusive: mode & ALLOW_MULTI == 0,
            holders: Vec::new(),
        }));
    }
    if !attached.is_empty() {
        add_names(&mut attached);
        add_holders(&mut attached);
    }
    Ok(attached)
}

/// The part of `union bpf_attr` that belongs to the command, all of it.
#[repr(C)]
#[derive(Default)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    program_count: u32,
    padding: u32,
    program_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// The programs of one hook of a cgroup, and its mode.
fn query(cgroup: &File, hook: Hook) -> io::Result<(Vec<u32>, u32)> {
    let mut ids = [0_u32; MOST_PROGRAMS];
    let mut query = Query {
        target_fd: cgroup.as_raw_fd().cast_unsigned(),
        attach_type: hook as u32,
        program_ids: ids.as_mut_ptr() as u64,
        program_count: MOST_PROGRAMS as u32,
        ..Query::default()
    };
    // SAFETY: the kernel reads and writes at most the given number of bytes of `query`, and writes
    // at most `program_count` numbers to where `program_ids` points, which is `ids`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_QUERY,
            &raw mut query,
            size_of::<Query>() as libc::c_uint,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let count = (query.program_count as usize).min(MOST_PROGRAMS);
    Ok((ids[..count].to_vec(), query.attach_flags))
}

fn add_names(attached: &mut [Attached]) {
    let wanted: HashSet<u32> = attached.iter().map(|it| it.id).collect();
    for program in loaded_programs().flatten() {
        if !wanted.contains(&program.id()) {
            continue;
        }
        for it in attached.iter_mut().filter(|it| it.id == program.id()) {
            it.name = String::from_utf8_lossy(program.name()).into_owned();
            it.tag = program.tag();
        }
    }
}

/// Looks for the programs' numbers in what the kernel says of processes' descriptors.
fn add_holders(attached: &mut [Attached]) {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let Some(pid) = process.file_name().to_str().and_then(|it| it.parse().ok()) else {
            continue;
        };
        let held = held_by(pid);
        if held.is_empty() {
            continue;
        }
        let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        for it in attached.iter_mut().filter(|it| held.contains(&it.id)) {
            it.holders.push(Holder {
                pid,
                command: command.trim_end().to_owned(),
            });
        }
    }
}

/// The numbers of the programs of which a process holds links, or the programs.
fn held_by(pid: u32) -> HashSet<u32> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"));
    let is_of_bpf = |path: &Path| {
        fs::read_link(path).is_ok_and(|it| it.to_string_lossy().starts_with("anon_inode:bpf"))
    };
    descriptors
        .into_iter()
        .flatten()
        .flatten()
        .filter(|descriptor| is_of_bpf(&descriptor.path()))
        .filter_map(|descriptor| {
            let number = descriptor.file_name();
            let info = Path::new("/proc")
                .join(format!("{pid}/fdinfo"))
                .join(number);
            program_in(&fs::read_to_string(info).ok()?)
        })
        .collect()
}

fn program_in(fdinfo: &str) -> Option<u32> {
    let value = fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("prog_id:"))?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_links_program_is_read_from_what_the_kernel_says() {
        let link = "pos:\t0\nflags:\t02000000\nlink_type:\tcgroup\nlink_id:\t7\nprog_tag:\tabc\n\
                    prog_id:\t4711\ncgroup_id:\t1\nattach_type:\t10\n";
        assert_eq!(program_in(link), Some(4711));
        assert_eq!(program_in("pos:\t0\nmap_id:\t3\n"), None);
    }

    #[test]
    fn the_query_is_as_long_as_the_kernels() {
        assert_eq!(size_of::<Query>(), 64);
    }
}
