//! Pods that may come to the node path for a moment, though they are redirected otherwise.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use podcreds_types::{PodUid, SharedMap};

/// How long a pod may come: as long as a client goes on trying.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pods whose connects the kernel has just left alone, and the addresses that they come from.
///
/// The address counts, so that nobody else can come with such a pod's token meanwhile.
#[derive(Default)]
pub(super) struct LeftAlone(SharedMap<PodUid, (Instant, Vec<IpAddr>)>);

impl LeftAlone {
    /// Takes a pod from now on.
    pub(super) fn insert(&self, pod: PodUid, addresses: Vec<IpAddr>) {
        let addresses = addresses.into_iter().filter(|ip| !ip.is_loopback());
        self.0.insert(pod, (Instant::now(), addresses.collect()));
    }

    /// Whether a pod may come from this address now.
    pub(super) fn contains(&self, pod: PodUid, peer: IpAddr) -> bool {
        self.0.get(&pod).is_some_and(|left_alone| {
            let (since, addresses) = &*left_alone;
            since.elapsed() < PATIENCE && addresses.contains(&peer)
        })
    }

    pub(super) fn remove(&self, pod: PodUid) {
        self.0.remove(&pod);
    }
}
