//! `podcreds initialize`: gives the host the link-local addresses at which pods look for
//! credentials.
//!
//! They sit on a dummy link of their own, with a route to each. Each part is looked for before it
//! is made, so that it does no harm to run it again, and so that what is half made gets finished.

mod netlink;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use rustix::io::Errno;
use tokio::runtime::Builder;

use netlink::Netlink;

/// The name of the link, by which AWS's agent finds it too.
pub(crate) const LINK: &str = "pod-id-link0";
/// Where the SDKs look for credentials.
pub(crate) const IPV4: Ipv4Addr = Ipv4Addr::new(169, 254, 170, 23);
/// Where they look in IPv6 clusters.
pub(crate) const IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23);

/// Why the host is not ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitializeError {
    /// The kernel refuses to change the network.
    #[error(
        "podcreds initialize lacks CAP_NET_ADMIN; run it as root, or give it this capability, in the \
         host's network namespace"
    )]
    NotPermitted,
    /// There is no such kind of link.
    #[error(
        "this kernel has no dummy links, which {LINK} must be: load the module (modprobe dummy), or do \
         without the link and run podcreds server --datapath ebpf"
    )]
    NoDummyLinks,
    /// A route leads elsewhere already.
    #[error("{address} is routed to another link (index {link}): remove that route, or that link")]
    RoutedElsewhere {
        /// Where the route leads to.
        address: IpAddr,
        /// The link that it uses.
        link: u32,
    },
    /// Anything else that the kernel refuses.
    #[error("{what}: {source}")]
    Kernel {
        /// What was being done.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl InitializeError {
    fn kernel(what: impl Into<String>, source: io::Error) -> Self {
        match Errno::from_io_error(&source) {
            Some(Errno::PERM) => Self::NotPermitted,
            _ => Self::Kernel {
                what: what.into(),
                source,
            },
        }
    }
}

/// Makes the link, its addresses and their routes, as far as they are not there.
///
/// IPv6 may fail, since many a node has none.
///
/// # Errors
///
/// When pods would not reach the IPv4 address.
pub(crate) fn initialize() -> Result<(), InitializeError> {
    let runtime = Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(|source| InitializeError::kernel("starting the runtime", source))?;
    runtime.block_on(async {
        let netlink = Netlink::open()?;
        let link = match netlink.find(LINK).await? {
            Some(link) => link,
            None => netlink.add_dummy(LINK).await?,
        };
        let ipv4 = netlink.add_address(link, IPV4.into()).await;
        let ipv6 = netlink.add_address(link, IPV6.into()).await;
        ipv4?;
        netlink.set_up(link).await?;
        netlink.add_route(link, IPV4.into()).await?;
        let ipv6 = match ipv6 {
            Ok(()) => netlink.add_route(link, IPV6.into()).await,
            Err(error) => Err(error),
        };
        match ipv6 {
            Ok(()) => tracing::info!(link = LINK, "ready for {IPV4} and {IPV6}"),
            Err(error) => {
                tracing::warn!(%error, "without {IPV6}: pods must ask over IPv4");
                tracing::info!(link = LINK, "ready for {IPV4}");
            }
        }
        Ok(())
    })
}
