//! Where a connection comes from.

use std::net::{IpAddr, Ipv4Addr};

/// Who is one caller where limits are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The pod with this cgroup id: the kernel has said so.
    Pod(u64),
    /// Callers from this address.
    Address(IpAddr),
    /// Callers about which nothing is known. They count as one.
    Unknown,
}

impl Origin {
    /// What a caller at this address counts as. The host's loopback addresses are one place: a
    /// process there may call from each of 16 million.
    pub fn at(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) if address.is_loopback() => {
                Self::Address(Ipv4Addr::LOCALHOST.into())
            }
            _ => Self::Address(address),
        }
    }

    /// Whether it is a pod that the kernel has identified.
    pub fn is_pod(self) -> bool {
        matches!(self, Self::Pod(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_loopback_addresses_are_one_place() {
        let at = |address: &str| Origin::at(address.parse().unwrap());
        assert_eq!(at("127.0.0.1"), at("127.3.2.1"));
        assert_ne!(at("127.0.0.1"), at("10.0.0.1"));
        assert_ne!(at("10.0.0.1"), at("10.0.0.2"));
    }
}
