//! Making and connecting sockets, step by step.

use std::{
    io, iter,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{setsockopt, sockopt::TcpFastOpenConnect},
};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

/// The official agent's address, which SDKs are told to use.
pub(crate) const CREDENTIALS: &str = "169.254.170.23:80";

/// How many instructions a packet filter can have: BPF_MAXINSNS of linux/bpf_common.h.
const LONGEST_FILTER: usize = 4096;

/// How sockets are made.
#[derive(clap::Args, Clone)]
pub(crate) struct SocketOptions {
    /// Makes IPv6 sockets that can do nothing but IPv6.
    #[arg(long)]
    pub(crate) v6only: bool,
    /// Binds to this address first.
    #[arg(long)]
    pub(crate) bind: Option<Ipv4Addr>,
    /// Binds to this network device.
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// Uses up the memory that the kernel keeps for what is set on the socket.
    #[arg(long)]
    pub(crate) fill: bool,
    /// Connects with TCP fast open.
    #[arg(long)]
    pub(crate) fast_open: bool,
    /// How long connecting, and every read, may take.
    #[arg(long, default_value_t = 5000)]
    pub(crate) timeout_ms: u64,
}

impl SocketOptions {
    /// A socket of the family of `destination`, not connected.
    pub(crate) fn make(&self, destination: SocketAddr) -> io::Result<Socket> {
        let domain = Domain::for_address(destination);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        if destination.is_ipv6() {
            socket.set_only_v6(self.v6only)?;
        }
        if let Some(device) = &self.device {
            socket.bind_device(Some(device.as_bytes()))?;
        }
        if self.fill {
            fill(&socket)?;
        }
        if self.fast_open {
            setsockopt(&socket, TcpFastOpenConnect, &true)?;
        }
        if let Some(address) = self.bind {
            let address = match destination {
                SocketAddr::V4(_) => IpAddr::V4(address),
                SocketAddr::V6(_) => IpAddr::V6(address.to_ipv6_mapped()),
            };
            socket.bind(&SocketAddr::new(address, 0).into())?;
        }
        Ok(socket)
    }

    /// Connects it.
    pub(crate) fn connect(&self, socket: &Socket, destination: SocketAddr) -> io::Result<()> {
        let timeout = Duration::from_millis(self.timeout_ms);
        socket.connect_timeout(&destination.into(), timeout)?;
        socket.set_read_timeout(Some(timeout))?;
        socket.set_write_timeout(Some(timeout))?;
        socket.set_tcp_nodelay(true)
    }

    /// Makes a socket and connects it.
    pub(crate) fn open(&self, destination: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.make(destination)?;
        self.connect(&socket, destination)?;
        Ok(socket.into())
    }
}

/// Attaches the longest packet filter for which there is memory. It lets everything through.
fn fill(socket: &Socket) -> io::Result<()> {
    // BPF_LDX | BPF_B | BPF_MSH, which takes the kernel many instructions of its own.
    let load = || SockFilter::new(0xb1, 0, 0, 0);
    // BPF_RET | BPF_K: a packet to its end.
    let accept = || SockFilter::new(0x06, 0, 0, u32::MAX);
    let attach = |length| {
        let program: Vec<_> = iter::repeat_with(load)
            .take(length)
            .chain([accept()])
            .collect();
        socket.attach_filter(&program)
    };
    let (mut fits, mut too_long) = (0, LONGEST_FILTER);
    while fits + 1 < too_long {
        let length = usize::midpoint(fits, too_long);
        match attach(length) {
            // It has to go first, since the next one is counted beside it.
            Ok(()) => {
                socket.detach_filter()?;
                fits = length;
            }
            Err(_) => too_long = length,
        }
    }
    attach(fits)
}

/// A short name for what went wrong, such as `ECONNREFUSED` or `timeout`.
pub(crate) fn error_name(error: &io::Error) -> String {
    if let io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut = error.kind() {
        return "timeout".to_owned();
    }
    match error.raw_os_error() {
        Some(number) => format!("{:?}", Errno::from_raw(number)),
        None => match error.kind() {
            io::ErrorKind::UnexpectedEof => "closed".to_owned(),
            _ => error.to_string(),
        },
    }
}

/// Lets this process have as many descriptors as the system allows.
pub(crate) fn raise_descriptor_limit() -> anyhow::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    const WANTED: u64 = 1 << 20;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let raised = setrlimit(Resource::RLIMIT_NOFILE, WANTED, WANTED);
    raised.or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, hard, hard))?;
    Ok(())
}
