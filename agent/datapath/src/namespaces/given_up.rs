//! Ports that are left to applications of a namespace, for as long as a listener of ours is there.

use std::collections::HashMap;

use super::netns::NetnsId;

/// How many ports of a namespace are given up. An application that wants more than that wants all.
const MOST: usize = 16;

/// Ports that applications have wanted, and that are theirs now.
#[derive(Default)]
pub(super) struct GivenUpPorts(HashMap<NetnsId, Vec<u16>>);

impl GivenUpPorts {
    /// Those of a namespace.
    pub(super) fn of(&self, netns: NetnsId) -> &[u16] {
        self.0.get(&netns).map_or(&[], Vec::as_slice)
    }

    /// Gives a port up, unless that is one too many.
    pub(super) fn add(&mut self, netns: NetnsId, port: u16) -> bool {
        let ports = self.0.entry(netns).or_default();
        let has_room = ports.len() < MOST;
        if has_room {
            ports.push(port);
        }
        has_room
    }

    /// Forgets those of a namespace if no listener `is_left` there.
    pub(super) fn forget_unless(&mut self, netns: NetnsId, is_left: impl FnOnce() -> bool) {
        if self.0.contains_key(&netns) && !is_left() {
            self.0.remove(&netns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespaces::netns::Netns;

    #[test]
    fn a_namespace_has_a_limit_and_is_forgotten_with_its_last_listener() {
        let netns = Netns::of_agent().unwrap().id();
        let mut ports = GivenUpPorts::default();
        let given_up: Vec<_> = (1..100).filter(|port| ports.add(netns, *port)).collect();
        assert_eq!(given_up.len(), MOST);
        assert_eq!(ports.of(netns), given_up);
        ports.forget_unless(netns, || true);
        assert_eq!(ports.of(netns), given_up);
        ports.forget_unless(netns, || false);
        assert!(ports.of(netns).is_empty());
    }
}
