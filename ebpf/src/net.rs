//! Addresses as the kernel's context shows them: 32-bit words in network byte order.

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    programs::SockAddrContext,
};
use podcreds_common::{
    CREDENTIALS_PORT, CREDENTIALS_V4, CREDENTIALS_V6, LISTENER_PORT_MIN, LISTENER_V4,
};

/// An IPv6 address.
pub(crate) type Ip6 = [u32; 4];

pub(crate) const CREDENTIALS4: u32 = u32::from_ne_bytes(CREDENTIALS_V4);
pub(crate) const CREDENTIALS6: Ip6 = words(CREDENTIALS_V6);
pub(crate) const LISTENER4: u32 = u32::from_ne_bytes(LISTENER_V4);
pub(crate) const LOOPBACK6: Ip6 = words([0, 0, 0, 0, 0, 0, 0, 1]);
/// Both unspecified addresses: a connect to them goes to the address that the socket is bound to, or to
/// the loopback's own.
pub(crate) const UNSPECIFIED4: u32 = 0;
pub(crate) const UNSPECIFIED6: Ip6 = [0; 4];
pub(crate) const PORT: u32 = port_word(CREDENTIALS_PORT);

/// The IPv6 form of an IPv4 address: `::ffff:a.b.c.d`.
pub(crate) const fn mapped(v4: u32) -> Ip6 {
    [0, 0, 0xffff_u32.to_be(), v4]
}

/// A port as `user_port` holds it.
pub(crate) const fn port_word(port: u16) -> u32 {
    port.to_be() as u32
}

/// A port in host order, out of `user_port`.
pub(crate) const fn port_number(word: u32) -> u16 {
    u16::from_be(word as u16)
}

const fn words(segments: [u16; 8]) -> Ip6 {
    let mut ip = [0; 4];
    let mut at = 0;
    while at < 4 {
        ip[at] = ((segments[2 * at] as u32) << 16 | segments[2 * at + 1] as u32).to_be();
        at += 1;
    }
    ip
}

/// Whether a connect to this IPv4 address can reach a listener of ours.
pub(crate) fn is_listener4(ip: u32) -> bool {
    ip == LISTENER4 || ip == UNSPECIFIED4
}

/// Whether a connect to this IPv6 address can reach a listener of ours.
///
/// On `::1`, which everybody uses, our ports are at the upper end: the others cost no look-up.
pub(crate) fn is_listener6(ip: Ip6, port: u16) -> bool {
    ip == mapped(LISTENER4)
        || ip == mapped(UNSPECIFIED4)
        || (port >= LISTENER_PORT_MIN && (ip == LOOPBACK6 || ip == UNSPECIFIED6))
}

/// The address in the context: where `connect()` goes, or who the peer is.
pub(crate) fn ip6(ctx: &SockAddrContext) -> Ip6 {
    let addr: *const bpf_sock_addr = ctx.sock_addr;
    // SAFETY: the context outlives the program, and the verifier allows 4-byte loads of these words.
    unsafe {
        [
            (*addr).user_ip6[0],
            (*addr).user_ip6[1],
            (*addr).user_ip6[2],
            (*addr).user_ip6[3],
        ]
    }
}

/// Replaces the address in the context.
pub(crate) fn set_ip6(ctx: &SockAddrContext, ip: Ip6) {
    let addr = ctx.sock_addr;
    // SAFETY: as in `ip6`, for stores.
    unsafe {
        (*addr).user_ip6[0] = ip[0];
        (*addr).user_ip6[1] = ip[1];
        (*addr).user_ip6[2] = ip[2];
        (*addr).user_ip6[3] = ip[3];
    }
}

/// The socket that the hook runs for.
pub(crate) fn socket(ctx: &SockAddrContext) -> *mut bpf_sock {
    // SAFETY: the context outlives the program; the union has this one member that matters.
    unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk }
}
