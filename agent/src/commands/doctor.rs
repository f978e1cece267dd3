//! `podcreds doctor`: its command line, and where it finds the agent's flags.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{self, ErrorKind, Write as _},
    os::unix::{ffi::OsStringExt, fs::MetadataExt},
    path::Path,
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use podcreds_doctor::{PodName, ReportFormat, Status, examine};
use podcreds_ops::hardening;

use crate::{
    cli::ServerArgs,
    config::Config,
    exit::{UNAVAILABLE, USAGE},
    fail,
};

/// The subcommand.
const NAME: &str = "doctor";
/// Something has failed.
const FAILED: u8 = 1;

pub(crate) const EXAMPLES: &str = "\
Examples:
  kubectl -n kube-system exec POD -- /podcreds doctor
      The node, from its agent's container, with the agent's own flags.
  kubectl -n kube-system exec POD -- /podcreds doctor pod shop/web-6d4b
      A pod of that node.
  podcreds doctor -c my-cluster --output json
      On the host, whether an agent runs there or not.";

/// `podcreds doctor`
#[derive(Args, Clone, Debug)]
pub(crate) struct DoctorArgs {
    /// What to look at: the node itself, unless it is `pod`
    #[arg(value_enum, requires = "pod", value_name = "pod")]
    what: Option<What>,

    /// The pod, by namespace and name or by its UID
    #[arg(value_name = "NAMESPACE/NAME|UID")]
    pod: Option<PodName>,

    /// How to print what was found
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: ReportFormat,

    /// The agent's own flags
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// What a doctor looks at, other than the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// One of its pods
    Pod,
}

/// Looks, and prints what it has found.
pub(crate) fn doctor(args: DoctorArgs) -> ExitCode {
    let config = match Config::try_from(args.server) {
        Ok(config) => config,
        Err(error) => return fail(&error, USAGE),
    };
    // It may hold a pod's token.
    if let Err(error) = hardening::forbid_core_dumps() {
        return fail(&error, UNAVAILABLE);
    }
    let report = match examine(&config_of_doctor(config), args.pod.as_ref()) {
        Ok(report) => report,
        Err(error) => {
            return fail(
                &format_args!("nothing could be looked at: {error}"),
                UNAVAILABLE,
            );
        }
    };
    match report.write(args.output, io::stdout().lock()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => return fail(&error, UNAVAILABLE),
        _ => drop(io::stdout().flush()),
    }
    match report.worst {
        Status::Pass | Status::Warn => ExitCode::SUCCESS,
        Status::Fail => FAILED.into(),
    }
}

/// What of the agent's configuration a doctor wants to know.
fn config_of_doctor(config: Config) -> podcreds_doctor::Config {
    podcreds_doctor::Config {
        ebpf: config.paths.ebpf.is_some(),
        cgroup_root: config.paths.ebpf.and_then(|ebpf| ebpf.cgroup_root),
        node: config.paths.node.unwrap_or_default(),
        upstream: config.upstream,
        keys: config.keys,
        handover: config.handover,
        metrics: (config.metrics_address, config.metrics_port),
        probe_port: config.probe_port,
    }
}

/// A command line with the running agent's flags before its own, where it is a doctor's that names
/// no cluster. What is given twice counts as it is given last.
pub(crate) fn with_agents_flags(mut words: Vec<OsString>) -> Vec<OsString> {
    let names_cluster = |word: &OsString| {
        let word = word.to_string_lossy();
        word.starts_with("-c")
            || word.starts_with("--cluster-name")
            || word == "--help"
            || word == "-h"
    };
    if words.get(1).is_none_or(|word| word != NAME) || words.iter().any(names_cluster) {
        return words;
    }
    if let Some(flags) = flags_of_agent() {
        words.splice(2..2, flags);
    }
    words
}

/// The arguments of the agent that runs in this very container (or on this very host).
fn flags_of_agent() -> Option<Vec<OsString>> {
    let own = identity(Path::new("/proc/self"))?;
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.map(|process| process.path()).find_map(|process| {
        // Nobody but root can make a process look like one of these.
        (identity(&process)? == own && is_root(&process)).then_some(())?;
        flags_in(&fs::read(process.join("cmdline")).ok()?)
    })
}

/// The program that a process runs, and the file system that it sees.
fn identity(process: &Path) -> Option<(u64, u64, std::path::PathBuf)> {
    let number = process.file_name()?.to_str()?;
    (number == "self" || number.parse::<u32>().is_ok()).then_some(())?;
    let program = fs::metadata(process.join("exe")).ok()?;
    let files = fs::read_link(process.join("ns/mnt")).ok()?;
    Some((program.dev(), program.ino(), files))
}

fn is_root(process: &Path) -> bool {
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    // The real and the effective one.
    ids.is_some_and(|ids| ids.split_ascii_whitespace().take(2).eq(["0", "0"]))
}

/// What follows `server` on a command line.
fn flags_in(command_line: &[u8]) -> Option<Vec<OsString>> {
    let words = command_line.strip_suffix(b"\0")?.split(|byte| *byte == 0);
    let mut words = words.map(|word| OsString::from_vec(word.to_vec())).skip(1);
    (words.next()? == OsStr::new("server")).then(|| words.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};

    fn read(line: &str) -> Result<DoctorArgs, clap::Error> {
        match Cli::read(line.split(' '))?.command {
            Command::Doctor(args) => Ok(*args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_pod_is_named_with_what_it_is() {
        let args = read("podcreds doctor pod shop/web -c test").unwrap();
        assert_eq!(args.pod.unwrap().to_string(), "shop/web");
        let args = read("podcreds doctor -c test --output json").unwrap();
        assert_eq!((args.pod, args.output), (None, ReportFormat::Json));
        for bad in [
            "podcreds doctor",
            "podcreds doctor pod -c test",
            "podcreds doctor pod web -c test",
            "podcreds doctor node shop/web -c test",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bad_flag_is_found_as_the_agent_finds_it() {
        let args = read("podcreds doctor -c a/b").unwrap();
        assert_eq!(
            Config::try_from(args.server).unwrap_err().flag(),
            "cluster-name"
        );
    }

    #[test]
    fn own_flags_count_more_than_the_agents() {
        let args = read("podcreds doctor --probe-port=1 -c one --probe-port=2 -c two").unwrap();
        assert_eq!(
            (&*args.server.cluster_name, args.server.probe_port),
            ("two", 2)
        );
    }

    #[test]
    fn the_agents_flags_are_what_follows_its_subcommand() {
        let flags = flags_in(b"/podcreds\0server\0-c\0test\0").unwrap();
        assert_eq!(flags, ["-c", "test"]);
        assert_eq!(flags_in(b"/podcreds\0probe\0-c\0test\0"), None);
        assert_eq!(flags_in(b""), None);
    }
}
