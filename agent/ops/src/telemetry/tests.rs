use std::sync::{Arc, Mutex};

use serde_json::Value;
use tracing_subscriber::filter::Targets;

use super::*;

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Captured {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn targets(verbosity: Verbosity) -> Targets {
    Filter::from(verbosity).targets()
}

fn json(verbosity: Verbosity, log: impl FnOnce()) -> String {
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = json_lines(
        move || writer.clone(),
        targets(verbosity),
        &lost_lines().unwrap(),
    );
    tracing::subscriber::with_default(subscriber, log);
    captured.text()
}

#[test]
fn json_lines_are_flat() {
    let line = json(Verbosity::Info, || {
        tracing::info!(address = "[::]:80", pods = 3, "listening");
    });
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["message"], "listening");
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["address"], "[::]:80");
    assert_eq!(line["pods"], 3);
    assert_eq!(line["target"], module_path!());
    assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn text_lines_are_for_people() {
    let captured = Captured::default();
    let writer = captured.clone();
    let lost = lost_lines().unwrap();
    let subscriber = text_lines(
        move || writer.clone(),
        targets(Verbosity::Info),
        false,
        &lost,
    );
    tracing::subscriber::with_default(subscriber, || {
        tracing::warn!(pods = 3, "slow");
    });
    assert!(captured.text().contains("WARN"), "{}", captured.text());
    assert!(
        captured.text().contains("slow pods=3"),
        "{}",
        captured.text()
    );
}

#[test]
fn verbosity_is_a_threshold() {
    let log = || {
        tracing::error!("e-line");
        tracing::info!("i-line");
        tracing::trace!("t-line");
    };
    assert_eq!(json(Verbosity::Panic, log), "");
    assert_eq!(json(Verbosity::Error, log).lines().count(), 1);
    assert_eq!(json(Verbosity::Info, log).lines().count(), 2);
    assert_eq!(json(Verbosity::Trace, log).lines().count(), 3);
}

#[test]
fn crates_that_see_secrets_stay_quiet() {
    let log = || {
        tracing::debug!(target: "aws_smithy_runtime::client", "body: very-secret");
        tracing::trace!(target: "hyper_util::client", "very-secret");
        tracing::warn!(target: "rustls::common_state", "handshake");
        tracing::debug!(target: "netlink", "other");
        tracing::info!(target: "netlink", "chatter");
    };
    let loud = json(Verbosity::Trace, log);
    assert!(!loud.contains("very-secret"));
    assert!(loud.contains("handshake") && loud.contains("other"));
    assert!(!json(Verbosity::Info, log).contains("chatter"));
}

#[test]
fn what_the_sdk_cannot_find_to_close_after_a_failed_call_is_no_error() {
    let log = || {
        tracing::error!(
            target: "aws_smithy_runtime::client::http::connection_poisoning",
            "unable to mark the connection for closure"
        );
        tracing::error!(target: "aws_smithy_runtime::client::orchestrator", "broken");
    };
    for verbosity in [Verbosity::Info, Verbosity::Trace] {
        let lines = json(verbosity, log);
        assert_eq!(lines.lines().count(), 1, "{lines}");
        assert!(lines.contains("broken"), "{lines}");
    }
}

/// What a pod does to a log when it repeats itself.
fn provoke() {
    for round in 0..3 {
        for _ in 0..10 {
            let subject = "Bearer(redacted)";
            tracing::warn!(?subject, error = round, "a token is refused");
        }
        tracing::warn!(pod_uid = round, "a pod is odd");
    }
}

#[test]
fn a_line_that_a_pod_repeats_is_written_once_and_counted() {
    let lost = lost_lines().unwrap();
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = json_lines(move || writer.clone(), targets(Verbosity::Info), &lost);
    tracing::subscriber::with_default(subscriber, provoke);
    let text = captured.text();
    assert_eq!(text.matches("a token is refused").count(), 1, "{text}");
    assert_eq!(text.matches("a pod is odd").count(), 3, "{text}");
    assert_eq!(lost.with_label_values(&["repeated"]).get(), 29);
}

#[test]
fn the_next_line_says_how_many_were_left_out() {
    let log = || {
        for number in 0..3 {
            for _ in 0..5 {
                tracing::warn!(peer = number, "a peer is odd");
            }
        }
    };
    let lines = json(Verbosity::Info, log);
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let left_out: Vec<_> = lines.map(|line: Value| line["left_out"].as_u64()).collect();
    assert_eq!(left_out, [None, Some(4), Some(4)]);

    let captured = Captured::default();
    let writer = captured.clone();
    let lost = lost_lines().unwrap();
    let subscriber = text_lines(
        move || writer.clone(),
        targets(Verbosity::Info),
        false,
        &lost,
    );
    tracing::subscriber::with_default(subscriber, log);
    let text = captured.text();
    assert!(text.contains("a peer is odd peer=2 left_out=4\n"), "{text}");
}

#[test]
fn at_debug_level_no_line_is_left_out() {
    let log = || {
        for _ in 0..100 {
            tracing::debug!(peer = 1, "a peer is odd");
        }
    };
    assert_eq!(json(Verbosity::Debug, log).lines().count(), 100);
}

#[test]
fn what_is_logged_changes_without_a_restart_and_never_shows_a_crate_that_sees_secrets() {
    let captured = Captured::default();
    let writer = captured.clone();
    let filter = Filter::from(Verbosity::Info);
    let (layer, handle) = reload::Layer::new(filter.targets());
    let subscriber = json_lines(move || writer.clone(), layer, &lost_lines().unwrap());
    let log = || {
        tracing::debug!("of ours");
        tracing::trace!(target: "hyper::proto", "a secret");
    };
    tracing::subscriber::with_default(subscriber, || {
        log();
        assert!(!captured.text().contains("of ours"));
        let loud: Filter = "warn,podcreds_ops=trace".parse().unwrap();
        handle.reload(loud.targets()).unwrap();
        log();
        assert!(captured.text().contains("of ours"));
        handle
            .reload(Filter::from(Verbosity::Trace).targets())
            .unwrap();
        log();
        assert!(!captured.text().contains("a secret"));
    });
}
