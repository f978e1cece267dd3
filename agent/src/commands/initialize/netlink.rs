//! What `initialize` asks of the kernel.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures_util::TryStreamExt;
use rtnetlink::{
    Error, Handle, LinkDummy, LinkUnspec, RouteMessageBuilder, new_connection,
    packet_route::{
        address::{AddressAttribute, AddressHeaderFlags},
        route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteScope},
    },
};
use rustix::io::Errno;

use super::InitializeError;

/// A connection to the kernel, in the namespace of the process. Used on a tokio runtime.
pub(super) struct Netlink(Handle);

impl Netlink {
    pub(super) fn open() -> Result<Self, InitializeError> {
        let (connection, handle, _) = new_connection()
            .map_err(|error| InitializeError::kernel("opening a netlink socket", error))?;
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    /// The index of the link with this name.
    pub(super) async fn find(&self, name: &str) -> Result<Option<u32>, InitializeError> {
        let mut found = self.0.link().get().match_name(name).execute();
        match found.try_next().await.map_err(reason) {
            Ok(link) => Ok(link.map(|link| link.header.index)),
            Err(error) if is(&error, Errno::NODEV) => Ok(None),
            Err(error) => {
                let what = format!("looking for the link {name}");
                Err(InitializeError::kernel(what, error))
            }
        }
    }

    /// Makes a dummy link, and returns its index.
    pub(super) async fn add_dummy(&self, name: &str) -> Result<u32, InitializeError> {
        let added = self.0.link().add(LinkDummy::new(name).build()).execute();
        let what = || format!("making the link {name}");
        match added.await.map_err(reason) {
            Ok(()) => tracing::info!(link = name, "made the link"),
            // Somebody else has made it just now.
            Err(error) if is(&error, Errno::EXIST) => {}
            Err(error) if is(&error, Errno::OPNOTSUPP) => {
                return Err(InitializeError::NoDummyLinks);
            }
            Err(error) => return Err(InitializeError::kernel(what(), error)),
        }
        let gone = || InitializeError::kernel(what(), Errno::NODEV.into());
        self.find(name).await?.ok_or_else(gone)
    }

    /// Gives a link an address, and no network around it.
    pub(super) async fn add_address(
        &self,
        link: u32,
        address: IpAddr,
    ) -> Result<(), InitializeError> {
        let mut request = self.0.address().add(link, address, bits(address));
        if address.is_ipv6() {
            // Nobody else can have it on this link, and nobody may use it before the kernel has
            // made sure.
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        // So that no link broadcasts to an address that is none.
        let attributes = &mut request.message_mut().attributes;
        attributes.retain(|it| !matches!(it, AddressAttribute::Broadcast(_)));
        match request.execute().await.map_err(reason) {
            Ok(()) => tracing::info!(%address, "added the address"),
            Err(error) if is(&error, Errno::EXIST) => {}
            Err(error) => {
                return Err(InitializeError::kernel(
                    format!("adding the address {address}"),
                    error,
                ));
            }
        }
        Ok(())
    }

    /// Switches a link on.
    pub(super) async fn set_up(&self, link: u32) -> Result<(), InitializeError> {
        let message = LinkUnspec::new_with_index(link).up().build();
        let set = self.0.link().set(message).execute().await;
        set.map_err(|error| InitializeError::kernel("switching the link on", reason(error)))
    }

    /// Routes an address to a link, in the main table.
    pub(super) async fn add_route(
        &self,
        link: u32,
        address: IpAddr,
    ) -> Result<(), InitializeError> {
        let failed = |error| InitializeError::kernel(format!("routing {address}"), reason(error));
        let mut routes = self.0.route().get(all_routes(address)).execute();
        let mut elsewhere = None;
        while let Some(route) = routes.try_next().await.map_err(failed)? {
            if leads_to(&route, address) {
                match output(&route) {
                    Some(output) if output == link => return Ok(()),
                    output => elsewhere = output,
                }
            }
        }
        if let Some(link) = elsewhere {
            return Err(InitializeError::RoutedElsewhere { address, link });
        }
        let added = self.0.route().add(route(link, address)).execute();
        match added.await {
            Ok(()) => tracing::info!(%address, "added the route"),
            Err(error) if is(&reason(error.clone()), Errno::EXIST) => {}
            Err(error) => return Err(failed(error)),
        }
        Ok(())
    }
}

/// The length of a prefix that is one address.
fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// Asks for all routes of the family of `address`.
fn all_routes(address: IpAddr) -> RouteMessage {
    match address {
        IpAddr::V4(_) => RouteMessageBuilder::<Ipv4Addr>::new().build(),
        IpAddr::V6(_) => RouteMessageBuilder::<Ipv6Addr>::new().build(),
    }
}

fn route(link: u32, address: IpAddr) -> RouteMessage {
    match address {
        IpAddr::V4(address) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, 32)
            .output_interface(link)
            .scope(RouteScope::Link)
            .build(),
        IpAddr::V6(address) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(address, 128)
            .output_interface(link)
            .build(),
    }
}

/// Whether it is the main table's route to this very address.
fn leads_to(route: &RouteMessage, address: IpAddr) -> bool {
    let destination = match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    };
    route.header.table == RouteHeader::RT_TABLE_MAIN
        && route.header.destination_prefix_length == bits(address)
        && (route.attributes).contains(&RouteAttribute::Destination(destination))
}

/// The link that a route uses.
fn output(route: &RouteMessage) -> Option<u32> {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Oif(link) => Some(*link),
            _ => None,
        })
}

/// What the kernel said.
fn reason(error: Error) -> io::Error {
    match error {
        Error::NetlinkError(message) => message.to_io(),
        error => io::Error::other(error),
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    Errno::from_io_error(error) == Some(errno)
}
