//! What the kubelet asks: is the agent alive, and is it of use yet?

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use tokio::{runtime::Handle, time::timeout};

use super::{
    http::{Listen, not_found, serve, text},
    pulse::Pulse,
};

/// How long the serving runtime may take to run an empty task. Pods' SDKs give up after 1 to 2 s.
const STALL: Duration = Duration::from_secs(2);

/// Whether the agent is of use: once everything that it waits for is there, until it ends.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    awaited: Vec<&'static str>,
    /// What whoever asks should know, though it is no reason not to be ready.
    remarks: Vec<String>,
    draining: bool,
}

/// One thing that the agent waits for. Dropped without [`Gate::open`], it is never ready.
#[must_use = "the agent is not ready before the gate is opened"]
pub struct Gate {
    readiness: Readiness,
    what: &'static str,
}

/// That without which the agent is of no use.
#[derive(Clone)]
pub struct Vitals {
    /// The runtime that answers pods.
    pub serving: Handle,
    /// The pulse of the thread that finds them.
    pub datapath: Pulse,
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

    /// Has something said to whoever asks, as long as the agent is ready.
    pub fn remark(&self, remark: impl Into<String>) {
        self.lock().remarks.push(remark.into());
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
    pub fn check(&self) -> Result<Vec<String>, String> {
        let state = self.lock();
        if state.draining {
            return Err("draining".to_owned());
        }
        if !state.awaited.is_empty() {
            return Err(format!("waiting for {}", state.awaited.join(", ")));
        }
        Ok(state.remarks.clone())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Vitals {
    /// Whether all of it is alive.
    ///
    /// # Errors
    ///
    /// What is not.
    async fn check(&self) -> Result<(), String> {
        responds(&self.serving).await?;
        self.datapath
            .check()
            .map_err(|silence| format!("the datapath's thread has done nothing for {silence:?}"))
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
/// It must run on another runtime than the one that answers pods: a stalled one is what `/healthz` is
/// there to notice. To the pods it is worse than a dead one, because the kernel still sends them there.
pub async fn serve_probes(
    listener: impl Listen,
    readiness: Readiness,
    vitals: Vitals,
) -> Infallible {
    serve(listener, move |path| {
        let (readiness, vitals) = (readiness.clone(), vitals.clone());
        async move {
            match path.as_str() {
                "/healthz" => verdict(vitals.check().await.map(|()| Vec::new())),
                "/readyz" => verdict(readiness.check()),
                _ => not_found("/healthz and /readyz"),
            }
        }
    })
    .await
}

async fn responds(serving: &Handle) -> Result<(), String> {
    match timeout(STALL, serving.spawn(async {})).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err("the serving runtime has ended".to_owned()),
        Err(_) => Err(format!(
            "the serving runtime has done nothing for {STALL:?}"
        )),
    }
}

fn verdict(check: Result<Vec<String>, String>) -> Response<Full<Bytes>> {
    match check {
        Ok(remarks) => {
            let lines = ["ok".to_owned()].into_iter().chain(remarks);
            text(
                StatusCode::OK,
                lines.map(|line| line + "\n").collect::<String>(),
            )
        }
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, net::SocketAddr, sync::mpsc};

    use tokio::{
        net::{TcpListener, UnixListener},
        runtime::Builder,
        sync::oneshot,
    };

    use super::*;
    use crate::ops::{ask::ask, http::tests::fetch};

    fn vitals(serving: Handle) -> Vitals {
        let datapath = Pulse::default();
        Vitals { serving, datapath }
    }

    async fn probes(readiness: Readiness, serving: Handle) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve_probes(listener, readiness, vitals(serving)));
        address
    }

    #[tokio::test]
    async fn ready_when_every_gate_is_open_and_until_the_drain() {
        let readiness = Readiness::new();
        let datapath = readiness.gate("the datapath");
        let upstream = readiness.gate("credentials of the node");
        let address = probes(readiness.clone(), Handle::current()).await;

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
    async fn health_is_the_serving_runtimes() {
        let serving = Builder::new_current_thread().build().unwrap();
        let (end, ended) = oneshot::channel::<()>();
        let handle = serving.handle().clone();
        let thread = std::thread::spawn(move || serving.block_on(ended));
        let address = probes(Readiness::new(), handle.clone()).await;
        let answer = fetch(address, "GET", "/healthz").await;
        assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");

        let (release, held) = mpsc::channel::<()>();
        handle.spawn(async move { held.recv() });
        let answer = fetch(address, "GET", "/healthz").await;
        assert!(answer.starts_with("HTTP/1.0 503 "), "{answer}");
        assert!(answer.contains("has done nothing for 2s"), "{answer}");
        drop(release);
        let answer = fetch(address, "GET", "/healthz").await;
        assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");

        end.send(()).unwrap();
        thread.join().unwrap().unwrap();
        let answer = fetch(address, "GET", "/healthz").await;
        assert!(answer.contains("the serving runtime has ended"), "{answer}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn whoever_asks_through_the_socket_gets_a_yes_or_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent.sock");
        let refused = ask(&socket, "/readyz").unwrap_err();
        assert!(refused.contains("agent.sock"), "{refused}");

        let readiness = Readiness::new();
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(serve_probes(
            listener,
            readiness.clone(),
            vitals(Handle::current()),
        ));
        let ask = |path: &'static str| {
            let socket = socket.clone();
            tokio::task::spawn_blocking(move || ask(&socket, path))
        };
        readiness.remark("half of it");
        assert_eq!(ask("/readyz").await.unwrap().unwrap(), "ok\nhalf of it\n");
        let gate = readiness.gate("the datapath");
        let waiting = "waiting for the datapath".to_owned();
        assert_eq!(ask("/readyz").await.unwrap(), Err(waiting));
        assert_eq!(ask("/healthz").await.unwrap().unwrap(), "ok\n");
        gate.open();
        assert!(ask("/readyz").await.unwrap().is_ok());
    }
}
