//! Unmodified AWS SDKs and tools, used as applications use them, and what they say they got.
//!
//! `cargo xtask setup` installs them into `target/tools`.

use std::{
    env,
    path::PathBuf,
    process::{Command, Output},
};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::{aws::Owner, binary, checkout, http::query::percent_decode};

/// Three lines of boto3.
const PYTHON: &str = include_str!("application.py");
/// The same with the AWS CRT.
const CRT: &str = include_str!("crt.py");
/// As many of JavaScript.
const JAVASCRIPT: &str = include_str!("application.js");

/// Where the query string of a presigned URL has the session token.
const TOKEN_PARAMETER: &str = "X-Amz-Security-Token=";

/// A client that knows nothing of podcreds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sdk {
    /// The SDK for Python.
    Boto3,
    /// The AWS CLI, version 1.
    AwsCli,
    /// The SDK for JavaScript, version 3.
    JavaScript,
    /// The AWS Common Runtime, on which the SDK for C++ and Mountpoint for S3 stand.
    Crt,
    /// The SDK for Rust.
    Rust,
    /// The SDK for Go, version 2.
    Go,
    /// The SDK for Java, version 2.
    Java,
}

/// What a client got.
#[derive(Clone, Debug)]
pub enum Got {
    /// Credentials, and whose they are.
    Credentials(Owner),
    /// Nothing, and its own words about it.
    Nothing(String),
}

impl Sdk {
    /// Those that are there wherever tests run. The others are for real nodes.
    pub const ALL: [Self; 5] = [
        Self::Boto3,
        Self::AwsCli,
        Self::JavaScript,
        Self::Crt,
        Self::Rust,
    ];

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Boto3 => "boto3",
            Self::AwsCli => "AWS CLI",
            Self::JavaScript => "JS SDK v3",
            Self::Crt => "AWS CRT",
            Self::Rust => "Rust SDK",
            Self::Go => "Go SDK v2",
            Self::Java => "Java SDK v2",
        }
    }

    /// Whether it is installed.
    ///
    /// # Errors
    ///
    /// What is missing.
    pub fn check(self) -> Result<(), String> {
        let module = match self {
            Self::Rust => return Ok(()),
            Self::Boto3 | Self::AwsCli => venv().join("installed.txt"),
            Self::Crt => crt().join("installed.txt"),
            Self::JavaScript => node_modules().join("@aws-sdk/client-sts/package.json"),
            Self::Go => built("go").join("built.txt"),
            Self::Java => built("java").join("built.txt"),
        };
        if module.is_file() {
            return Ok(());
        }
        let name = self.name();
        Err(format!(
            "{name} is not installed (`cargo xtask setup`, or `cluster test`, does it)"
        ))
    }

    /// Runs it by way of `command`, which makes a command that starts a given program where the
    /// client is to be.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or says nothing that makes sense.
    pub fn run(self, command: impl FnOnce(PathBuf) -> Command) -> Result<Got> {
        let (program, arguments) = self.program();
        let output = command(program)
            .args(arguments)
            .env("NODE_PATH", node_modules())
            .output()
            .with_context(|| format!("cannot start {}", self.name()))?;
        self.read(&output)
    }

    /// The program, and its arguments. The SDK for JavaScript is found by way of [`node_modules`].
    pub fn program(self) -> (PathBuf, Vec<String>) {
        let (program, arguments): (PathBuf, &[&str]) = match self {
            Self::Boto3 => (venv().join("bin/python"), &["-c", PYTHON]),
            Self::Crt => (crt().join("bin/python"), &["-c", CRT]),
            // Signs without a network, and shows with which session token.
            Self::AwsCli => (
                venv().join("bin/aws"),
                &["s3", "presign", "s3://bucket/key"],
            ),
            Self::JavaScript => ("node".into(), &["-e", JAVASCRIPT]),
            Self::Rust => (binary::pod_client(), &["sdk"]),
            Self::Go => (built("go").join("client"), &[]),
            Self::Java => {
                let folder = built("java").display().to_string();
                let classes = format!("{folder}:{folder}/*");
                return ("java".into(), vec!["-cp".into(), classes, "Client".into()]);
            }
        };
        let arguments = arguments.iter().map(|&word| word.to_owned());
        (program, arguments.collect())
    }

    /// Reads what the program has printed.
    ///
    /// # Errors
    ///
    /// When it makes no sense.
    pub fn read(self, output: &Output) -> Result<Got> {
        let printed = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        let token = match self {
            Self::AwsCli if output.status.success() => token_of_url(&printed),
            Self::AwsCli => return Ok(Got::Nothing(last_line(&complaint).to_owned())),
            Self::Boto3 | Self::JavaScript | Self::Crt | Self::Rust | Self::Go | Self::Java => {
                if !output.status.success() {
                    bail!("{} failed: {}", self.name(), last_line(&complaint));
                }
                let answer: Value = serde_json::from_str(last_line(&printed))
                    .with_context(|| format!("{} printed no JSON: {printed}", self.name()))?;
                if let Some(error) = answer["error"].as_str() {
                    return Ok(Got::Nothing(error.to_owned()));
                }
                answer["session_token"].as_str().map(str::to_owned)
            }
        };
        let token = token.with_context(|| format!("{} has no session token", self.name()))?;
        let owner = token
            .parse()
            .map_err(|_| anyhow!("{} has a foreign session token", self.name()))?;
        Ok(Got::Credentials(owner))
    }
}

/// A command without the developer's own settings.
pub fn without_settings(program: PathBuf) -> Command {
    let mut command = Command::new(program);
    remove_settings(&mut command);
    command
}

/// Takes the developer's own settings from a command: those of AWS, of Kubernetes, and proxies, to
/// which requests for a stand-in would go.
pub fn remove_settings(command: &mut Command) -> &mut Command {
    let own = env::vars_os().map(|(name, _)| name);
    for name in own.filter(|name| is_setting(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    command
}

fn is_setting(variable: &str) -> bool {
    let name = variable.to_ascii_uppercase();
    name.starts_with("AWS_") || name.ends_with("_PROXY") || name == "KUBECONFIG"
}

/// The Python environment with boto3 and the AWS CLI.
pub(crate) fn venv() -> PathBuf {
    tools().join("venv")
}

/// The Python environment with moto's server.
pub(crate) fn moto() -> PathBuf {
    tools().join("moto")
}

/// The Python environment with the AWS CRT.
fn crt() -> PathBuf {
    tools().join("crt")
}

/// Where Node.js finds the SDK: its `NODE_PATH`.
pub fn node_modules() -> PathBuf {
    tools().join("js/node_modules")
}

/// Where a client is that had to be built.
fn built(language: &str) -> PathBuf {
    tools().join("clients").join(language)
}

/// Where `cargo xtask setup` puts things.
fn tools() -> PathBuf {
    // In a container it is mounted under its real path.
    let tools = checkout::file("target/tools");
    tools.canonicalize().unwrap_or(tools)
}

fn last_line(text: &str) -> &str {
    text.trim().lines().next_back().unwrap_or_default()
}

fn token_of_url(url: &str) -> Option<String> {
    let (_, after) = url.split_once(TOKEN_PARAMETER)?;
    let value = after.split(['&', '\n']).next()?;
    percent_decode(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_aws_of_kubernetes_and_proxies_are_taken_away_and_all_else_stays() {
        for own in [
            "AWS_PROFILE",
            "AWS_CA_BUNDLE",
            "HTTPS_PROXY",
            "http_proxy",
            "ALL_PROXY",
            "no_proxy",
            "KUBECONFIG",
        ] {
            assert!(is_setting(own), "{own}");
        }
        for other in ["PATH", "HOME", "LC_ALL", "CI", "MY_AWS_NAME", "PROXY"] {
            assert!(!is_setting(other), "{other}");
        }
    }
}
