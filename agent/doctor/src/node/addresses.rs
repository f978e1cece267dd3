//! The host's addresses of the node path.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::report::Finding;

const NAME: &str = "addresses";

pub(super) fn check(at: &[SocketAddr], is_only_path: bool) -> Finding {
    let seen: Vec<_> = at.iter().map(|at| (at.ip(), is_local(at.ip()))).collect();
    judge(&seen, is_only_path)
}

/// Whether the host's routes lead to the host itself: the address is there, and its link is up.
fn is_local(ip: IpAddr) -> bool {
    let any: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        // Nothing is sent: the kernel looks the route up.
        socket.connect((ip, 80))?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == ip)
}

fn judge(seen: &[(IpAddr, bool)], is_only_path: bool) -> Finding {
    let named = |there: bool| {
        let them = seen.iter().filter(|(_, is_there)| *is_there == there);
        them.map(|(ip, _)| ip.to_string()).collect::<Vec<_>>()
    };
    let (there, missing) = (named(true), named(false));
    let has_v4 = seen.iter().any(|(ip, is_there)| ip.is_ipv4() && *is_there);
    let wants_v4 = seen.iter().any(|(ip, _)| ip.is_ipv4());
    let said = match missing.is_empty() {
        true => format!("the host has {}", there.join(" and ")),
        false => format!(
            "the host has no {}, or its link is down",
            missing.join(" and no ")
        ),
    };
    const REMEDY: &str = "run `podcreds initialize` in the host's network (the chart's init \
                          container does), or name other addresses with --bind-hosts";
    match () {
        () if missing.is_empty() => Finding::pass(NAME, said),
        // Many a node has no IPv6, and its pods do not ask for it.
        () if has_v4 => Finding::pass(NAME, format!("{said}: pods must ask over IPv4")),
        () if is_only_path && wants_v4 => Finding::fail(NAME, said, REMEDY),
        () => Finding::warn(
            NAME,
            format!("{said}: pods that cannot be redirected are not served"),
            REMEDY,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Status;

    #[test]
    fn a_missing_address_matters_as_much_as_the_node_path_does() {
        let seen = |v4, v6| {
            let v4 = (IpAddr::from([169, 254, 170, 23]), v4);
            [v4, ("fd00:ec2::23".parse().unwrap(), v6)]
        };
        assert_eq!(judge(&seen(true, true), true).status, Status::Pass);
        assert_eq!(judge(&seen(true, false), true).status, Status::Pass);
        assert_eq!(judge(&seen(false, true), false).status, Status::Warn);
        assert_eq!(judge(&seen(false, false), true).status, Status::Fail);
    }

    #[test]
    fn the_loopback_is_local_and_an_address_of_the_documentation_is_not() {
        assert!(is_local(Ipv4Addr::LOCALHOST.into()));
        assert!(!is_local(Ipv4Addr::new(192, 0, 2, 1).into()));
    }
}
