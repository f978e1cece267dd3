//! The node path: ordinary listeners on the host, for callers that no program redirects.

use std::{
    net::{SocketAddr, TcpListener},
    time::Instant,
};

use tokio::{net::TcpStream, runtime::Handle, sync::watch, task::JoinHandle};

use super::{Accepted, DatapathError, Metrics, OnAccept, accept::accept_until};
use crate::identity::Evidence;

/// Listeners on addresses of the host. Only the token says who calls there.
pub struct NodePath {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    addresses: Vec<SocketAddr>,
}

impl NodePath {
    /// Listens on every one of `addresses`, and accepts on `serving`.
    ///
    /// # Errors
    ///
    /// When one of them cannot be listened on.
    pub fn start(
        addresses: &[SocketAddr],
        on_accept: &OnAccept,
        serving: &Handle,
        metrics: &Metrics,
    ) -> Result<Self, DatapathError> {
        let stop = watch::Sender::new(false);
        let mut tasks = Vec::new();
        let mut bound = Vec::new();
        for address in addresses {
            let listener = listen(*address).map_err(|source| DatapathError::Bind {
                address: address.to_string(),
                source,
            })?;
            bound.push(listener.local_addr().unwrap_or(*address));
            metrics.listeners.inc();
            let (on_accept, metrics) = (on_accept.clone(), metrics.clone());
            let stop = stop.subscribe();
            tasks.push(serving.spawn(async move {
                let accept = |stream: TcpStream, accepted: Instant| {
                    on_accept(Accepted {
                        stream,
                        evidence: Evidence::NodePath,
                        accepted,
                        connected: None,
                    });
                };
                accept_until(listener, stop, &metrics, accept).await;
                metrics.listeners.dec();
            }));
        }
        Ok(Self {
            stop,
            tasks,
            addresses: bound,
        })
    }

    /// The addresses that are listened on, with the ports that the kernel chose for port 0.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Accepts what waits in the backlogs, then closes the listeners.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            // It ends by itself; were it to panic, its listener would be closed all the same.
            let _ended = task.await;
        }
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
