//! The listeners in network namespaces, opened and closed as pods come and go.

mod addresses;
mod given_up;
pub(crate) mod location;
pub(crate) mod namespace;
pub(crate) mod nested;
pub(crate) mod netns;

use std::{
    collections::{HashMap, HashSet},
    io, mem,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use podcreds_common::PodEndpoint;
use podcreds_types::{Vitals, restarted};
use tokio::{runtime::Handle, time::sleep};

use self::{
    addresses::Subscription,
    given_up::GivenUpPorts,
    location::{Location, News, NewsReceiver, NewsSender, ReachabilityResult},
    namespace::{Fresh, Namespace, OpenListener, Scope, VisitResult, open_v4, open_v6},
    netns::{Netns, NetnsId},
};
use super::{
    BACKLOG_PAUSE,
    accept::Acceptor,
    listeners::{self, Listeners, reachability},
    metrics::Metrics,
    poll_set::PollSet,
    programs::Programs,
};

/// What a task does, where it is to be named.
const WATCHING: &str = "watching the pods' addresses";

/// How long a listener that has died stays closed. A process with `CAP_NET_ADMIN` in a pod can
/// destroy it all day.
const REOPEN_PAUSE: Duration = Duration::from_millis(250);

/// The locations that have listeners of ours.
pub(super) struct Namespaces {
    /// Boxed, since half of a map's slots are empty.
    open: HashMap<Location, Box<Namespace>>,
    /// Those of the open locations that are one pod's, few as they are.
    of_one_pod: HashSet<Location>,
    /// Those that have to be visited until all is well there.
    troubled: HashSet<Location>,
    given_up: GivenUpPorts,
    listeners: Listeners,
    /// Hears of changes of links and addresses.
    subscriptions: Arc<PollSet<Subscription>>,
    news: NewsSender,
    metrics: Metrics,
}

impl Namespaces {
    /// No locations yet, and the receiver of their news.
    pub(super) fn new(
        acceptor: Acceptor,
        serving: &Handle,
        vitals: &Vitals,
        metrics: Metrics,
    ) -> io::Result<(Self, NewsReceiver)> {
        let (news, receiver) = location::news();
        let (changed, died) = (news.clone(), news.clone());
        let subscriptions = Arc::new(PollSet::new()?);
        let watched = Arc::clone(&subscriptions);
        let vital = vitals.task(WATCHING);
        tokio::spawn(restarted(vital, WATCHING, move || {
            let changed = changed.clone();
            addresses::watch(Arc::clone(&watched), move |location| {
                changed.send(News::Changed(location))
            })
        }));
        let take = Box::new(listeners::take);
        let accept = Box::new(move |stream, netns| acceptor.pass_on(stream, netns));
        let on_death = Box::new(move |netns| {
            died.send(News::Died(netns));
        });
        let namespaces = Self {
            open: HashMap::new(),
            of_one_pod: HashSet::new(),
            troubled: HashSet::new(),
            given_up: GivenUpPorts::default(),
            listeners: Listeners::start(take, accept, on_death, &metrics, serving, vitals)?,
            subscriptions,
            news,
            metrics,
        };
        Ok((namespaces, receiver))
    }

    /// Adds a pod to a location in `netns`, and listens there if it is the first. Says where.
    pub(super) fn join(
        &mut self,
        programs: &mut Programs,
        location: Location,
        netns: Netns,
        pod: u64,
    ) -> io::Result<PodEndpoint> {
        if !self.open.contains_key(&location) {
            let namespace = self.listen(programs, location, netns)?;
            if namespace.unreached() > 0 {
                // The machine may have been too slow.
                self.try_again(location);
            }
            self.open.insert(location, Box::new(namespace));
            if location.only.is_some() {
                self.of_one_pod.insert(location);
            }
            self.count_namespaces();
            self.assess(location);
        }
        let namespace = self
            .open
            .get_mut(&location)
            .ok_or(io::ErrorKind::NotFound)?;
        namespace.pods.push(pod);
        namespace.published = namespace.endpoint();
        Ok(namespace.published)
    }

    /// Takes a pod from a location, and closes its listeners soon after the last has left.
    pub(super) fn leave(&mut self, location: Location, pod: u64) {
        let Some(namespace) = self.open.get_mut(&location) else {
            return;
        };
        if let Some(at) = namespace.pods.iter().position(|other| *other == pod) {
            namespace.pods.swap_remove(at);
        }
        if !namespace.pods.is_empty() {
            return;
        }
        namespace.count_unreached(0, &self.metrics.unreachable);
        if let Some(left) = self.open.remove(&location) {
            close_later(left.v6.into_iter().chain([left.v4]));
        }
        self.of_one_pod.remove(&location);
        self.troubled.remove(&location);
        let netns = location.netns;
        let mut left = self.open.keys();
        self.given_up
            .forget_unless(netns, || left.any(|it| it.netns == netns));
        self.count_namespaces();
    }

    /// The pods that are at a location.
    pub(super) fn pods_at(&self, location: Location) -> Vec<u64> {
        let namespace = self.open.get(&location);
        namespace.map_or_else(Vec::new, |namespace| namespace.pods.clone())
    }

    /// Whether a namespace is a pod's own, or the host's.
    pub(super) fn is_own(&self, netns: NetnsId) -> bool {
        self.open.contains_key(&Location { netns, only: None })
    }

    /// Sets the gauge. A namespace counts once, however many locations it has.
    fn count_namespaces(&self) {
        let shared = self.open.len() - self.of_one_pod.len();
        let single = self.of_one_pod.iter().map(|location| location.netns);
        let single: HashSet<NetnsId> = single.filter(|netns| !self.is_own(*netns)).collect();
        let count = i64::try_from(shared + single.len()).unwrap_or(i64::MAX);
        self.metrics.namespaces.set(count);
    }

    /// Notes how a location is: which of its listeners can be reached, and whether it has to be
    /// visited again.
    fn assess(&mut self, location: Location) {
        let Some(namespace) = self.open.get_mut(&location) else {
            return;
        };
        let unreached = namespace.unreached();
        namespace.count_unreached(unreached, &self.metrics.unreachable);
        if unreached > 0 || namespace.is_impaired(self.given_up.of(location.netns)) {
            self.troubled.insert(location);
        } else {
            self.troubled.remove(&location);
        }
    }

    /// The locations that have to be visited until all is well there.
    pub(super) fn troubled(&self) -> &HashSet<Location> {
        &self.troubled
    }

    /// A listener in a namespace has died: opens it again in a moment.
    pub(super) fn reopen_soon(&mut self, netns: u64) {
        let open = self.open.iter();
        let of_it = open.filter_map(|(location, open)| (open.cookie == netns).then_some(*location));
        for location in of_it.collect::<Vec<_>>() {
            self.assess(location);
            let news = self.news.clone();
            tokio::spawn(async move {
                sleep(REOPEN_PAUSE).await;
                news.send(News::Changed(location));
            });
        }
    }

    /// The locations that are open.
    pub(super) fn locations(&self) -> Vec<Location> {
        self.open.keys().copied().collect()
    }

    /// Brings the listeners of a location in line with what the namespace has and needs: one that
    /// has died is opened again, IPv6 may have come or gone, and those in `scope` are tried. Says
    /// where to send pods from now on, if that is elsewhere.
    ///
    /// An IPv6 listener that is of no more use is open until [`Self::retire_v6`].
    pub(super) fn refresh(
        &mut self,
        programs: &mut Programs,
        location: Location,
        scope: Scope,
    ) -> io::Result<Option<PodEndpoint>> {
        let Some(namespace) = self.open.get_mut(&location) else {
            return Ok(None);
        };
        namespace.outdate(scope);
        namespace.v6.take_if(|v6| v6.served.is_dead());
        let visited = namespace.visit(scope, self.given_up.of(location.netns));
        let applied = visited.and_then(|visit| self.apply(programs, location, visit));
        self.assess(location);
        applied.map(|()| self.changed(location))
    }

    fn apply(
        &mut self,
        programs: &mut Programs,
        location: Location,
        visit: VisitResult,
    ) -> io::Result<()> {
        let v4 = visit.v4.map(|v4| self.serve(programs, v4)).transpose()?;
        let v6 = visit.v6.map(|v6| self.serve(programs, v6)).transpose()?;
        let Some(namespace) = self.open.get_mut(&location) else {
            return Ok(());
        };
        for (address, attempt) in visit.attempts {
            let Some(open) = namespace.at(address) else {
                continue;
            };
            match attempt {
                Ok(attempt) => {
                    open.is_tried = true;
                    let news = self.news.clone();
                    tokio::spawn(async move {
                        let is_reached = attempt.succeeds().await;
                        news.send(News::Tried(ReachabilityResult {
                            location,
                            address,
                            is_reached,
                        }));
                    });
                }
                Err(error) if reachability::is_no_way(&error) => open.is_reached = false,
                Err(error) => tracing::debug!(%error, "cannot try to reach a listener"),
            }
        }
        let mut replaced = Vec::new();
        if let Some(v4) = v4 {
            replaced.push(mem::replace(&mut namespace.v4, v4));
        }
        if v6.is_some() || visit.gives_up_v6 {
            replaced.extend(mem::replace(&mut namespace.v6, v6));
        }
        close_later(replaced);
        namespace.has_ipv6 = visit.has_ipv6;
        Ok(())
    }

    /// Takes in what came of trying. Says where to send pods from now on, if that is elsewhere.
    pub(super) fn settle(&mut self, outcome: &ReachabilityResult) -> Option<PodEndpoint> {
        let open = self.open.get_mut(&outcome.location)?.at(outcome.address)?;
        open.is_tried = false;
        open.is_reached = outcome.is_reached;
        if mem::take(&mut open.is_outdated) {
            self.try_again(outcome.location);
        }
        self.assess(outcome.location);
        self.changed(outcome.location)
    }

    /// Where to send pods from now on, if that is elsewhere.
    fn changed(&mut self, location: Location) -> Option<PodEndpoint> {
        let namespace = self.open.get_mut(&location)?;
        let endpoint = namespace.endpoint();
        (mem::replace(&mut namespace.published, endpoint) != endpoint).then_some(endpoint)
    }

    /// Leaves a port to an application that wants it. Returns the locations with a listener there,
    /// which have to be [refreshed](Self::refresh): each family may have it at another one.
    pub(super) fn give_up_port(&mut self, netns: u64, port: u16) -> Vec<Location> {
        let open = self.open.iter();
        let holders = open.filter(|(_, open)| open.cookie == netns && open.has_port(port));
        let holders: Vec<Location> = holders.map(|(location, _)| *location).collect();
        match holders.first() {
            Some(holder) if !self.given_up.add(holder.netns, port) => Vec::new(),
            _ => holders,
        }
    }

    /// The addresses that connections from a location's namespace can have, if they are not
    /// changed.
    pub(super) fn addresses(&self, location: Location) -> io::Result<Vec<IpAddr>> {
        let Some(namespace) = self.open.get(&location) else {
            return Ok(Vec::new());
        };
        namespace.netns.run(addresses::all)
    }

    /// Has a location tried once what goes on now is done.
    fn try_again(&self, location: Location) {
        self.news.send(News::Changed(location));
    }

    /// Closes an IPv6 listener in a namespace that has no IPv6 any more.
    pub(super) fn retire_v6(&mut self, location: Location) {
        let namespace = self.open.get_mut(&location).filter(|it| !it.has_ipv6);
        close_later(namespace.and_then(|it| it.v6.take()));
    }

    /// Accepts what waits in the backlogs, then closes all listeners.
    pub(super) async fn drain(&mut self) {
        self.listeners.drain().await;
        self.open.clear();
        self.of_one_pod.clear();
        self.troubled.clear();
        self.given_up = GivenUpPorts::default();
        self.metrics.unreachable.set(0);
        self.count_namespaces();
    }

    fn listen(
        &self,
        programs: &mut Programs,
        location: Location,
        netns: Netns,
    ) -> io::Result<Namespace> {
        let given_up = self.given_up.of(location.netns);
        let (addresses, v4, v6) = netns.run(|| {
            // First the subscription, so that no change after the look at the addresses is missed.
            let addresses = addresses::subscribe();
            Ok((addresses, open_v4(given_up)?, open_v6(given_up)?))
        })?;
        let subscribed = addresses
            .and_then(|netlink| self.subscriptions.add(Subscription { netlink, location }));
        let addresses = match subscribed {
            Ok(addresses) => Some(addresses),
            Err(error) => {
                tracing::warn!(%error, "changes of a pod's addresses will be noticed late");
                None
            }
        };
        Ok(Namespace {
            netns,
            cookie: v4.listener.netns,
            has_ipv6: v6.is_some(),
            v4: self.serve(programs, v4)?,
            v6: v6.map(|v6| self.serve(programs, v6)).transpose()?,
            addresses,
            pods: Vec::new(),
            counted_unreached: 0,
            published: PodEndpoint::default(),
        })
    }

    /// Marks a new listener as ours, and accepts from it.
    fn serve(&self, programs: &mut Programs, fresh: Fresh) -> io::Result<OpenListener> {
        let Fresh {
            mut listener,
            is_reached,
        } = fresh;
        programs.tag_listener(&mut listener)?;
        Ok(OpenListener {
            address: listener.socket.local_addr()?.ip(),
            port: listener.port,
            served: self.listeners.serve(listener)?,
            is_reached,
            is_tried: false,
            is_outdated: false,
        })
    }
}

/// Closes listeners to which connects may be under way, when those have arrived.
fn close_later(listeners: impl IntoIterator<Item = OpenListener>) {
    let listeners: Vec<_> = listeners.into_iter().collect();
    if !listeners.is_empty() {
        tokio::spawn(async move {
            sleep(BACKLOG_PAUSE).await;
            drop(listeners);
        });
    }
}
