//! What the kubelet asks: is the agent alive, and is it of use yet?

use std::{
    convert::Infallible,
    fmt::Display,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;

use super::{
    http::{Listen, not_found, serve, text},
    watchdog::VitalsHealth,
};

/// Whether the agent is of use: once everything that it waits for is there, until it ends.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Mutex<ReadinessState>>);

#[derive(Default)]
struct ReadinessState {
    awaited: Vec<&'static str>,
    /// What an operator should know, though it is no reason not to be ready.
    remarks: Vec<Arc<str>>,
    /// The same, where it is found out whenever somebody asks.
    conditions: Vec<Condition>,
    draining: bool,
}

/// What is to be said now, if anything.
type Condition = Box<dyn Fn() -> Option<String> + Send>;

/// Why the agent is of no use now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// It is about to end.
    #[error("draining")]
    Draining,
    /// It waits for these things.
    #[error("waiting for {}", .0.join(", "))]
    Waiting(Vec<&'static str>),
}

/// One thing that the agent waits for. Dropped without [`Gate::open`], it is never ready.
#[must_use = "the agent is not ready before the gate is opened"]
pub struct Gate {
    readiness: Readiness,
    what: &'static str,
}

/// A line in the answer to `/readyz` until this is dropped.
#[must_use = "it is said for as long as this is kept"]
pub struct Remark {
    readiness: Readiness,
    text: Arc<str>,
}

impl Drop for Remark {
    fn drop(&mut self) {
        let mut state = self.readiness.lock();
        state.remarks.retain(|text| !Arc::ptr_eq(text, &self.text));
    }
}

impl Readiness {
    /// Ready, until the first gate is put up.
    pub fn new() -> Self {
        Self::default()
    }

    /// Not ready before this gate is opened. `what` completes the sentence "waiting for ...".
    pub fn gate(&self, what: &'static str) -> Gate {
        self.lock().awaited.push(what);
        Gate {
            readiness: self.clone(),
            what,
        }
    }

    /// Adds a line to the answer, as long as the agent is ready.
    pub fn remark(&self, remark: impl Into<String>) {
        self.lock().remarks.push(remark.into().into());
    }

    /// Adds a line to the answer until the result is dropped.
    pub fn remark_while(&self, remark: impl Into<String>) -> Remark {
        let text: Arc<str> = remark.into().into();
        self.lock().remarks.push(Arc::clone(&text));
        Remark {
            readiness: self.clone(),
            text,
        }
    }

    /// Adds a line to the answer whenever there is one. Must not block.
    pub fn remark_if(&self, condition: impl Fn() -> Option<String> + Send + 'static) {
        self.lock().conditions.push(Box::new(condition));
    }

    /// Not ready any more: the agent is about to end.
    pub fn drain(&self) {
        self.lock().draining = true;
    }

    /// Whether the agent is ready, and what is to be said about it.
    ///
    /// # Errors
    ///
    /// Why it is not.
    pub fn check(&self) -> Result<Vec<String>, NotReady> {
        let state = self.lock();
        if state.draining {
            return Err(NotReady::Draining);
        }
        if !state.awaited.is_empty() {
            return Err(NotReady::Waiting(state.awaited.clone()));
        }
        let remarks = state.remarks.iter().map(|text| text.to_string());
        let conditions = state.conditions.iter().filter_map(|condition| condition());
        Ok(remarks.chain(conditions).collect())
    }

    fn lock(&self) -> MutexGuard<'_, ReadinessState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate {
    /// It is there.
    pub fn open(self) {
        let mut state = self.readiness.lock();
        if let Some(at) = state.awaited.iter().position(|&what| what == self.what) {
            state.awaited.remove(at);
        }
    }
}

/// Serves `/healthz` and `/readyz` for as long as it is polled.
///
/// It must run on another runtime than the one that answers pods: kubelet is to hear of it when
/// that one has stalled.
pub async fn serve_probes(
    listener: impl Listen,
    readiness: Readiness,
    health: VitalsHealth,
) -> Infallible {
    serve(listener, move |path| {
        let (readiness, health) = (readiness.clone(), health.clone());
        async move {
            match path.as_str() {
                "/healthz" => verdict(health.check().map(|()| Vec::new())),
                "/readyz" => verdict(readiness.check()),
                _ => not_found("/healthz and /readyz"),
            }
        }
    })
    .await
}

fn verdict(check: Result<Vec<String>, impl Display>) -> Response<Full<Bytes>> {
    match check {
        Ok(remarks) => {
            let lines = ["ok".to_owned()].into_iter().chain(remarks);
            text(
                StatusCode::OK,
                lines.map(|line| line + "\n").collect::<String>(),
            )
        }
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use podcreds_types::Vitals;
    use tokio::net::{TcpListener, UnixListener};

    use super::*;
    use crate::{ask::ask, http::tests::fetch};

    async fn probes(readiness: Readiness, health: VitalsHealth) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve_probes(listener, readiness, health));
        address
    }

    #[tokio::test]
    async fn ready_when_every_gate_is_open_and_until_the_drain() {
        let readiness = Readiness::new();
        let datapath = readiness.gate("the datapath");
        let upstream = readiness.gate("credentials of the node");
        let address = probes(readiness.clone(), VitalsHealth::default()).await;

        let answer = fetch(address, "GET", "/readyz").await;
        assert!(answer.starts_with("HTTP/1.0 503 "), "{answer}");
        let why = "waiting for the datapath, credentials of the node\n";
        assert!(answer.ends_with(why), "{answer}");
        datapath.open();
        let answer = fetch(address, "GET", "/readyz").await;
        assert!(
            answer.ends_with("\r\n\r\nwaiting for credentials of the node\n"),
            "{answer}"
        );
        upstream.open();
        let answer = fetch(address, "GET", "/readyz").await;
        assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
        assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
        readiness.remark("but slow");
        drop(readiness.remark_while("and for a moment without something"));
        let answer = fetch(address, "GET", "/readyz").await;
        assert!(answer.ends_with("\r\n\r\nok\nbut slow\n"), "{answer}");
        readiness.drain();
        let answer = fetch(address, "GET", "/readyz").await;
        assert!(answer.starts_with("HTTP/1.0 503 "), "{answer}");
        assert!(answer.ends_with("draining\n"), "{answer}");
    }

    #[tokio::test]
    async fn a_gate_that_is_lost_stays_shut() {
        let readiness = Readiness::new();
        drop(readiness.gate("something that failed"));
        assert!(readiness.check().is_err());
    }

    #[tokio::test]
    async fn health_is_that_of_the_vital_parts() {
        let vitals = Vitals::default();
        let part = vitals.task("a part");
        let address = probes(Readiness::new(), VitalsHealth::of(vitals)).await;
        let answer = fetch(address, "GET", "/healthz").await;
        assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
        drop(part);
        let answer = fetch(address, "GET", "/healthz").await;
        assert!(answer.starts_with("HTTP/1.0 503 "), "{answer}");
        assert!(answer.contains("\r\n\r\na part has ended"), "{answer}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_probe_through_the_socket_gets_a_yes_or_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent.sock");
        let refused = ask(&socket, "/readyz").unwrap_err().to_string();
        assert!(refused.contains("agent.sock"), "{refused}");

        let readiness = Readiness::new();
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(serve_probes(
            listener,
            readiness.clone(),
            VitalsHealth::default(),
        ));
        let ask = |path: &'static str| {
            let socket = socket.clone();
            tokio::task::spawn_blocking(move || ask(&socket, path))
        };
        readiness.remark("half of it");
        assert_eq!(ask("/readyz").await.unwrap().unwrap(), "ok\nhalf of it\n");
        readiness.remark_if(|| Some("nor the rest".to_owned()));
        readiness.remark_if(|| None);
        let said = ask("/readyz").await.unwrap().unwrap();
        assert_eq!(said, "ok\nhalf of it\nnor the rest\n");
        let gate = readiness.gate("the datapath");
        let waiting = ask("/readyz").await.unwrap().unwrap_err();
        assert_eq!(waiting.to_string(), "waiting for the datapath");
        assert_eq!(ask("/healthz").await.unwrap().unwrap(), "ok\n");
        gate.open();
        assert!(ask("/readyz").await.unwrap().is_ok());
    }
}
