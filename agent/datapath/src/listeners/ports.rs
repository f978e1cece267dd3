//! Which ports the in-pod listeners try, and in which order.
//!
//! A listener on 127.0.0.1 keeps applications of its namespace from listening on its port at
//! 0.0.0.0. So it takes a port that hardly any program wants.

use std::{fs, ops::RangeInclusive};

use podcreds_common::LISTENER_PORT_MIN;

/// All ports that the programs look at.
const ALL: RangeInclusive<u16> = LISTENER_PORT_MIN..=u16::MAX;

/// The port that is tried first: one that is in no list, and that hardly anyone chooses by hand.
const FIRST: u16 = 62_723;

/// Ports of [`ALL`] that some program listens on by default.
const WELL_KNOWN: [RangeInclusive<u16>; 6] = [
    // A round number.
    61_000..=61_000,
    // Glances.
    61_208..=61_209,
    // ActiveMQ and other STOMP and OpenWire brokers.
    61_613..=61_619,
    // AWS's VPC CNI plugin, on the host.
    61_678..=61_680,
    // Apple's lockdownd, which tools for it forward.
    62_078..=62_078,
    // Mumble.
    64_738..=64_738,
];

// Both of the network namespace that the calling thread is in.
const EPHEMERAL: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// Ports of one network namespace that a program may want.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// Where the kernel takes ports for outgoing connections.
    ephemeral: Option<RangeInclusive<u16>>,
    /// What the namespace's owner keeps for applications.
    reserved: Vec<RangeInclusive<u16>>,
}

/// How ill a port would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    /// Nobody is known to want it.
    None,
    /// An outgoing connection may want it, and can have another.
    Ephemeral,
    /// Some program listens there by default, or its owner has reserved it.
    Listener,
}

impl Claim {
    const ALL: [Self; 3] = [Self::None, Self::Ephemeral, Self::Listener];
}

impl Wanted {
    /// Reads what the calling thread's network namespace is set to. What cannot be read is not
    /// known to be wanted.
    pub(crate) fn read() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self::parse(&read(EPHEMERAL), &read(RESERVED))
    }

    fn parse(ephemeral: &str, reserved: &str) -> Self {
        let mut bounds = ephemeral.split_whitespace().map(str::parse);
        let ephemeral = match (bounds.next(), bounds.next()) {
            (Some(Ok(first)), Some(Ok(last))) => Some(first..=last),
            _ => None,
        };
        let ranges = reserved.trim().split(',').filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(first.parse().ok()?..=last.parse().ok()?)
        });
        Self {
            ephemeral,
            reserved: ranges.collect(),
        }
    }

    /// All ports, those first that no program is known to want.
    pub(crate) fn candidates(&self) -> impl Iterator<Item = u16> {
        Claim::ALL.into_iter().flat_map(move |claim| {
            let order = (FIRST..=*ALL.end()).chain(*ALL.start()..FIRST);
            order.filter(move |port| self.claim(*port) == claim)
        })
    }

    fn claim(&self, port: u16) -> Claim {
        let listeners = WELL_KNOWN.iter().chain(&self.reserved);
        if listeners.into_iter().any(|range| range.contains(&port)) {
            Claim::Listener
        } else if self
            .ephemeral
            .as_ref()
            .is_some_and(|range| range.contains(&port))
        {
            Claim::Ephemeral
        } else {
            Claim::None
        }
    }
}

/// Whether the programs look at this port of 127.0.0.1.
pub(crate) fn is_ours(port: u16) -> bool {
    ALL.contains(&port)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The first port for a namespace with these settings.
    fn first(ephemeral: &str, reserved: &str) -> u16 {
        let wanted = Wanted::parse(ephemeral, reserved);
        wanted.candidates().next().unwrap()
    }

    #[test]
    fn every_port_is_tried_once() {
        for (ephemeral, reserved) in [("", ""), ("32768\t60999\n", "\n"), ("1024 65535", "62723")] {
            let wanted = Wanted::parse(ephemeral, reserved);
            let tried: Vec<_> = wanted.candidates().collect();
            assert_eq!(tried.len(), ALL.len());
            assert_eq!(tried.into_iter().collect::<BTreeSet<_>>(), ALL.collect());
        }
    }

    #[test]
    fn ports_that_are_reserved_or_ephemeral_come_last() {
        assert_eq!(first("32768\t60999", ""), FIRST);
        assert_eq!(first("32768\t62999", ""), 63_000);
        assert_eq!(first("32768 60999", "8080,62000-62800,62801"), 62_802);
        assert_eq!(first("32768 60999", "62000-65535"), 61_001);
        // Where everything is ephemeral, what is reserved is worse.
        assert_eq!(first("1024 65535", "62723"), 62_724);
        assert_eq!(first("1024 65535", "61000-65535"), FIRST);
    }

    #[test]
    fn ports_of_known_programs_come_after_all_others() {
        let wanted = Wanted::parse("32768 60999", "");
        let last = wanted.candidates().skip(ALL.len() - 15);
        assert!(
            last.into_iter()
                .all(|port| wanted.claim(port) == Claim::Listener)
        );
    }

    #[test]
    fn a_range_of_ports_that_makes_no_sense_is_ignored() {
        for nonsense in ["", "x", "1", "9-x,,-", "70000-80000"] {
            assert_eq!(first(nonsense, nonsense), FIRST, "{nonsense}");
        }
    }
}
