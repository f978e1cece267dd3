use std::any::TypeId;

use clap::{
    Arg, Command as ClapCommand, CommandFactory as _, Parser as _,
    error::{ContextKind, ContextValue},
};

use super::*;
use crate::config::{Config, ConfigError};

/// A command line that is refused.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The flag that is at fault, such as `--port`.
    pub(crate) flag: String,
    /// What is said about it.
    pub(crate) words: String,
}

impl From<&ConfigError> for Refused {
    fn from(error: &ConfigError) -> Self {
        Self {
            flag: format!("--{}", error.flag()),
            words: error.to_string(),
        }
    }
}

/// What clap refuses. Its words end with how to use the command, which names other flags as well.
pub(crate) fn refused_by_clap(error: &clap::Error) -> Refused {
    let flag = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) => flag.as_str(),
        Some(ContextValue::Strings(flags)) => flags.first().map_or("", String::as_str),
        _ => "",
    };
    let flag = flag.split(' ').next().unwrap_or_default();
    let words = error.to_string();
    let words = words.split("\n\n").next().unwrap_or_default();
    Refused {
        flag: flag.to_owned(),
        words: words.to_owned(),
    }
}

/// A flag of AWS's eks-pod-identity-agent: its long name, its short one, and its default.
type Official = (&'static str, Option<char>, Option<&'static str>);

/// Every flag of its `server`, and what it is where nobody says.
const OFFICIAL: [Official; 13] = [
    ("cluster-name", Some('c'), None),
    ("port", Some('p'), Some("80")),
    ("probe-port", None, Some("2703")),
    ("metrics-address", None, Some("0.0.0.0")),
    ("metrics-port", None, Some("2705")),
    (
        "max-credential-retention-before-renewal",
        None,
        Some("3h0m0s"),
    ),
    ("max-cache-size", None, Some("2000")),
    ("max-service-qps", None, Some("3")),
    (
        "bind-hosts",
        Some('b'),
        Some("169.254.170.23,[fd00:ec2::23]"),
    ),
    ("rotate-credentials", None, Some("false")),
    ("endpoint", None, None),
    ("verbosity", Some('v'), Some("info")),
    ("help", Some('h'), None),
];

fn command() -> ClapCommand {
    let mut command = Cli::command();
    command.build();
    command
}

fn server() -> ClapCommand {
    command().find_subcommand("server").unwrap().clone()
}

fn parse(arguments: &[&str]) -> Result<Cli, Refused> {
    let all = ["podcreds", "server"].iter().chain(arguments);
    Cli::try_parse_from(all).map_err(|error| refused_by_clap(&error))
}

/// All that the command line says, as text.
fn told(arguments: &[&str]) -> String {
    let cli = parse(arguments).unwrap();
    format!("{:?} {:?}", cli.command, cli.verbosity)
}

#[test]
fn every_flag_of_the_official_agent_is_there_under_its_names() {
    let server = server();
    for (long, short, _) in OFFICIAL {
        let flag = server
            .get_arguments()
            .find(|it| it.get_long() == Some(long));
        let flag = flag.unwrap_or_else(|| panic!("there is no --{long}"));
        assert_eq!(flag.get_short(), short, "--{long}");
        assert!(flag.get_help().is_some(), "--{long} has no help");
    }
}

/// To name a flag's official default must change nothing.
#[test]
fn every_flag_has_the_official_default() {
    let untold = told(&["-c", "cluster"]);
    for (long, short, default) in OFFICIAL {
        let Some(default) = default.filter(|default| *default != "false") else {
            continue;
        };
        let long = format!("--{long}={default}");
        assert_eq!(
            told(&["--cluster-name", "cluster", &long]),
            untold,
            "{long}"
        );
        if let Some(short) = short {
            let short = format!("-{short}");
            assert_eq!(told(&["-c", "cluster", &short, default]), untold, "{short}");
        }
    }
    assert!(untold.contains("rotate_credentials: false"), "{untold}");
    assert!(told(&["-c", "x", "--rotate-credentials"]).contains("rotate_credentials: true"));
}

#[test]
fn values_are_understood_as_the_official_agent_writes_them() {
    for level in ["panic", "error", "info", "trace"] {
        parse(&["-c", "x", "-v", level]).unwrap();
        Cli::try_parse_from(["podcreds", "-v", level, "server", "-c", "x"]).unwrap();
    }
    for time in ["0", "0s", "3h", "3h0m0s", "1h30m", "90m", "500ms"] {
        let flag = format!("--max-credential-retention-before-renewal={time}");
        parse(&["-c", "x", &flag]).unwrap();
    }
    let hosts = |arguments: &[&str]| {
        let all = [&["-c", "x"], arguments].concat();
        match parse(&all).unwrap().command {
            Command::Server(args) => args.bind_hosts,
            other => panic!("{other:?}"),
        }
    };
    let both = hosts(&["-b", "127.0.0.1", "-b", "[::1]"]);
    assert_eq!(both, hosts(&["--bind-hosts", "127.0.0.1,::1"]));
}

#[test]
fn a_value_that_makes_no_sense_is_refused_by_its_flag() {
    let server = server();
    // Any text may name a file.
    let is_path = |flag: &&Arg| flag.get_value_parser().type_id() == TypeId::of::<PathBuf>();
    let flags = server.get_arguments();
    let flags = flags.filter(|flag| flag.get_action().takes_values() && !is_path(flag));
    let names: Vec<_> = flags.filter_map(Arg::get_long).collect();
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        let flag = format!("--{name}");
        let told = [&flag, "no such value"];
        let all = match name {
            "cluster-name" => told.to_vec(),
            _ => [&["-c", "x"], &told[..]].concat(),
        };
        let refused = match parse(&all).map(|cli| cli.command) {
            Ok(Command::Server(args)) => Refused::from(&Config::try_from(*args).unwrap_err()),
            Ok(other) => panic!("{other:?}"),
            Err(refused) => refused,
        };
        assert_eq!(refused.flag, flag);
        assert!(refused.words.contains(&flag), "{flag}: {}", refused.words);
        // And with no value at all.
        assert_eq!(parse(&[&flag]).unwrap_err().flag, flag);
    }
    let refused = parse(&["-c", "x", "--unknown"]).unwrap_err();
    assert_eq!(refused.flag, "--unknown");
}

#[test]
fn the_help_is_whole() {
    Cli::command().debug_assert();
    let help = server().render_long_help().to_string();
    for (long, _, _) in OFFICIAL {
        assert!(help.contains(&format!("--{long}")), "{long}");
    }
}

#[test]
fn the_help_of_refresh_says_that_a_refusal_takes_what_there_is() {
    let mut command = Cli::command();
    let refresh = command.find_subcommand_mut("refresh").unwrap();
    let help = refresh.render_long_help().to_string();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("the pod loses the old ones"), "{help}");
}

#[test]
fn what_no_agent_could_understand_is_refused_before_one_is_asked() {
    for (arguments, flag, words) in [
        (
            &["log-level", "debug", "--for", "0"][..],
            "--for",
            "a second or longer",
        ),
        (
            &["log-level", "debug", "--for", "900ms"],
            "--for",
            "a second or longer",
        ),
        (
            &["log-level", "debug", "--for", "soon"],
            "--for",
            "10m or 1h30m",
        ),
        (&["log-level", "loud"], "[FILTER]", "is no level"),
        (&["refresh", "--pod", "shop/"], "--pod", "NAMESPACE/NAME"),
        (&["refresh", "--pod", "web-1"], "--pod", "NAMESPACE/NAME"),
        (&["refresh", "--pod", ""], "--pod", "not a pod UID"),
        (&["status", "--pod", ""], "--pod", "value is required"),
        (&["status", "-n", ""], "--namespace", "value is required"),
    ] {
        let all = ["podcreds"].iter().chain(arguments);
        let error = Cli::try_parse_from(all).unwrap_err();
        let refused = refused_by_clap(&error);
        assert_eq!(refused.flag, flag, "{arguments:?}: {error}");
        assert!(refused.words.contains(words), "{arguments:?}: {error}");
    }
}
