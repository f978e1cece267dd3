//! Requests written by hand, sent from inside a pod.

use std::{io::Write, net::SocketAddr, path::Path, process::Command};

use serde_json::Value;
use tempfile::NamedTempFile;

use crate::{
    binary,
    http::client::{Answer, split_answers},
    pod::{Client, Pod},
};

/// What a pod heard on a connection.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Everything that came.
    pub received: String,
    /// How it ended: `closed`, or an error's name such as `ECONNRESET` or `timeout`.
    pub end: String,
}

impl Heard {
    /// The answers in it.
    ///
    /// # Panics
    ///
    /// When it is anything but complete answers.
    pub fn answers(&self) -> Vec<Answer> {
        split_answers(self.received.as_bytes())
            .unwrap_or_else(|why| panic!("{why}: {:?}", self.received))
    }

    /// The statuses of these answers.
    pub fn statuses(&self) -> Vec<u16> {
        let answers = self.answers().into_iter();
        answers.map(|answer| answer.status).collect()
    }
}

/// A conversation that goes on.
pub struct Conversation {
    client: Client,
    _file: NamedTempFile,
}

impl Conversation {
    /// Waits until the peer has closed the connection, or has been silent for half a minute.
    pub fn finish(self) -> Heard {
        let lines = self.client.finish();
        let text = |name: &str| {
            let line = lines.last().and_then(|line| line[name].as_str());
            line.unwrap_or_default().to_owned()
        };
        Heard {
            received: text("received"),
            end: text("end"),
        }
    }
}

/// Has the pod connect, say `bytes` and listen.
pub fn begin(pod: &Pod, bytes: impl AsRef<[u8]>) -> Conversation {
    let file = file(bytes);
    let client = pod.spawn(["talk", "--timeout-ms", "30000", "--file", name(file.path())]);
    Conversation {
        client,
        _file: file,
    }
}

/// Has the pod connect, say `bytes`, and listen until the agent closes the connection.
pub fn say(pod: &Pod, bytes: impl AsRef<[u8]>) -> Heard {
    begin(pod, bytes).finish()
}

/// Has the pod connect, say `bytes`, and hang up after one answer, which is returned as by
/// `pod-client get`.
pub fn ask(pod: &Pod, bytes: impl AsRef<[u8]>) -> Value {
    let file = file(bytes);
    pod.run(["get", "--raw-file", name(file.path())])
}

/// Asks an agent on the node path, from no pod, and returns what `pod-client get` does.
pub fn ask_at(agent: SocketAddr, token: &str) -> Value {
    let mut command = Command::new(binary::pod_client());
    command.args(["get", "--dst", &agent.to_string(), "--token", token]);
    let mut lines = Client::spawn(command).finish();
    lines.pop().expect("a line from pod-client")
}

/// A request for the pod's credentials with its own token and these further headers, each of which
/// ends in `\r\n`.
pub fn request(pod: &Pod, version: &str, headers: &str) -> String {
    let token = pod.token();
    format!("GET /v1/credentials {version}\r\nAuthorization: {token}\r\n{headers}\r\n")
}

fn file(bytes: impl AsRef<[u8]>) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes.as_ref()).expect("the bytes on disk");
    file
}

fn name(path: &Path) -> &str {
    path.to_str().expect("a temporary path in UTF-8")
}
