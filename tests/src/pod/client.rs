//! A running `pod-client`, and the JSON lines that it prints.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use serde_json::Value;

/// How long a line may take to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A `pod-client` that runs. It is killed when this is dropped.
pub struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Value>,
}

impl Client {
    /// Starts `command`, which prints JSON lines and ends when its input does.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|why| panic!("cannot run {command:?}: {why}"));
        let stdout = child.stdout.take().expect("the client's output");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let stdin = child.stdin.take();
        Self {
            child,
            stdin,
            lines,
        }
    }

    /// Its process ID.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it prints.
    ///
    /// # Panics
    ///
    /// When none comes within a minute.
    pub fn line(&mut self) -> Value {
        self.try_line().expect("a line from pod-client")
    }

    /// The next line that it prints, unless it ends before or takes a minute.
    pub fn try_line(&mut self) -> Option<Value> {
        self.lines.recv_timeout(PATIENCE).ok()
    }

    /// Ends its input, and does not wait.
    pub fn end_input(&mut self) {
        drop(self.stdin.take());
    }

    /// Ends its input, and waits for it to print the rest and end.
    ///
    /// # Panics
    ///
    /// When it does not within a minute, or fails.
    pub fn finish(mut self) -> Vec<Value> {
        self.end_input();
        let mut rest = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => rest.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("pod-client did not end"),
            }
        }
        let status = self.child.wait().expect("pod-client's exit status");
        assert!(
            status.success(),
            "pod-client failed ({status}) after {rest:?}"
        );
        rest
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Both fail only for a process that has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
