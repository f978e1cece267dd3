//! The types that the eBPF programs and the agent exchange through maps.
//!
//! Both sides are built from this one file, so a layout cannot drift. Everything is in host byte
//! order. The structures have no padding: the kernel copies them whole.
#![no_std]
#![cfg_attr(
    feature = "user",
    expect(
        unsafe_code,
        reason = "aya::Pod is implemented for plain-old-data layouts"
    )
)]

/// Where the SDKs of pods ask for credentials over IPv4.
pub const CREDENTIALS_V4: [u8; 4] = [169, 254, 170, 23];

/// Where the SDKs of pods ask for credentials over IPv6: `fd00:ec2::23`.
pub const CREDENTIALS_V6: [u16; 8] = [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x23];

/// The port of both addresses.
pub const CREDENTIALS_PORT: u16 = 80;

/// Where the agent listens inside each pod's network namespace, on ports from
/// [`LISTENER_PORT_MIN`].
///
/// Packet filters in pods (a service mesh's, for one) leave this address alone, and need not leave
/// alone any other address of 127/8.
pub const LISTENER_V4: [u8; 4] = [127, 0, 0, 1];

/// Where the agent listens if an application has taken all ports from [`LISTENER_PORT_MIN`]. The
/// port is below it then.
pub const FALLBACK_V4: [u8; 4] = [127, 170, 23, 1];

/// The lowest port that the agent listens on at [`LISTENER_V4`] and at `::1`.
///
/// It is above Linux's default ephemeral ports (32768 to 60999). Connects to lower ports of these
/// addresses, which are frequent in pods, cost the programs one comparison.
pub const LISTENER_PORT_MIN: u16 = 61_000;

/// How many pods a node can have. Kubelet's default is 110, EKS's largest nodes run 737.
pub const MAX_PODS: usize = 4096;

/// How many namespaces other than pods' own can have listeners; see [`NestedKey`].
pub const MAX_NESTED: usize = 1024;

/// How many listeners there can be. A pod has two, and for a moment twice as many when they move.
pub const MAX_LISTENERS: usize = 4 * (MAX_PODS + MAX_NESTED);

/// The priority (`SO_PRIORITY`) of a socket of the agent's while it is bound. It lets another
/// agent's programs know that no application wants that port.
pub const BINDING_PRIORITY: u32 = 6;

/// How deep below the cgroup root a pod's cgroup can be. Kubelet's own are at level 2 or 3; a
/// cluster that runs inside a container adds some.
pub const MAX_POD_LEVEL: i32 = 10;

/// Where a pod's listeners are. The value of the `PODS` map, whose key is a pod's cgroup id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PodEndpoint {
    /// The cookie of the pod's network namespace; 0 as long as it is not known.
    pub netns: u64,
    /// The port on [`LISTENER_V4`], or below [`LISTENER_PORT_MIN`] on [`FALLBACK_V4`]; 0 for none.
    pub port4: u16,
    /// The port on `::1`; 0 where the namespace has no IPv6.
    pub port6: u16,
    /// When the programs last reported this pod, or for the host a process of none, in units of
    /// 2^20 ns. They write it.
    pub reported_at: u32,
}

/// A pod and a network namespace that is not its own, such as that of a container which the pod
/// runs. The key of the `NESTED` map, whose value is where the pod's listeners in it are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct NestedKey {
    /// The pod's cgroup id.
    pub pod: u64,
    /// The cookie of the network namespace.
    pub netns: u64,
}

/// The key of a listener in the `PORTS` map. A cookie is the number of a namespace, counted from 1.
#[must_use]
pub const fn port_key(netns: u64, port: u16) -> u64 {
    netns << 16 | port as u64
}

/// What the programs report to the agent, through the ring buffer `EVENTS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct KernelEvent {
    /// The cgroup id of the pod of the calling process; 0 where that does not matter.
    pub pod: u64,
    /// The cookie of the network namespace of its socket; 0 where that does not matter.
    pub netns: u64,
    /// The id of the calling thread in the initial PID namespace; of its process, where the process
    /// is of no known pod.
    pub thread: u32,
    /// The port that is wanted; else 0.
    pub port: u16,
    /// What has happened: one of the `EVENT_` constants.
    pub kind: u16,
}

/// A pod asked for credentials in a namespace in which it has no listener.
pub const EVENT_FOREIGN_NETNS: u16 = 1;
/// A pod asked for credentials on a socket that is bound to a network device.
pub const EVENT_BOUND_TO_DEVICE: u16 = 2;
/// A process is about to bind a port on which the agent listens.
pub const EVENT_PORT_WANTED: u16 = 3;
/// A process of no known pod asked for credentials.
pub const EVENT_UNKNOWN_POD: u16 = 4;

impl KernelEvent {
    /// Reads what the programs have written.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (pod, rest) = bytes.split_first_chunk()?;
        let (netns, rest) = rest.split_first_chunk()?;
        let (thread, rest) = rest.split_first_chunk()?;
        let (port, rest) = rest.split_first_chunk()?;
        let (kind, _) = rest.split_first_chunk()?;
        Some(Self {
            pod: u64::from_ne_bytes(*pod),
            netns: u64::from_ne_bytes(*netns),
            thread: u32::from_ne_bytes(*thread),
            port: u16::from_ne_bytes(*port),
            kind: u16::from_ne_bytes(*kind),
        })
    }
}

/// Who called `connect()`. It lives with the client's socket and is copied to the accepted one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CallerRecord {
    /// The cgroup id of the outermost known pod above the calling process; 0 for none.
    pub pod: u64,
    /// The cookie of the network namespace of the socket, which need not be the process's.
    pub netns: u64,
    /// When it was called, in nanoseconds of `CLOCK_MONOTONIC`.
    pub connected_at: u64,
    /// The process (thread group) id in the initial PID namespace.
    pub tgid: u32,
    /// The listener's port that the connection went to.
    pub port: u16,
    /// The address that was asked for: one of the `ASKED_` constants.
    pub asked: u8,
    /// Zero.
    pub reserved: u8,
}

/// The caller connected straight to the listener.
pub const ASKED_LISTENER: u8 = 0;
/// The caller asked for [`CREDENTIALS_V4`].
pub const ASKED_V4: u8 = 1;
/// The caller asked for [`CREDENTIALS_V4`] in its IPv6-mapped form.
pub const ASKED_V4_MAPPED: u8 = 2;
/// The caller asked for [`CREDENTIALS_V6`].
pub const ASKED_V6: u8 = 3;

/// Marks a listener of ours, and every socket that it accepts. The value of the `LISTENERS`
/// storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ListenerTag {
    /// The cookie of the listener's network namespace.
    pub netns: u64,
}

/// What the programs count. The discriminant is the index in the per-CPU `COUNTERS` array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// Connects to the IPv4 credentials address that were redirected.
    RedirectedV4,
    /// Connects to the IPv6 credentials address that were redirected.
    RedirectedV6,
    /// Connects to a listener of this agent's, without a redirect.
    Direct,
    /// Connects to a credentials address by a process of no known pod: left alone.
    UnknownPod,
    /// Connects to a credentials address by a pod's process on a socket of a foreign network
    /// namespace: left alone.
    ForeignNetns,
    /// Connects to a credentials address on a socket that is bound to a network device, from which
    /// no listener can be reached: left alone.
    BoundToDevice,
    /// Connects to a credentials address that had no listener to go to, and connects straight to a
    /// listener whose caller could not be recorded, or whose socket is bound to a device: left
    /// alone.
    Failed,
    /// Accepted connections that got their caller's record.
    Identified,
    /// Accepted connections without a record of the caller: the client was gone already, or its
    /// socket has no memory left for one.
    Unidentified,
}

impl Counter {
    /// All of them, in the order of their indices.
    pub const ALL: [Self; 9] = [
        Self::RedirectedV4,
        Self::RedirectedV6,
        Self::Direct,
        Self::UnknownPod,
        Self::ForeignNetns,
        Self::BoundToDevice,
        Self::Failed,
        Self::Identified,
        Self::Unidentified,
    ];
}

#[cfg(feature = "user")]
mod user {
    use super::{CallerRecord, ListenerTag, NestedKey, PodEndpoint};

    // SAFETY: repr(C), integers only, no padding (see the assertions below): any bytes are valid.
    unsafe impl aya::Pod for PodEndpoint {}
    // SAFETY: as above.
    unsafe impl aya::Pod for CallerRecord {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ListenerTag {}
    // SAFETY: as above.
    unsafe impl aya::Pod for NestedKey {}

    const _: () = assert!(size_of::<PodEndpoint>() == 8 + 2 * 2 + 4);
    const _: () = assert!(size_of::<CallerRecord>() == 3 * 8 + 4 + 2 + 2);
    const _: () = assert!(size_of::<ListenerTag>() == 8);
    const _: () = assert!(size_of::<NestedKey>() == 2 * 8);
}
