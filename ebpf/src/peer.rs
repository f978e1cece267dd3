//! `getpeername()`, and `accept()`, which asks for the peer's name too.

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_tuple},
    helpers::generated::{bpf_sk_lookup_tcp, bpf_sk_release},
    programs::SockAddrContext,
};
use podcreds_common::{
    ASKED_V4, ASKED_V4_MAPPED, ASKED_V6, CallerRecord, Counter, LISTENER_PORT_MIN,
};

use crate::{
    maps::{CALLERS, LISTENERS, count},
    net::{
        CREDENTIALS4, CREDENTIALS6, LOOPBACK6, PORT, ip6, leads_to_listener6, mapped,
        may_be_listener4, port_number, set_ip6, socket,
    },
};

/// Look the peer up in the namespace of the hook's socket (`BPF_F_CURRENT_NETNS`).
const CURRENT_NETNS: u64 = u64::MAX;
/// The part of the tuple that tells the kernel which family it is.
const TUPLE4: u32 = 12;
const TUPLE6: u32 = 36;

// States of a TCP socket, from the kernel's `enum` in net/tcp_states.h.
const ESTABLISHED: u32 = 1;
const FIN_WAIT1: u32 = 4;
const FIN_WAIT2: u32 = 5;
const CLOSE_WAIT: u32 = 8;

/// An IPv4 socket. Those that have nothing to do with us cost a few comparisons.
#[inline(always)]
pub(crate) fn v4(ctx: &SockAddrContext) {
    let sk = socket(ctx);
    if sk.is_null() {
        return;
    }
    let addr = ctx.sock_addr;
    // SAFETY: neither is null, and both outlive the program.
    let (local, ip, port) = unsafe { ((*sk).src_ip4, (*addr).user_ip4, (*addr).user_port) };
    if may_be_listener4(local, local_port(sk)) && is_accepted(sk) {
        // SAFETY: the tuple is plain data; the helper reads the part that is set here.
        let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
        tuple.__bindgen_anon_1.ipv4.saddr = local;
        tuple.__bindgen_anon_1.ipv4.sport = local_port(sk).to_be();
        tuple.__bindgen_anon_1.ipv4.daddr = ip;
        tuple.__bindgen_anon_1.ipv4.dport = port as u16;
        identify(ctx, sk, &mut tuple, TUPLE4);
    } else if may_be_listener4(ip, port_number(port)) && asked(sk, port) == Some(ASKED_V4) {
        // SAFETY: as above, for stores.
        unsafe {
            (*addr).user_ip4 = CREDENTIALS4;
            (*addr).user_port = PORT;
        }
    }
}

/// An IPv6 socket, connected to an IPv4 address in its mapped form perhaps.
#[inline(always)]
pub(crate) fn v6(ctx: &SockAddrContext) {
    let sk = socket(ctx);
    if sk.is_null() {
        return;
    }
    // SAFETY: not null, and it outlives the program.
    let local = unsafe {
        [
            (*sk).src_ip6[0],
            (*sk).src_ip6[1],
            (*sk).src_ip6[2],
            (*sk).src_ip6[3],
        ]
    };
    let ip = ip6(ctx);
    // SAFETY: the context outlives the program.
    let port = unsafe { (*ctx.sock_addr).user_port };
    if local == LOOPBACK6 && local_port(sk) >= LISTENER_PORT_MIN && is_accepted(sk) {
        // SAFETY: the tuple is plain data; the helper reads the part that is set here.
        let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
        tuple.__bindgen_anon_1.ipv6.saddr = local;
        tuple.__bindgen_anon_1.ipv6.sport = local_port(sk).to_be();
        tuple.__bindgen_anon_1.ipv6.daddr = ip;
        tuple.__bindgen_anon_1.ipv6.dport = port as u16;
        identify(ctx, sk, &mut tuple, TUPLE6);
    } else if leads_to_listener6(ip, port_number(port)) {
        match asked(sk, port) {
            Some(ASKED_V6) => set_ip6(ctx, CREDENTIALS6),
            Some(ASKED_V4_MAPPED) => set_ip6(ctx, mapped(CREDENTIALS4)),
            _ => return,
        }
        // SAFETY: the context outlives the program.
        unsafe { (*ctx.sock_addr).user_port = PORT };
    }
}

/// The local port in host order, as the kernel keeps it.
#[inline(always)]
fn local_port(sk: *const bpf_sock) -> u16 {
    // SAFETY: callers have checked for null.
    unsafe { (*sk).src_port as u16 }
}

/// Whether one of our listeners accepted this socket: it has inherited the mark.
#[inline(always)]
fn is_accepted(sk: *mut bpf_sock) -> bool {
    // SAFETY: the hook's own socket.
    !unsafe { LISTENERS.get(sk) }.is_null()
}

/// The address that a client's socket asked for, if its connect to `port` was redirected.
#[inline(always)]
fn asked(sk: *mut bpf_sock, port: u32) -> Option<u8> {
    // SAFETY: the hook's own socket.
    let caller = unsafe { CALLERS.get(sk) };
    if caller.is_null() {
        return None;
    }
    // SAFETY: not null.
    let (recorded, asked) = unsafe { ((*caller).port, (*caller).asked) };
    // A socket that was redirected once may since have been connected elsewhere.
    (recorded == port_number(port)).then_some(asked)
}

/// Copies the caller's record from the client's socket to the accepted one, once.
#[inline(always)]
fn identify(ctx: &SockAddrContext, sk: *mut bpf_sock, tuple: *mut bpf_sock_tuple, size: u32) {
    // SAFETY: the hook's own socket.
    if !unsafe { CALLERS.get(sk) }.is_null() {
        return;
    }
    // SAFETY: the hook's own socket, checked for null by the caller.
    let state = unsafe { (*sk).state };
    // In any other state the connection is over, and its peer's port may be another's by now.
    if state != ESTABLISHED && state != CLOSE_WAIT {
        return count(Counter::Unidentified);
    }
    // SAFETY: the helper takes the context and `size` bytes of the tuple.
    let client = unsafe { bpf_sk_lookup_tcp(ctx.sock_addr.cast(), tuple, size, CURRENT_NETNS, 0) };
    if client.is_null() {
        return count(Counter::Unidentified);
    }
    let copied = copy_record(sk, client);
    // SAFETY: the look-up took a reference, and nothing uses the socket after this.
    unsafe { bpf_sk_release(client.cast()) };
    count(if copied {
        Counter::Identified
    } else {
        Counter::Unidentified
    });
}

/// False when the client's record is missing or speaks of another connection.
#[inline(always)]
fn copy_record(accepted: *mut bpf_sock, client: *mut bpf_sock) -> bool {
    // SAFETY: the look-up's socket, not yet released.
    let from: *const CallerRecord = unsafe { CALLERS.get(client) };
    // SAFETY: the hook's own socket.
    let tag = unsafe { LISTENERS.get(accepted) };
    if from.is_null() || tag.is_null() {
        return false;
    }
    // SAFETY: neither is null; the values live as long as their sockets.
    let (state, matches) = unsafe {
        (
            (*client).state,
            (*from).netns == (*tag).netns && (*from).port == local_port(accepted),
        )
    };
    // A client may have nothing more to say. In any other state it is not this connection's client.
    if !matches || !(state == ESTABLISHED || state == FIN_WAIT1 || state == FIN_WAIT2) {
        return false;
    }
    // SAFETY: the hook's own socket.
    let to = unsafe { CALLERS.get_or_create(accepted) };
    if to.is_null() {
        return false;
    }
    // SAFETY: neither is null, and they belong to different sockets.
    unsafe { *to = *from };
    true
}
