//! What the node lets one process have.

use std::{fs, path::PathBuf};

use podcreds_datapath::diagnosis;
use rustix::{
    fs::inotify,
    process::{Resource, getrlimit},
};

use crate::report::Finding;

const INOTIFY: &str = "inotify";
const FILES: &str = "files";
/// What a full node takes: a watch for each pod, and for each level above them.
const ENOUGH_WATCHES: u64 = 2048;
/// 768 connections, four descriptors for each of 737 pods, and what the agent has itself.
const ENOUGH_FILES: u64 = 4096;

pub(super) fn check_inotify(cgroup_root: Option<PathBuf>) -> Finding {
    let most = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/fs/inotify/{name}"));
        text.ok().and_then(|text| text.trim().parse().ok())
    };
    let flags = inotify::CreateFlags::CLOEXEC;
    let tried = inotify::init(flags)
        .map_err(|_| "max_user_instances")
        .and_then(|instance| {
            let tree = diagnosis::cgroup_tree(cgroup_root);
            let place = tree.map_or_else(|_| "/proc".into(), |tree| tree.root);
            inotify::add_watch(&instance, place, inotify::WatchFlags::CREATE)
                .map_err(|_| "max_user_watches")
        });
    judge_inotify(most("max_user_watches"), tried.map(drop))
}

fn judge_inotify(watches: Option<u64>, tried: Result<(), &'static str>) -> Finding {
    const REMEDY: &str = "raise it: sysctl -w fs.inotify.max_user_watches=65536 \
                          fs.inotify.max_user_instances=1024; until then the agent finds pods by \
                          looking every ten seconds";
    match (watches, tried) {
        (_, Err(limit)) => Finding::warn(INOTIFY, format!("fs.inotify.{limit} is used up"), REMEDY),
        (Some(watches), _) if watches < ENOUGH_WATCHES => Finding::warn(
            INOTIFY,
            format!("fs.inotify.max_user_watches is {watches}, less than {ENOUGH_WATCHES}"),
            REMEDY,
        ),
        (Some(watches), _) => Finding::pass(INOTIFY, format!("up to {watches} watches")),
        (None, _) => Finding::pass(INOTIFY, "works"),
    }
}

pub(super) fn check_files() -> Finding {
    judge_files(getrlimit(Resource::Nofile).maximum)
}

fn judge_files(most: Option<u64>) -> Finding {
    match most {
        None => Finding::pass(FILES, "no limit of open files"),
        Some(hard) if hard < ENOUGH_FILES => Finding::warn(
            FILES,
            format!("a process may open {hard} files: too few for a node with many pods"),
            format!("raise the container runtime's LimitNOFILE to {ENOUGH_FILES} or more"),
        ),
        Some(hard) => Finding::pass(FILES, format!("a process may open {hard} files")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Status;

    #[test]
    fn few_watches_and_few_files_are_warnings() {
        assert_eq!(judge_inotify(Some(65_536), Ok(())).status, Status::Pass);
        assert_eq!(judge_inotify(Some(128), Ok(())).status, Status::Warn);
        let used_up = judge_inotify(Some(65_536), Err("max_user_instances"));
        assert!(used_up.seen.contains("max_user_instances"));
        assert_eq!(judge_files(Some(1024)).status, Status::Warn);
        assert_eq!(judge_files(Some(1_048_576)).status, Status::Pass);
    }
}
