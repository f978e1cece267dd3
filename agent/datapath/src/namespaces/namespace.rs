//! One network namespace with listeners of ours, and which of them can be reached.

use std::{
    io, mem,
    net::{IpAddr, SocketAddr},
};

use podcreds_common::PodEndpoint;
use prometheus::IntGauge;

use crate::{
    listeners::{
        ListenerGuard,
        listener::{self, Listener},
        reachability::{self, ReachabilityAttempt},
    },
    namespaces::{addresses::Subscription, netns::Netns},
    poll_set::PolledSocket,
};

/// Which listeners are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Those that no pod is sent to, since they could not be reached.
    Unreachable,
    /// All of them: something suggests trouble.
    All,
}

/// One location with listeners of ours.
pub(crate) struct Namespace {
    pub(crate) netns: Netns,
    /// Its cookie.
    pub(crate) cookie: u64,
    pub(crate) v4: OpenListener,
    pub(crate) v6: Option<OpenListener>,
    pub(crate) has_ipv6: bool,
    /// `None` if the kernel does not report changes.
    pub(crate) addresses: Option<PolledSocket<Subscription>>,
    /// The cgroup ids of the pods that use it; 0 is the agent itself.
    pub(crate) pods: Vec<u64>,
    /// How many of its listeners are in the gauge of those that cannot be reached.
    pub(crate) counted_unreached: usize,
    /// Where pods have been sent.
    pub(crate) published: PodEndpoint,
}

/// A listener of a location.
pub(crate) struct OpenListener {
    pub(crate) served: ListenerGuard,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    /// Whether pods can be sent there.
    pub(crate) is_reached: bool,
    /// Whether that is being tried.
    pub(crate) is_tried: bool,
    /// Whether something has changed meanwhile, so that it has to be tried again.
    pub(crate) is_outdated: bool,
}

/// A new listener, and whether it can be reached.
pub(crate) struct Fresh {
    pub(crate) listener: Listener,
    pub(crate) is_reached: bool,
}

/// What a visit to a namespace brings back.
pub(crate) struct VisitResult {
    pub(crate) v4: Option<Fresh>,
    pub(crate) v6: Option<Fresh>,
    /// Whether the IPv6 listener that is there has to go, though there is no other.
    pub(crate) gives_up_v6: bool,
    pub(crate) has_ipv6: bool,
    /// Connections to listeners that were there already.
    pub(crate) attempts: Vec<(SocketAddr, io::Result<ReachabilityAttempt>)>,
}

impl Namespace {
    /// Where pods are to be sent.
    pub(crate) fn endpoint(&self) -> PodEndpoint {
        PodEndpoint {
            netns: self.cookie,
            port4: self.v4.port(),
            port6: match &self.v6 {
                Some(v6) if self.has_ipv6 => v6.port(),
                _ => 0,
            },
            reported_at: 0,
        }
    }

    /// Opens what is not open, or is on one of the ports that are `given_up`, and begins to connect
    /// to the listeners in `scope`.
    pub(crate) fn visit(&self, scope: Scope, given_up: &[u16]) -> io::Result<VisitResult> {
        self.netns.run(|| {
            let v6 = self.new_v6(given_up)?;
            let is_in_the_way = self.v6.as_ref().is_some_and(|it| it.is_on(given_up));
            Ok(VisitResult {
                v4: self.new_v4(given_up)?,
                gives_up_v6: is_in_the_way && v6.is_none(),
                v6,
                has_ipv6: listener::has_ipv6(),
                attempts: self.attempts(scope),
            })
        })
    }

    /// A listener for IPv4, where one is needed.
    fn new_v4(&self, given_up: &[u16]) -> io::Result<Option<Fresh>> {
        let is_dead = self.v4.served.is_dead();
        if !is_dead && !self.v4.is_on(given_up) {
            return Ok(None);
        }
        let fresh = open_v4(given_up)?;
        Ok(Some(match is_dead {
            true => fresh,
            false => fresh.in_place_of(&self.v4),
        }))
    }

    /// A listener for IPv6, where one is needed, and can be had.
    fn new_v6(&self, given_up: &[u16]) -> io::Result<Option<Fresh>> {
        match &self.v6 {
            None => open_v6(given_up),
            Some(v6) if v6.is_on(given_up) => {
                Ok(open_v6(given_up)?.map(|fresh| fresh.in_place_of(v6)))
            }
            Some(_) => Ok(None),
        }
    }

    /// Whether a listener is on this port.
    pub(crate) fn has_port(&self, port: u16) -> bool {
        self.v4.port == port || self.v6.as_ref().is_some_and(|v6| v6.port == port)
    }

    /// Begins to connect to the listeners in `scope`, from the calling thread's namespace.
    fn attempts(&self, scope: Scope) -> Vec<(SocketAddr, io::Result<ReachabilityAttempt>)> {
        let tried = |open: &&OpenListener| {
            !open.is_tried && !open.served.is_dead() && (scope == Scope::All || !open.is_reached)
        };
        let begin = |open: &OpenListener| {
            let address = open.socket_address();
            let attempt = reachability::begin(address, |port| open.served.expect(port));
            (address, attempt)
        };
        let open = std::iter::once(&self.v4).chain(&self.v6);
        open.filter(tried).map(begin).collect()
    }

    /// The listener at an address.
    pub(crate) fn at(&mut self, address: SocketAddr) -> Option<&mut OpenListener> {
        let mut open = std::iter::once(&mut self.v4).chain(&mut self.v6);
        open.find(|open| open.socket_address() == address)
    }

    /// How many listeners cannot be reached.
    pub(crate) fn unreached(&self) -> usize {
        let open = std::iter::once(&self.v4).chain(&self.v6);
        open.filter(|open| !open.is_reached).count()
    }

    /// Changes its part in the gauge of listeners that cannot be reached.
    pub(crate) fn count_unreached(&mut self, unreached: usize, gauge: &IntGauge) {
        let before = mem::replace(&mut self.counted_unreached, unreached);
        gauge.add(as_i64(unreached) - as_i64(before));
    }

    /// Whether a listener is dead, or on a port that is given up, or changes of addresses
    /// are not reported.
    pub(crate) fn is_impaired(&self, given_up: &[u16]) -> bool {
        let mut open = std::iter::once(&self.v4).chain(&self.v6);
        let subscription = self.addresses.as_ref();
        open.any(|open| open.served.is_dead() || open.is_on(given_up))
            || !subscription.is_some_and(PolledSocket::is_valid)
    }

    /// Notes which of the tries that are under way say nothing about what is now.
    pub(crate) fn outdate(&mut self, scope: Scope) {
        for open in std::iter::once(&mut self.v4).chain(&mut self.v6) {
            open.is_outdated |= open.is_tried && scope == Scope::All;
        }
    }
}

impl OpenListener {
    /// Whether its port is given up.
    fn is_on(&self, given_up: &[u16]) -> bool {
        given_up.contains(&self.port)
    }

    fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// The port to send pods to; 0 for none.
    fn port(&self) -> u16 {
        if self.is_reached { self.port } else { 0 }
    }
}

fn as_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Listens on IPv4 in the calling thread's namespace, not on a port to `avoid`.
pub(crate) fn open_v4(avoid: &[u16]) -> io::Result<Fresh> {
    listener::open_v4(avoid).map(Fresh::new)
}

/// Listens on IPv6 there, if it has that.
pub(crate) fn open_v6(avoid: &[u16]) -> io::Result<Option<Fresh>> {
    Ok(listener::open_v6(avoid)?.map(Fresh::new))
}

impl Fresh {
    /// Tries it, from the calling thread's namespace.
    fn new(listener: Listener) -> Self {
        Self {
            is_reached: reachability::reaches(&listener.socket),
            listener,
        }
    }

    /// Can be reached if the one before it can: the port makes no difference.
    fn in_place_of(self, before: &OpenListener) -> Self {
        Self {
            is_reached: self.is_reached || before.is_reached,
            ..self
        }
    }
}
