//! Commands that run in an agent's container.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{AttachParams, AttachedProcess},
};
use tokio::{io::AsyncReadExt, time::timeout};

use super::{is_denied, why};

/// The agent's container. In AWS's agent it is called otherwise.
pub(crate) const CONTAINER: &str = "agent";
/// The agent's program there.
const PROGRAM: &str = "/podcreds";
/// More than an agent says about all pods of a node.
const MOST: u64 = 16 << 20;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExecError {
    /// It may not be run.
    #[error("{0}")]
    Denied(String),
    /// The API server does not run it.
    #[error("{0}")]
    Start(String),
    /// It takes too long.
    #[error("no answer in {} s", .0.as_secs())]
    Late(Duration),
    /// It ran, failed, and said only this, on standard error.
    #[error("{0}")]
    Failed(String),
}

/// What a command printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) said: String,
    /// Whether its exit code was 0.
    pub(crate) has_succeeded: bool,
}

/// Runs `podcreds` with these words in an agent, and returns what it prints.
///
/// # Errors
///
/// When it does not run, or prints nothing within `limit`.
pub(crate) async fn exec(
    client: &Client,
    (namespace, pod): (&str, &str),
    words: &[&str],
    limit: Duration,
) -> Result<Answer, ExecError> {
    let run = run(client, namespace, pod, words);
    timeout(limit, run)
        .await
        .map_err(|_| ExecError::Late(limit))?
}

async fn run(
    client: &Client,
    namespace: &str,
    pod: &str,
    words: &[&str],
) -> Result<Answer, ExecError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let params = AttachParams::default()
        .container(CONTAINER)
        .stdin(false)
        .stdout(true)
        .stderr(true);
    let command: Vec<&str> = [PROGRAM].into_iter().chain(words.iter().copied()).collect();
    let process = api.exec(pod, command, &params).await;
    let process = process.map_err(|error| match is_denied(&error) {
        true => ExecError::Denied(why(&error)),
        false => ExecError::Start(why(&error)),
    })?;
    read(process).await
}

async fn read(mut process: AttachedProcess) -> Result<Answer, ExecError> {
    let (mut said, mut errors) = (String::new(), String::new());
    let (output, complaints) = (process.stdout(), process.stderr());
    let status = process.take_status();
    let both = tokio::join!(
        async {
            match output {
                Some(output) => output.take(MOST).read_to_string(&mut said).await.map(drop),
                None => Ok(()),
            }
        },
        async {
            match complaints {
                Some(it) => it.take(MOST).read_to_string(&mut errors).await.map(drop),
                None => Ok(()),
            }
        },
    );
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    if let (Err(error), _) | (_, Err(error)) = both {
        return Err(ExecError::Failed(error.to_string()));
    }
    let code = status.as_ref().and_then(|status| status.status.as_deref());
    let has_succeeded = code == Some("Success");
    let answer = Answer {
        said,
        has_succeeded,
    };
    if has_succeeded || !answer.said.trim().is_empty() {
        return Ok(answer);
    }
    let why = status.and_then(|status| status.message);
    let first = errors.lines().find(|line| !line.trim().is_empty());
    let why = first.map(str::to_owned).or(why);
    Err(ExecError::Failed(
        why.unwrap_or_else(|| "it ended without a word".to_owned()),
    ))
}

#[cfg(test)]
mod tests;
