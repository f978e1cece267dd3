//! An application that takes every port it can get.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    print,
    socket::{error_name, raise_descriptor_limit},
    wait_for_end_of_input,
};

#[derive(clap::Args)]
pub(crate) struct BindAll {
    /// The first port.
    #[arg(long, default_value_t = 1)]
    from: u16,
    /// The last port.
    #[arg(long, default_value_t = u16::MAX)]
    to: u16,
    /// Takes those of IPv4 only.
    #[arg(long)]
    ipv4: bool,
}

impl BindAll {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        raise_descriptor_limit()?;
        let mut bound = Vec::new();
        let mut failed = BTreeMap::<String, Vec<String>>::new();
        for port in self.from..=self.to {
            let families = [
                IpAddr::from(Ipv4Addr::UNSPECIFIED),
                Ipv6Addr::UNSPECIFIED.into(),
            ];
            for address in families.into_iter().take(if self.ipv4 { 1 } else { 2 }) {
                let address = SocketAddr::new(address, port);
                match listen(address) {
                    Ok(socket) => bound.push(socket),
                    Err(why) => {
                        failed
                            .entry(error_name(&why))
                            .or_default()
                            .push(address.to_string());
                    }
                }
            }
        }
        print(&json!({ "bound": bound.len(), "failed": failed }))?;
        Ok(wait_for_end_of_input()?)
    }
}

fn listen(address: SocketAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // The two families have a listener each.
        socket.set_only_v6(true)?;
    }
    // As servers do, so that connections which have just ended do not count.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(16)?;
    Ok(socket)
}
