//! Pods that are to come to the node path though they are redirected otherwise.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use dashmap::DashMap;
use podcreds_types::PodUid;

/// How long a pod is expected: as long as a client goes on trying.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pods whose connects the kernel has just left alone, and the addresses that they come from.
///
/// The address counts, so that nobody else can come with such a pod's token meanwhile.
#[derive(Default)]
pub(super) struct Expected(DashMap<PodUid, (Instant, Vec<IpAddr>)>);

impl Expected {
    /// Expects a pod from now on.
    pub(super) fn insert(&self, pod: PodUid, addresses: Vec<IpAddr>) {
        let addresses = addresses.into_iter().filter(|ip| !ip.is_loopback());
        self.0.insert(pod, (Instant::now(), addresses.collect()));
    }

    /// Whether a pod is expected to come from this address now.
    pub(super) fn contains(&self, pod: PodUid, peer: IpAddr) -> bool {
        self.0.get(&pod).is_some_and(|expected| {
            let (since, addresses) = &*expected;
            since.elapsed() < PATIENCE && addresses.contains(&peer)
        })
    }

    pub(super) fn remove(&self, pod: PodUid) {
        self.0.remove(&pod);
    }
}
