//! The types that the eBPF programs and the agent exchange through maps.
//!
//! Both sides are built from this one file, so a layout cannot drift. Everything is in host byte
//! order. The structures have no padding: the kernel copies them whole.
#![no_std]
#![cfg_attr(
    feature = "user",
    expect(unsafe_code, reason = "aya::Pod vouches for plain-old-data layouts")
)]

/// Where the SDKs of pods ask for credentials over IPv4.
pub const CREDENTIALS_V4: [u8; 4] = [169, 254, 170, 23];

/// Where the SDKs of pods ask for credentials over IPv6: `fd00:ec2::23`.
pub const CREDENTIALS_V6: [u16; 8] = [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x23];

/// The port of both addresses.
pub const CREDENTIALS_PORT: u16 = 80;

/// Where the agent listens inside each pod's network namespace.
///
/// An address of its own in 127/8: every namespace whose `lo` is up routes it, nobody else uses it,
/// and a connect to 127.0.0.1 costs the programs a comparison and no look-up.
pub const LISTENER_V4: [u8; 4] = [127, 170, 23, 1];

/// The lowest port that the agent listens on in a pod.
///
/// It is above Linux's default ephemeral ports (32768 to 60999), and it spares the programs a
/// look-up for connects to other ports of `::1`.
pub const LISTENER_PORT_MIN: u16 = 61_000;

/// How many pods a node can have. Kubelet's default is 110, EKS's largest nodes run 737.
pub const MAX_PODS: usize = 4096;

/// How deep below the cgroup root a pod's cgroup can be. Kubelet's own are at level 2 or 3; a
/// cluster that runs inside a container adds some.
pub const MAX_POD_LEVEL: i32 = 10;

/// Where a pod's listeners are. The value of the `PODS` map, whose key is a pod's cgroup id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Endpoint {
    /// The cookie of the pod's network namespace; 0 as long as it is not known.
    pub netns: u64,
    /// The port on [`LISTENER_V4`]; 0 for none.
    pub port4: u16,
    /// The port on `::1`; 0 where the namespace has no IPv6.
    pub port6: u16,
    /// Zero.
    pub reserved: u32,
}

/// Who called `connect()`. It lives with the client's socket and is copied to the accepted one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Caller {
    /// The cgroup id of the outermost known pod above the calling process; 0 for none.
    pub pod: u64,
    /// The id of the cgroup that the process was in.
    pub leaf: u64,
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

/// Marks a listener of ours, and every socket that it accepts. The value of the `LISTENERS` storage.
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
    /// Connects to an address and port that a listener may have, without a redirect. Redirects of
    /// another agent on this node are among them.
    Direct,
    /// Connects to a credentials address by a process of no known pod: left alone.
    UnknownPod,
    /// Connects to a credentials address by a pod's process on a socket of a foreign network
    /// namespace: left alone.
    ForeignNetns,
    /// Connects that could not be recorded or had no listener to go to: left alone.
    Failed,
    /// Accepted connections that got their caller's record.
    Identified,
    /// Accepted connections whose caller could not be told: the client was gone already.
    Unidentified,
}

impl Counter {
    /// All of them, in the order of their indices.
    pub const ALL: [Self; 8] = [
        Self::RedirectedV4,
        Self::RedirectedV6,
        Self::Direct,
        Self::UnknownPod,
        Self::ForeignNetns,
        Self::Failed,
        Self::Identified,
        Self::Unidentified,
    ];
}

#[cfg(feature = "user")]
mod user {
    use super::{Caller, Endpoint, ListenerTag};

    // SAFETY: repr(C), integers only, no padding (see the assertions below): any bytes are valid.
    unsafe impl aya::Pod for Endpoint {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Caller {}
    // SAFETY: as above.
    unsafe impl aya::Pod for ListenerTag {}

    const _: () = assert!(size_of::<Endpoint>() == 8 + 2 * 2 + 4);
    const _: () = assert!(size_of::<Caller>() == 4 * 8 + 4 + 2 + 2);
    const _: () = assert!(size_of::<ListenerTag>() == 8);
}
