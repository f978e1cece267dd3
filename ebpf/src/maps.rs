//! What the programs share with the agent.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{
        BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE, bpf_map_type, bpf_sock,
    },
    btf_maps::{Array, HashMap, PerCpuArray, RingBuf},
    helpers::generated::bpf_sk_storage_get,
    macros::btf_map,
};
use podcreds_common::{
    CallerRecord, Counter, KernelEvent, ListenerTag, MAX_LISTENERS, MAX_NESTED, MAX_PODS,
    NestedKey, PodEndpoint,
};

/// Room for what happens while the agent looks elsewhere. What does not fit is lost.
const EVENTS_BYTES: usize = 16 * 1024;

/// The known pods, by cgroup id.
#[btf_map]
pub(crate) static PODS: HashMap<u64, PodEndpoint, MAX_PODS> = HashMap::new();

/// The host's own network namespace (in slot 0), for pods with hostNetwork.
#[btf_map]
pub(crate) static HOST: Array<PodEndpoint, 1> = Array::new();

/// The listeners of pods in namespaces that are not their own.
#[btf_map]
pub(crate) static NESTED: HashMap<
    NestedKey,
    PodEndpoint,
    MAX_NESTED,
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

/// The ports of our listeners, by [`podcreds_common::port_key`]. The value is 1 once somebody else
/// has wanted it.
#[btf_map]
pub(crate) static PORTS: HashMap<u64, u32, MAX_LISTENERS, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

#[btf_map]
static EVENTS: RingBuf<KernelEvent, EVENTS_BYTES> = RingBuf::new();

/// Who connected, on the client's socket and on the accepted one. It goes with the socket.
#[btf_map]
pub(crate) static CALLERS: SocketStorage<CallerRecord, { BPF_F_NO_PREALLOC as usize }> =
    SocketStorage::new();

/// The mark of our listeners, which the sockets that they accept inherit. Set by user space.
#[btf_map]
pub(crate) static LISTENERS: SocketStorage<
    ListenerTag,
    { (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize },
> = SocketStorage::new();

#[btf_map]
static COUNTERS: PerCpuArray<u64, { Counter::ALL.len() }> = PerCpuArray::new();

/// Adds one to a counter of this CPU.
pub(crate) fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the slot is this CPU's own; a program that preempts this one can make it lose an
        // increment, nothing more.
        unsafe { *value += 1 }
    }
}

/// Tells the agent of something. False when there is no room.
#[inline(always)]
pub(crate) fn report(event: KernelEvent) -> bool {
    EVENTS.output(event, 0).is_ok()
}

/// A `BPF_MAP_TYPE_SK_STORAGE` map: one value a socket.
///
/// aya-ebpf's own has fixed flags and reaches only the hook's socket; ours needs `BPF_F_CLONE` and
/// the sockets that a look-up finds. The fields are the map's definition in BTF, never read.
#[repr(C)]
pub(crate) struct SocketStorage<T, const FLAGS: usize> {
    r#type: *const [i32; bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; FLAGS],
}

// SAFETY: the pointers are types of the definition, and never dereferenced.
unsafe impl<T, const FLAGS: usize> Sync for SocketStorage<T, FLAGS> {}

impl<T, const FLAGS: usize> SocketStorage<T, FLAGS> {
    const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
        }
    }

    /// The value of a socket, or null.
    ///
    /// # Safety
    ///
    /// `socket` is the hook's socket or one that a look-up returned and that is not yet released.
    #[inline(always)]
    pub(crate) unsafe fn get(&self, socket: *mut bpf_sock) -> *mut T {
        // SAFETY: the map is this static, the socket as the caller promises.
        unsafe { self.storage(socket, 0) }
    }

    /// The value of a socket, made of zeroes if there was none, or null when memory is short.
    ///
    /// # Safety
    ///
    /// As for [`Self::get`].
    #[inline(always)]
    pub(crate) unsafe fn get_or_create(&self, socket: *mut bpf_sock) -> *mut T {
        // SAFETY: the map is this static, the socket as the caller promises.
        unsafe { self.storage(socket, u64::from(BPF_SK_STORAGE_GET_F_CREATE)) }
    }

    /// What the helper returns for a socket.
    ///
    /// # Safety
    ///
    /// As for [`Self::get`].
    #[inline(always)]
    unsafe fn storage(&self, socket: *mut bpf_sock, flags: u64) -> *mut T {
        let map: *const Self = self;
        // SAFETY: the helper takes a map, a socket and no initial value.
        unsafe {
            bpf_sk_storage_get(
                map.cast_mut().cast::<c_void>(),
                socket.cast(),
                core::ptr::null_mut(),
                flags,
            )
            .cast()
        }
    }
}
