//! The programs that podcreds attaches to the cgroup root.
//!
//! `connect4` and `connect6` send a pod's connects for the credentials addresses to the agent's
//! listener in that pod's network namespace, and note the caller on the client's socket. `bind4`
//! and `bind6` notice that an application wants a listener's port. `getpeername4` and
//! `getpeername6` run when the agent accepts, and copy that note to the accepted socket; for the
//! client they show the address that it asked for.
#![no_std]
#![no_main]
#![expect(
    unsafe_code,
    reason = "BPF helpers and the context are raw pointers; the kernel's verifier checks each access"
)]

mod bind;
mod connect;
mod maps;
mod net;
mod peer;
mod pods;

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

/// A cgroup socket-address program's verdict: let the system call go on.
const ALLOW: i32 = 1;

/// `bind()` on an IPv4 socket.
#[cgroup_sock_addr(bind4)]
fn podcreds_bind4(ctx: SockAddrContext) -> i32 {
    bind::v4(&ctx);
    ALLOW
}

/// `bind()` on an IPv6 socket.
#[cgroup_sock_addr(bind6)]
fn podcreds_bind6(ctx: SockAddrContext) -> i32 {
    bind::v6(&ctx);
    ALLOW
}

/// `connect()` on an IPv4 socket.
#[cgroup_sock_addr(connect4)]
fn podcreds_connect4(ctx: SockAddrContext) -> i32 {
    connect::v4(&ctx);
    ALLOW
}

/// `connect()` on an IPv6 socket.
#[cgroup_sock_addr(connect6)]
fn podcreds_connect6(ctx: SockAddrContext) -> i32 {
    connect::v6(&ctx);
    ALLOW
}

/// `getpeername()` and `accept()` on an IPv4 socket.
#[cgroup_sock_addr(getpeername4)]
fn podcreds_peer4(ctx: SockAddrContext) -> i32 {
    peer::v4(&ctx);
    ALLOW
}

/// `getpeername()` and `accept()` on an IPv6 socket.
#[cgroup_sock_addr(getpeername6)]
fn podcreds_peer6(ctx: SockAddrContext) -> i32 {
    peer::v6(&ctx);
    ALLOW
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel lets only GPL-compatible programs call some of its helpers.
// SAFETY: this section and this name are where the loader looks, and nothing else has either.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
