//! The commands that ask a running agent, as they are typed.

use std::{path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, ValueEnum, builder::NonEmptyStringValueParser};
use humantime::DurationError;
use podcreds_admin::Target;
use podcreds_ops::telemetry::Filter;
use podcreds_types::{PodUid, PodUidError, ServiceAccount};

use super::parse_duration;
use crate::config::HANDOVER_DIR;

pub(super) const STATUS_EXAMPLES: &str = "\
Examples:
  podcreds status --failing
  podcreds status -n shop --watch
  podcreds status -o json | jq '.agents[].pods[] | {name, role, expires}'";

pub(super) const REFRESH_EXAMPLES: &str = "\
Examples:
  podcreds refresh shop/reader
      All pods of the service account reader in the namespace shop.
  podcreds refresh --pod shop/web-1";

pub(super) const LOG_LEVEL_EXAMPLES: &str = "\
Examples:
  podcreds log-level
  podcreds log-level debug --for 10m
  podcreds log-level info,podcreds_exchange=trace";

/// Where agents are asked.
#[derive(Args, Clone, Debug)]
pub(crate) struct AskArgs {
    /// The agent's --admin-dir, or else its --handover-dir
    #[arg(long, value_name = "DIR", default_value = HANDOVER_DIR)]
    pub(crate) admin_dir: PathBuf,
}

/// `podcreds status`
#[derive(Args, Clone, Debug)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) ask: AskArgs,

    /// Only pods of this namespace
    #[arg(short, long, value_parser = NonEmptyStringValueParser::new(), value_name = "NAME")]
    pub(crate) namespace: Option<String>,

    /// Only pods of this service account
    #[arg(long, value_parser = NonEmptyStringValueParser::new(), value_name = "NAME")]
    pub(crate) service_account: Option<String>,

    /// Only this pod, by its name, NAMESPACE/NAME or UID
    #[arg(long, value_parser = NonEmptyStringValueParser::new(), value_name = "POD")]
    pub(crate) pod: Option<String>,

    /// Only pods whose last try to get new credentials failed, or whose credentials are near their
    /// end
    #[arg(long)]
    pub(crate) failing: bool,

    /// How it is shown
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: OutputFormat,

    /// Show it again every two seconds, until interrupted
    #[arg(short, long)]
    pub(crate) watch: bool,
}

/// How something is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// A table that fits the terminal
    #[default]
    Text,
    /// A table with all columns
    Wide,
    /// JSON, for programs
    Json,
    /// The same in YAML
    Yaml,
}

/// `podcreds refresh`
#[derive(Args, Clone, Debug)]
#[command(group = ArgGroup::new("whose").required(true))]
pub(crate) struct RefreshArgs {
    #[command(flatten)]
    pub(crate) ask: AskArgs,

    /// All pods of this service account
    #[arg(group = "whose", value_name = "NAMESPACE/SERVICEACCOUNT")]
    pub(crate) service_account: Option<ServiceAccount>,

    /// Only this pod, by its NAMESPACE/NAME or UID
    #[arg(long, group = "whose", value_parser = parse_pod, value_name = "POD")]
    pub(crate) pod: Option<Target>,
}

/// `podcreds log-level`
#[derive(Args, Clone, Debug)]
pub(crate) struct LogLevelArgs {
    #[command(flatten)]
    pub(crate) ask: AskArgs,

    /// What to log from now on, such as debug; nothing: show what is logged
    #[arg(value_name = "FILTER")]
    pub(crate) filter: Option<Filter>,

    /// Go back after this time to what the agent was started with
    #[arg(
        long = "for",
        requires = "filter",
        value_parser = parse_lasting,
        value_name = "DURATION"
    )]
    pub(crate) lasts: Option<Duration>,
}

/// A text that names no pod.
#[derive(Debug, thiserror::Error)]
enum TargetError {
    #[error("expected NAMESPACE/NAME, such as shop/web-1")]
    Name,
    #[error("{0}; or name it NAMESPACE/NAME")]
    Uid(#[from] PodUidError),
}

/// A text that does not say for how long.
#[derive(Debug, thiserror::Error)]
enum LastingError {
    #[error("it must be a second or longer; without it nothing goes back")]
    TooShort,
    #[error("{0}; write 90s, 10m or 1h30m")]
    Duration(#[from] DurationError),
}

/// A pod, by its UID or as `NAMESPACE/NAME`.
fn parse_pod(text: &str) -> Result<Target, TargetError> {
    match text.split_once('/') {
        Some((namespace, name)) if is_name(namespace) && is_name(name) => Ok(Target::Pod {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }),
        Some(_) => Err(TargetError::Name),
        None => Ok(Target::Uid(text.parse::<PodUid>()?.to_string())),
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.contains('/')
}

/// How long something holds that goes back by itself.
fn parse_lasting(text: &str) -> Result<Duration, LastingError> {
    let lasts = parse_duration(text)?;
    match lasts >= Duration::from_secs(1) {
        true => Ok(lasts),
        false => Err(LastingError::TooShort),
    }
}
