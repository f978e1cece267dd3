//! Who calls: what the datapath says about a connection, how the request came, and what follows for
//! its credentials.

use std::net::IpAddr;

use super::{Origin, PodUid};

/// What the datapath says about the process at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// A process of a pod on this node, over a listener of that pod's network namespace.
    Pod {
        /// The pod.
        uid: PodUid,
        /// The pod's cgroup id.
        cgroup: u64,
    },
    /// A process of no known pod, or one that came over another pod's listener.
    Stranger {
        /// Its process id, as the host sees it.
        process: u32,
    },
    /// The client was gone before the kernel could tell who it was.
    Unrecorded,
    /// The connection came over the node path, where nobody asks the kernel.
    NodePath {
        /// The address that it came from.
        peer: IpAddr,
    },
}

impl Evidence {
    /// Who is one caller where limits are concerned.
    pub fn origin(self) -> Origin {
        match self {
            Self::Pod { cgroup, .. } => Origin::Pod(cgroup),
            Self::NodePath { peer } => Origin::at(peer),
            Self::Stranger { .. } | Self::Unrecorded => Origin::Unknown,
        }
    }
}

/// What people call a caller by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallerId {
    /// A pod that the kernel has named.
    Pod(PodUid),
    /// A process of no known pod, by its id as the host sees it.
    Process(u32),
    /// Who calls the node path from this address.
    Address(IpAddr),
    /// Nothing is known.
    Unknown,
}

impl From<Evidence> for CallerId {
    fn from(evidence: Evidence) -> Self {
        match (evidence, evidence.origin()) {
            (Evidence::Pod { uid, .. }, _) => Self::Pod(uid),
            (Evidence::Stranger { process }, _) => Self::Process(process),
            (_, Origin::Address(address)) => Self::Address(address),
            (_, _) => Self::Unknown,
        }
    }
}

/// The way that a request says it has come. Nobody has verified that: it explains a refusal, and
/// allows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// Nothing speaks of a proxy.
    Direct,
    /// It has the headers of an HTTP proxy, or is written as to one.
    Proxy,
}

/// Who asks for credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimant {
    /// A pod that the kernel has identified, and that its token names as well.
    Pod(PodUid),
    /// The holder of the token: nothing else says who is asking.
    Bearer {
        /// The pod that the token says it was issued to. Nobody has verified that.
        claims: Option<PodUid>,
        /// Where the request comes from.
        origin: Origin,
    },
}

impl Claimant {
    /// The pod that credentials are for, if they are given. Before that, a bearer only claims it.
    pub fn pod(self) -> Option<PodUid> {
        match self {
            Self::Pod(pod) => Some(pod),
            Self::Bearer { claims, .. } => claims,
        }
    }
}
