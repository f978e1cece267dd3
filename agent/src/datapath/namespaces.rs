//! The listeners in network namespaces, opened and closed as pods come and go.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::Arc,
};

use podcreds_common::Endpoint;
use tokio::{runtime::Handle, sync::mpsc};

use super::{
    accept::Acceptor,
    addresses::{self, Subscription},
    listener::{self, Listener},
    listeners::{Listeners, Served},
    metrics::Metrics,
    netns::{Netns, NetnsId},
    poll_set::{Membership, PollSet},
    programs::Programs,
};
use crate::types::{Vitals, restarted};

/// What a task does, where it is to be named.
const HEARING: &str = "hearing of the pods' addresses";

/// Where listeners are: in a namespace, for all of its pods or for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) netns: NetnsId,
    /// A pod's cgroup id, in a namespace whose pods must not wait in one queue.
    pub(super) only: Option<u64>,
}

/// The places that have listeners of ours.
pub(super) struct Namespaces {
    /// Boxed, since half of a map's slots are empty.
    open: HashMap<Place, Box<Namespace>>,
    listeners: Listeners,
    /// Tell of changes of IPv6 addresses.
    subscriptions: Arc<PollSet<Subscription>>,
    metrics: Metrics,
}

/// One place with listeners of ours.
struct Namespace {
    netns: Netns,
    endpoint: Endpoint,
    v4: Served,
    v6: Option<Served>,
    /// `None` if the kernel would not tell of changes.
    _addresses: Option<Membership<Subscription>>,
    /// How many pods use it.
    pods: usize,
}

/// What a visit to a namespace brings back.
struct Visit {
    v4: Option<Listener>,
    v6: Option<Listener>,
    has_ipv6: bool,
}

impl Namespaces {
    /// No places yet, and where to hear of those whose IPv6 addresses have changed.
    pub(super) fn new(
        acceptor: Acceptor,
        serving: &Handle,
        vitals: &Vitals,
        metrics: Metrics,
    ) -> io::Result<(Self, mpsc::UnboundedReceiver<Place>)> {
        let (changed, changes) = mpsc::unbounded_channel();
        let subscriptions = Arc::new(PollSet::new()?);
        let watched = Arc::clone(&subscriptions);
        let vital = vitals.task(HEARING);
        tokio::spawn(restarted(vital, HEARING, move || {
            let changed = changed.clone();
            addresses::watch(Arc::clone(&watched), move |place| {
                changed.send(place).is_ok()
            })
        }));
        let accept = Box::new(move |stream, netns| acceptor.pass_on(stream, netns));
        let namespaces = Self {
            open: HashMap::new(),
            listeners: Listeners::start(accept, &metrics, serving, vitals)?,
            subscriptions,
            metrics,
        };
        Ok((namespaces, changes))
    }

    /// Counts one more pod into a place in `netns`, and listens there if it is the first. Says where.
    pub(super) fn join(
        &mut self,
        programs: &mut Programs,
        place: Place,
        netns: Netns,
    ) -> io::Result<Endpoint> {
        if !self.open.contains_key(&place) {
            let namespace = self.listen(programs, place, netns)?;
            self.open.insert(place, Box::new(namespace));
            self.count();
        }
        let namespace = self.open.get_mut(&place).ok_or(io::ErrorKind::NotFound)?;
        namespace.pods += 1;
        Ok(namespace.endpoint)
    }

    /// Counts one pod out of a place, and closes its listeners with the last.
    pub(super) fn leave(&mut self, place: Place) {
        let Some(namespace) = self.open.get_mut(&place) else {
            return;
        };
        namespace.pods -= 1;
        if namespace.pods > 0 {
            return;
        }
        self.open.remove(&place);
        self.count();
    }

    /// Sets the gauge: a namespace counts once, however many places it has.
    fn count(&self) {
        let namespaces: HashSet<NetnsId> = self.open.keys().map(|place| place.netns).collect();
        let count = i64::try_from(namespaces.len()).unwrap_or(i64::MAX);
        self.metrics.namespaces.set(count);
    }

    /// The places that are open.
    pub(super) fn places(&self) -> Vec<Place> {
        self.open.keys().copied().collect()
    }

    /// Brings the listeners of a place in line with what the namespace has and needs: one that has died is opened
    /// anew, and IPv6 may have come or gone. Says where to send pods from now on, if that is elsewhere.
    ///
    /// An IPv6 listener that is of no more use is open until [`Self::retire_v6`].
    pub(super) fn refresh(
        &mut self,
        programs: &mut Programs,
        place: Place,
    ) -> io::Result<Option<Endpoint>> {
        let Some(namespace) = self.open.get_mut(&place) else {
            return Ok(None);
        };
        if namespace.v6.as_ref().is_some_and(Served::is_dead) {
            namespace.v6 = None;
            namespace.endpoint.port6 = 0;
        }
        let (v4_is_dead, v6_is_open) = (namespace.v4.is_dead(), namespace.v6.is_some());
        let visit = namespace.netns.run(|| {
            Ok(Visit {
                v4: v4_is_dead.then(listener::open_v4).transpose()?,
                v6: if v6_is_open {
                    None
                } else {
                    listener::open_v6()?
                },
                has_ipv6: listener::has_ipv6(),
            })
        })?;
        self.apply(programs, place, visit)
    }

    fn apply(
        &mut self,
        programs: &mut Programs,
        place: Place,
        visit: Visit,
    ) -> io::Result<Option<Endpoint>> {
        for listener in visit.v4.iter().chain(&visit.v6) {
            programs.tag_listener(&listener.socket, listener.netns)?;
        }
        let (port4, port6) = (port(visit.v4.as_ref()), port(visit.v6.as_ref()));
        let serve = |listener: Option<Listener>| {
            let served = listener.map(|listener| self.listeners.serve(listener));
            served.transpose()
        };
        let (v4, v6) = (serve(visit.v4)?, serve(visit.v6)?);
        let Some(namespace) = self.open.get_mut(&place) else {
            return Ok(None);
        };
        let before = namespace.endpoint;
        if let Some(v4) = v4 {
            namespace.v4 = v4;
            namespace.endpoint.port4 = port4;
        }
        if v6.is_some() {
            namespace.v6 = v6;
            namespace.endpoint.port6 = port6;
        } else if !visit.has_ipv6 {
            namespace.endpoint.port6 = 0;
        }
        Ok((namespace.endpoint != before).then_some(namespace.endpoint))
    }

    /// Closes an IPv6 listener that pods are no longer sent to.
    pub(super) fn retire_v6(&mut self, place: Place) {
        if let Some(namespace) = self.open.get_mut(&place)
            && namespace.endpoint.port6 == 0
        {
            namespace.v6 = None;
        }
    }

    /// Accepts what waits in the backlogs, then closes all listeners.
    pub(super) async fn drain(&mut self) {
        self.listeners.drain().await;
        self.open.clear();
        self.count();
    }

    fn listen(&self, programs: &mut Programs, place: Place, netns: Netns) -> io::Result<Namespace> {
        let (addresses, v4, v6) = netns.run(|| {
            // First the subscription, so that no change after the look at the addresses is missed.
            let addresses = addresses::subscribe();
            Ok((addresses, listener::open_v4()?, listener::open_v6()?))
        })?;
        for listener in std::iter::once(&v4).chain(&v6) {
            programs.tag_listener(&listener.socket, listener.netns)?;
        }
        let endpoint = Endpoint {
            netns: v4.netns,
            port4: v4.port,
            port6: port(v6.as_ref()),
            reserved: 0,
        };
        let subscribed =
            addresses.and_then(|netlink| self.subscriptions.add(Subscription { netlink, place }));
        let addresses = match subscribed {
            Ok(addresses) => Some(addresses),
            Err(error) => {
                tracing::warn!(%error, "changes of a pod's IPv6 addresses will be noticed late");
                None
            }
        };
        Ok(Namespace {
            netns,
            endpoint,
            v4: self.listeners.serve(v4)?,
            v6: v6.map(|v6| self.listeners.serve(v6)).transpose()?,
            _addresses: addresses,
            pods: 0,
        })
    }
}

fn port(listener: Option<&Listener>) -> u16 {
    listener.map_or(0, |listener| listener.port)
}
