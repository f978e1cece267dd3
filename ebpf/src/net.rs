//! Addresses as the kernel's context shows them: 32-bit words in network byte order.

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    programs::SockAddrContext,
};
use podcreds_common::{
    CREDENTIALS_PORT, CREDENTIALS_V4, CREDENTIALS_V6, FALLBACK_V4, LISTENER_PORT_MIN, LISTENER_V4,
};

const SOCK_STREAM: u32 = 1;

/// An IPv6 address.
pub(crate) type Ip6 = [u32; 4];

pub(crate) const CREDENTIALS4: u32 = u32::from_ne_bytes(CREDENTIALS_V4);
pub(crate) const CREDENTIALS6: Ip6 = words(CREDENTIALS_V6);
const LISTENER4: u32 = u32::from_ne_bytes(LISTENER_V4);
const FALLBACK4: u32 = u32::from_ne_bytes(FALLBACK_V4);
pub(crate) const LOOPBACK6: Ip6 = words([0, 0, 0, 0, 0, 0, 0, 1]);
/// Both unspecified addresses: a connect to them goes to the address that the socket is bound to,
/// or to the loopback's own.
const UNSPECIFIED4: u32 = 0;
const UNSPECIFIED6: Ip6 = [0; 4];
pub(crate) const PORT: u32 = port_word(CREDENTIALS_PORT);

/// The third word of an IPv4 address in its IPv6 form.
const MAPPED: u32 = 0xffff_u32.to_be();

/// The IPv6 form of an IPv4 address: `::ffff:a.b.c.d`.
pub(crate) const fn mapped(v4: u32) -> Ip6 {
    [0, 0, MAPPED, v4]
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

/// The IPv4 address of the listener on this port.
#[inline(always)]
pub(crate) fn listener4(port: u16) -> u32 {
    if port >= LISTENER_PORT_MIN {
        LISTENER4
    } else {
        FALLBACK4
    }
}

/// Whether a listener of ours may be bound to this IPv4 address and port.
///
/// On 127.0.0.1, which all programs use, our ports are at the upper end: the others cost no
/// look-up.
#[inline(always)]
pub(crate) fn may_be_listener4(ip: u32, port: u16) -> bool {
    ip == listener4(port)
}

/// Whether a connect to this IPv4 address and port can reach a listener of ours.
#[inline(always)]
pub(crate) fn leads_to_listener4(ip: u32, port: u16) -> bool {
    may_be_listener4(ip, port) || (port >= LISTENER_PORT_MIN && ip == UNSPECIFIED4)
}

/// Whether a connect to this IPv6 address and port can reach a listener of ours.
#[inline(always)]
pub(crate) fn leads_to_listener6(ip: Ip6, port: u16) -> bool {
    if port >= LISTENER_PORT_MIN && (ip == LOOPBACK6 || ip == UNSPECIFIED6) {
        return true;
    }
    ip[0] == 0 && ip[1] == 0 && ip[2] == MAPPED && leads_to_listener4(ip[3], port)
}

/// The address in the context: where `connect()` goes, or who the peer is.
pub(crate) fn ip6(ctx: &SockAddrContext) -> Ip6 {
    let addr: *const bpf_sock_addr = ctx.sock_addr;
    // SAFETY: the context outlives the program, and the verifier allows 4-byte loads of these
    // words.
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

/// TCP, as opposed to UDP.
#[inline(always)]
pub(crate) fn is_stream(ctx: &SockAddrContext) -> bool {
    // SAFETY: the context outlives the program.
    unsafe { (*ctx.sock_addr).type_ == SOCK_STREAM }
}
