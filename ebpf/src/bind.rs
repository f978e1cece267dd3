//! `bind()`: an application wants a port, on which we may listen.
//!
//! Nothing can be done for this call, which will find the port taken. The agent moves its listener,
//! so that the next one succeeds.

use aya_ebpf::programs::SockAddrContext;
use podcreds_common::{BINDING_PRIORITY, EVENT_PORT_WANTED, KernelEvent, port_key};

use crate::{
    maps::{PORTS, report},
    net::{ip6, is_stream, leads_to_listener4, leads_to_listener6, port_number, socket},
    pods,
};

/// An IPv4 bind. Those that have nothing to do with us cost a few comparisons.
#[inline(always)]
pub(crate) fn v4(ctx: &SockAddrContext) {
    let addr = ctx.sock_addr;
    // SAFETY: the context outlives the program.
    let (ip, port) = unsafe { ((*addr).user_ip4, port_number((*addr).user_port)) };
    if leads_to_listener4(ip, port) {
        wanted(ctx, port);
    }
}

/// An IPv6 bind, to all addresses of both families perhaps.
#[inline(always)]
pub(crate) fn v6(ctx: &SockAddrContext) {
    // SAFETY: the context outlives the program.
    let port = unsafe { port_number((*ctx.sock_addr).user_port) };
    if leads_to_listener6(ip6(ctx), port) {
        wanted(ctx, port);
    }
}

/// Tells the agent, once for each port, unless another agent tries whether the port is free.
#[inline(always)]
fn wanted(ctx: &SockAddrContext, port: u16) {
    // SAFETY: the hook's own socket, which outlives the program.
    if !is_stream(ctx) || unsafe { (*socket(ctx)).priority } == BINDING_PRIORITY {
        return;
    }
    let netns = pods::netns(ctx);
    let Some(flag) = PORTS.get_ptr_mut(port_key(netns, port)) else {
        return;
    };
    // SAFETY: the entry is there, and only this program and the agent's removal touch it.
    if unsafe { *flag } != 0 {
        return;
    }
    let is_reported = report(KernelEvent {
        pod: 0,
        netns,
        thread: pods::current_thread(),
        port,
        kind: EVENT_PORT_WANTED,
    });
    if is_reported {
        // SAFETY: as above.
        unsafe { *flag = 1 };
    }
}
