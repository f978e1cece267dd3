//! The listeners in network namespaces, opened and closed as pods come and go.

use std::{collections::HashMap, io, os::fd::OwnedFd, sync::Arc};

use podcreds_common::Endpoint;
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::{
    accept::Acceptor,
    addresses,
    listener::{self, Listener},
    metrics::Metrics,
    netns::{Netns, NetnsId},
    programs::Programs,
};

/// The namespaces that have listeners of ours.
pub(super) struct Namespaces {
    open: HashMap<NetnsId, Namespace>,
    acceptor: Arc<Acceptor>,
    /// Runs the accept loops.
    serving: Handle,
    /// Turns true once, to end the accept loops.
    stop: watch::Sender<bool>,
    /// Hears of namespaces whose IPv6 addresses have changed.
    changed: mpsc::UnboundedSender<NetnsId>,
    metrics: Metrics,
}

/// One namespace with listeners of ours.
struct Namespace {
    netns: Netns,
    endpoint: Endpoint,
    v4: JoinHandle<()>,
    v6: Option<JoinHandle<()>>,
    addresses: Option<JoinHandle<()>>,
    /// How many pods use it.
    pods: usize,
}

/// What one visit to a namespace brings back.
struct Visit {
    v4: Listener,
    v6: Option<Listener>,
    addresses: io::Result<OwnedFd>,
}

impl Namespaces {
    pub(super) fn new(
        acceptor: Arc<Acceptor>,
        serving: Handle,
        metrics: Metrics,
    ) -> (Self, mpsc::UnboundedReceiver<NetnsId>) {
        let (changed, changes) = mpsc::unbounded_channel();
        let namespaces = Self {
            open: HashMap::new(),
            acceptor,
            serving,
            stop: watch::Sender::new(false),
            changed,
            metrics,
        };
        (namespaces, changes)
    }

    /// Counts one more pod into a namespace, and listens there if it is the first. Says where.
    pub(super) fn join(&mut self, programs: &mut Programs, netns: Netns) -> io::Result<Endpoint> {
        let id = netns.id();
        if !self.open.contains_key(&id) {
            let namespace = self.listen(programs, netns)?;
            self.open.insert(id, namespace);
            self.metrics.namespaces.set(gauge(self.open.len()));
        }
        let namespace = self.open.get_mut(&id).ok_or(io::ErrorKind::NotFound)?;
        namespace.pods += 1;
        Ok(namespace.endpoint)
    }

    /// Counts one pod out of a namespace, and closes its listeners with the last.
    pub(super) fn leave(&mut self, id: NetnsId) {
        let Some(namespace) = self.open.get_mut(&id) else {
            return;
        };
        namespace.pods -= 1;
        if namespace.pods > 0 {
            return;
        }
        if let Some(namespace) = self.open.remove(&id) {
            self.close(&namespace);
        }
        self.metrics.namespaces.set(gauge(self.open.len()));
    }

    /// Opens or closes the IPv6 listener after addresses have changed. Says where to send pods from now
    /// on, if that is elsewhere. The old listener is open until [`Self::retire_v6`].
    pub(super) fn refresh(
        &mut self,
        programs: &mut Programs,
        id: NetnsId,
    ) -> io::Result<Option<Endpoint>> {
        let Some(namespace) = self.open.get_mut(&id) else {
            return Ok(None);
        };
        let has_v6 = namespace.endpoint.port6 != 0;
        let listener = namespace.netns.run(move || {
            if has_v6 {
                return Ok((listener::has_ipv6(), None));
            }
            let listener = listener::open_v6()?;
            Ok((listener.is_some(), listener))
        })?;
        match listener {
            (true, Some(listener)) => {
                programs.tag_listener(&listener.socket, listener.netns)?;
                namespace.endpoint.port6 = listener.port;
                let task = self.serve(listener);
                if let Some(namespace) = self.open.get_mut(&id) {
                    namespace.v6 = Some(task);
                    return Ok(Some(namespace.endpoint));
                }
                Ok(None)
            }
            (false, _) if has_v6 => {
                namespace.endpoint.port6 = 0;
                Ok(Some(namespace.endpoint))
            }
            _ => Ok(None),
        }
    }

    /// Closes an IPv6 listener that pods are no longer sent to.
    pub(super) fn retire_v6(&mut self, id: NetnsId) {
        if let Some(namespace) = self.open.get_mut(&id)
            && namespace.endpoint.port6 == 0
            && let Some(task) = namespace.v6.take()
        {
            task.abort();
            self.metrics.listeners.dec();
        }
    }

    /// Accepts what waits in the backlogs, then closes all listeners.
    pub(super) async fn drain(&mut self) {
        self.stop.send_replace(true);
        for (_, namespace) in self.open.drain() {
            if let Some(task) = namespace.addresses {
                task.abort();
            }
            for task in std::iter::once(namespace.v4).chain(namespace.v6) {
                // It ends by itself; were it to panic, its listener would be closed all the same.
                let _ended = task.await;
                self.metrics.listeners.dec();
            }
        }
        self.metrics.namespaces.set(0);
    }

    fn listen(&self, programs: &mut Programs, netns: Netns) -> io::Result<Namespace> {
        let visit = netns.run(|| {
            Ok(Visit {
                // First the subscription, so that no change after the look at the addresses is missed.
                addresses: addresses::subscribe(),
                v4: listener::open_v4()?,
                v6: listener::open_v6()?,
            })
        })?;
        for listener in std::iter::once(&visit.v4).chain(&visit.v6) {
            programs.tag_listener(&listener.socket, listener.netns)?;
        }
        let endpoint = Endpoint {
            netns: visit.v4.netns,
            port4: visit.v4.port,
            port6: visit.v6.as_ref().map_or(0, |listener| listener.port),
            reserved: 0,
        };
        let addresses = match visit.addresses {
            Ok(socket) => Some(self.watch(socket, netns.id())),
            Err(error) => {
                tracing::warn!(%error, "changes of a pod's IPv6 addresses will not be noticed");
                None
            }
        };
        Ok(Namespace {
            netns,
            endpoint,
            v4: self.serve(visit.v4),
            v6: visit.v6.map(|listener| self.serve(listener)),
            addresses,
            pods: 0,
        })
    }

    fn serve(&self, listener: Listener) -> JoinHandle<()> {
        self.metrics.listeners.inc();
        let acceptor = Arc::clone(&self.acceptor);
        let stop = self.stop.subscribe();
        self.serving
            .spawn(acceptor.run(listener.socket, listener.netns, stop))
    }

    fn watch(&self, socket: OwnedFd, id: NetnsId) -> JoinHandle<()> {
        let changed = self.changed.clone();
        tokio::spawn(async move {
            if let Err(error) = addresses::watch(socket, || changed.send(id).is_ok()).await {
                tracing::warn!(%error, "a watch on a pod's IPv6 addresses ended");
            }
        })
    }

    fn close(&self, namespace: &Namespace) {
        for task in std::iter::once(&namespace.v4).chain(&namespace.v6) {
            task.abort();
            self.metrics.listeners.dec();
        }
        if let Some(task) = &namespace.addresses {
            task.abort();
        }
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
