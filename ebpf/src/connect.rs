//! `connect()`: redirect, and note who called.

use aya_ebpf::{
    bindings::bpf_sock_addr,
    helpers::generated::{bpf_ktime_get_ns, bpf_setsockopt},
    programs::SockAddrContext,
};
use podcreds_common::{
    ASKED_LISTENER, ASKED_V4, ASKED_V4_MAPPED, ASKED_V6, Counter, EVENT_BOUND_TO_DEVICE,
    EVENT_FOREIGN_NETNS, PodEndpoint, port_key,
};

use crate::{
    maps::{CALLERS, PORTS, count},
    net::{
        CREDENTIALS4, CREDENTIALS6, LOOPBACK6, PORT, ip6, is_stream, leads_to_listener4,
        leads_to_listener6, listener4, mapped, port_number, port_word, set_ip6, socket,
    },
    pods,
};

/// The index of `lo` in every network namespace.
const LOOPBACK_DEVICE: u32 = 1;
// From the kernel's asm-generic/socket.h.
const SOL_SOCKET: i32 = 1;
const SO_BINDTODEVICE: i32 = 25;

/// An IPv4 connect. Those that have nothing to do with us cost a few comparisons.
#[inline(always)]
pub(crate) fn v4(ctx: &SockAddrContext) {
    let addr: *mut bpf_sock_addr = ctx.sock_addr;
    // SAFETY: the context outlives the program.
    let (ip, port) = unsafe { ((*addr).user_ip4, (*addr).user_port) };
    if ip == CREDENTIALS4 && port == PORT {
        let Some((endpoint, call)) = destination(ctx, ASKED_V4) else {
            return;
        };
        if endpoint.port4 == 0 {
            return count(Counter::Failed);
        }
        // Without a record the agent refuses for now. To leave the call alone instead would let a
        // pod go where it likes: it decides how much of its socket's memory is left.
        let _recorded = record(ctx, &call, endpoint.port4);
        // SAFETY: as above, for stores.
        unsafe {
            (*addr).user_ip4 = listener4(endpoint.port4);
            (*addr).user_port = port_word(endpoint.port4);
        }
        count(Counter::RedirectedV4);
    } else if leads_to_listener4(ip, port_number(port)) {
        straight_to_listener(ctx, port_number(port));
    }
}

/// An IPv6 connect, of an IPv4 address in its mapped form perhaps.
#[inline(always)]
pub(crate) fn v6(ctx: &SockAddrContext) {
    let ip = ip6(ctx);
    // SAFETY: the context outlives the program.
    let port = unsafe { (*ctx.sock_addr).user_port };
    if port == PORT {
        if ip == CREDENTIALS6 {
            redirect_v6(ctx, ASKED_V6);
        } else if ip == mapped(CREDENTIALS4) {
            redirect_v6(ctx, ASKED_V4_MAPPED);
        }
    } else if leads_to_listener6(ip, port_number(port)) {
        straight_to_listener(ctx, port_number(port));
    }
}

#[inline(always)]
fn redirect_v6(ctx: &SockAddrContext, asked: u8) {
    let Some((endpoint, call)) = destination(ctx, asked) else {
        return;
    };
    // A socket that is IPv6 only reaches nothing but `::1`; where the namespace has no IPv6, the
    // others still reach the IPv4 listener. A client that asked for IPv4 gets IPv4.
    let (ip, port) = if endpoint.port6 != 0 && asked == ASKED_V6 {
        (LOOPBACK6, endpoint.port6)
    } else {
        (mapped(listener4(endpoint.port4)), endpoint.port4)
    };
    if port == 0 {
        return count(Counter::Failed);
    }
    // As above.
    let _recorded = record(ctx, &call, port);
    set_ip6(ctx, ip);
    // SAFETY: the context outlives the program.
    unsafe { (*ctx.sock_addr).user_port = port_word(port) };
    count(if asked == ASKED_V6 {
        Counter::RedirectedV6
    } else {
        Counter::RedirectedV4
    });
}

/// What is known of the call before it is written down.
struct Call {
    pod: u64,
    netns: u64,
    asked: u8,
}

/// The listener for this caller, when it is a pod's process on a socket of that pod's.
#[inline(always)]
fn destination(ctx: &SockAddrContext, asked: u8) -> Option<(PodEndpoint, Call)> {
    if !is_stream(ctx) {
        return None;
    }
    let Some(pod) = pods::of_current_process() else {
        pods::report_stranger();
        count(Counter::UnknownPod);
        return None;
    };
    let netns = pods::netns(ctx);
    let Some(endpoint) = pod.endpoint_in(netns) else {
        pod.report(netns, EVENT_FOREIGN_NETNS);
        count(Counter::ForeignNetns);
        return None;
    };
    if !can_use_loopback(ctx) {
        pod.report(netns, EVENT_BOUND_TO_DEVICE);
        count(Counter::BoundToDevice);
        return None;
    }
    let pod = pod.id;
    Some((endpoint, Call { pod, netns, asked }))
}

/// Whether the socket can reach a listener: one that is bound to a device cannot, by `lo`.
///
/// One that is bound to `lo` itself is freed of that, since the look-up of the client's socket in
/// [`peer`](crate::peer) finds none that is bound to a device. Kernels let only a process with
/// `CAP_NET_RAW` do that.
#[inline(always)]
fn can_use_loopback(ctx: &SockAddrContext) -> bool {
    // SAFETY: the hook's own socket, which outlives the program.
    let device = unsafe { (*socket(ctx)).bound_dev_if };
    device == 0 || (device == LOOPBACK_DEVICE && unbind_from_device(ctx))
}

#[inline(always)]
fn unbind_from_device(ctx: &SockAddrContext) -> bool {
    let mut none = [0_u8; 4];
    // SAFETY: the helper takes the context, and reads four bytes: the name of no device.
    let result = unsafe {
        bpf_setsockopt(
            ctx.sock_addr.cast(),
            SOL_SOCKET,
            SO_BINDTODEVICE,
            none.as_mut_ptr().cast(),
            none.len() as i32,
        )
    };
    result == 0
}

/// Notes a caller that chose a listener's address itself, so that it is not taken for another.
#[inline(always)]
fn straight_to_listener(ctx: &SockAddrContext, port: u16) {
    let netns = pods::netns(ctx);
    // Others use these ports as well, and so does another agent.
    if !is_stream(ctx) || PORTS.get_ptr(port_key(netns, port)).is_none() {
        return;
    }
    let call = Call {
        pod: pods::of_current_process().map_or(0, |pod| pod.id),
        netns,
        asked: ASKED_LISTENER,
    };
    count(if can_use_loopback(ctx) && record(ctx, &call, port) {
        Counter::Direct
    } else {
        Counter::Failed
    });
}

/// Writes the caller's record on the client's socket, over the one of an earlier connect. False
/// when memory is short.
#[inline(always)]
fn record(ctx: &SockAddrContext, call: &Call, port: u16) -> bool {
    // SAFETY: the hook's own socket.
    let caller = unsafe { CALLERS.get_or_create(socket(ctx)) };
    if caller.is_null() {
        return false;
    }
    // SAFETY: not null, and the storage lives as long as the socket, which this call holds locked.
    unsafe {
        (*caller).pod = call.pod;
        (*caller).netns = call.netns;
        (*caller).connected_at = bpf_ktime_get_ns();
        (*caller).tgid = pods::current_process();
        (*caller).port = port;
        (*caller).asked = call.asked;
    }
    true
}
