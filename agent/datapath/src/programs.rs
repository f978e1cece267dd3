//! The eBPF programs and their maps, from user space.

pub(crate) mod arrivals;
pub(crate) mod events;
pub(crate) mod held_ports;
pub(crate) mod preflight;

use std::{fs::File, io, os::fd::AsRawFd, path::Path, sync::Arc};

use aya::{
    Ebpf, EbpfError, EbpfLoader, include_bytes_aligned,
    maps::{Array, HashMap, MapData, MapError, PerCpuArray, RingBuf, SkStorage},
    programs::{
        CgroupAttachMode, CgroupSockAddr, ProgramError, cgroup_sock_addr::CgroupSockAddrLink,
    },
};
use podcreds_common::{CallerRecord, Counter, ListenerTag, MAX_PODS, NestedKey, PodEndpoint};
use rustix::io::Errno;

use self::held_ports::HeldPorts;
use super::{DatapathError, listeners::listener::Listener};

static OBJECT: &[u8] = include_bytes_aligned!(env!("PODCREDS_EBPF_OBJECT"));

/// The programs that must be there before the first redirected connect.
const PEER_PROGRAMS: [&str; 2] = ["podcreds_peer4", "podcreds_peer6"];
const BIND_PROGRAMS: [&str; 2] = ["podcreds_bind4", "podcreds_bind6"];
const CONNECT_PROGRAMS: [&str; 2] = ["podcreds_connect4", "podcreds_connect6"];

/// The loaded object: owns the programs, and the maps that say where connects go.
pub(crate) struct Programs {
    object: Ebpf,
    pods: HashMap<MapData, u64, PodEndpoint>,
    host: Array<MapData, PodEndpoint>,
    nested: HashMap<MapData, NestedKey, PodEndpoint>,
    ports: HeldPorts,
    listeners: SkStorage<MapData, ListenerTag>,
}

/// Reads the callers' records, from any thread.
#[derive(Clone)]
pub(crate) struct Callers(Arc<SkStorage<MapData, CallerRecord>>);

/// Reads the programs' counters, from any thread.
#[derive(Clone)]
pub(crate) struct ProgramCounters(Arc<PerCpuArray<MapData, u64>>);

/// What the object is loaded for, apart from the programs.
pub(crate) struct Loaded {
    pub(crate) programs: Programs,
    pub(crate) callers: Callers,
    pub(crate) counters: ProgramCounters,
    /// What the programs report.
    pub(crate) events: RingBuf<MapData>,
}

/// What keeps the programs running. Dropping a link detaches its program.
pub(crate) struct Links {
    /// Redirects new connects.
    pub(crate) connect: Vec<CgroupSockAddrLink>,
    /// Notices applications that want a listener's port.
    pub(crate) bind: Vec<CgroupSockAddrLink>,
    /// Identifies what has been redirected.
    pub(crate) peer: Vec<CgroupSockAddrLink>,
}

impl Programs {
    /// Loads the object into the kernel. Nothing runs before [`Self::attach`].
    pub(crate) fn load() -> Result<Loaded, DatapathError> {
        let mut object = EbpfLoader::new().load(OBJECT).map_err(load_error)?;
        let names = [PEER_PROGRAMS, BIND_PROGRAMS, CONNECT_PROGRAMS];
        for name in names.into_iter().flatten() {
            program(&mut object, name)?
                .load()
                .map_err(|error| load_error(error.into()))?;
        }
        let callers = Callers(Arc::new(take(&mut object, "CALLERS")?));
        let counters = ProgramCounters(Arc::new(take(&mut object, "COUNTERS")?));
        let events = take(&mut object, "EVENTS")?;
        let programs = Self {
            pods: take(&mut object, "PODS")?,
            host: take(&mut object, "HOST")?,
            nested: take(&mut object, "NESTED")?,
            ports: HeldPorts::new(take(&mut object, "PORTS")?),
            listeners: take(&mut object, "LISTENERS")?,
            object,
        };
        Ok(Loaded {
            programs,
            callers,
            counters,
            events,
        })
    }

    /// Attaches all programs to the root of the cgroup hierarchy.
    ///
    /// To the root, because the hooks run by the cgroup in which a *socket* was made: the agent's
    /// own listeners are not in a pod's.
    pub(crate) fn attach(&mut self, cgroup_root: &Path) -> Result<Links, DatapathError> {
        let root = File::open(cgroup_root).map_err(DatapathError::io("opening the cgroup root"))?;
        let mut attach_all = |names: [&'static str; 2]| {
            let attach = |name| attach(&mut self.object, name, &root);
            names.into_iter().map(attach).collect::<Result<_, _>>()
        };
        Ok(Links {
            peer: attach_all(PEER_PROGRAMS)?,
            bind: attach_all(BIND_PROGRAMS)?,
            connect: attach_all(CONNECT_PROGRAMS)?,
        })
    }

    /// Marks a listener as ours, so that what it accepts can be identified, and has its port known
    /// for as long as it is open. Before it is published.
    pub(crate) fn tag_listener(&mut self, listener: &mut Listener) -> io::Result<()> {
        let netns = listener.netns;
        self.listeners
            .insert(&listener.socket, ListenerTag { netns }, 0)
            .map_err(map_error)?;
        listener.held = Some(self.ports.hold(netns, listener.port)?);
        Ok(())
    }

    /// Makes a pod known to the programs, or changes where its listeners are.
    pub(crate) fn publish_pod(&mut self, cgroup: u64, endpoint: PodEndpoint) -> io::Result<()> {
        self.pods
            .insert(cgroup, endpoint, 0)
            .map_err(|error| match map_error(error) {
                full if Errno::from_io_error(&full) == Some(Errno::TOOBIG) => io::Error::other(
                    format!("there are {MAX_PODS} pods already, the most there can be"),
                ),
                error => error,
            })
    }

    /// Makes a pod unknown again.
    pub(crate) fn withdraw_pod(&mut self, cgroup: u64) -> io::Result<()> {
        match self.pods.remove(&cgroup) {
            Err(MapError::KeyNotFound) | Ok(()) => Ok(()),
            Err(error) => Err(map_error(error)),
        }
    }

    /// Says where a pod's listeners in another namespace than its own are.
    pub(crate) fn publish_nested(
        &mut self,
        key: NestedKey,
        endpoint: PodEndpoint,
    ) -> io::Result<()> {
        self.nested.insert(key, endpoint, 0).map_err(map_error)
    }

    /// Says that there are none any more.
    pub(crate) fn withdraw_nested(&mut self, key: NestedKey) -> io::Result<()> {
        match self.nested.remove(&key) {
            Err(MapError::KeyNotFound) | Ok(()) => Ok(()),
            Err(error) => Err(map_error(error)),
        }
    }

    /// Says where the listeners in the host's network namespace are.
    pub(crate) fn publish_host(&mut self, endpoint: PodEndpoint) -> io::Result<()> {
        self.host.set(0, endpoint, 0).map_err(map_error)
    }
}

impl Callers {
    /// The record of an accepted connection's caller; `None` when the kernel does not know it.
    pub(crate) fn of(&self, accepted: &impl AsRawFd) -> Option<CallerRecord> {
        self.0.get(accepted, 0).ok()
    }
}

impl ProgramCounters {
    /// A counter's sum over all CPUs, since the agent started.
    pub(crate) fn total(&self, counter: Counter) -> u64 {
        self.0
            .get(&(counter as u32), 0)
            .map_or(0, |values| values.iter().sum())
    }
}

fn program<'a>(
    object: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut CgroupSockAddr, DatapathError> {
    object
        .program_mut(name)
        .ok_or_else(|| broken_object(name))?
        .try_into()
        .map_err(|_: ProgramError| broken_object(name))
}

fn take<M: TryFrom<aya::maps::Map>>(
    object: &mut Ebpf,
    name: &'static str,
) -> Result<M, DatapathError> {
    let map = object.take_map(name).ok_or_else(|| broken_object(name))?;
    M::try_from(map).map_err(|_| broken_object(name))
}

fn attach(
    object: &mut Ebpf,
    name: &'static str,
    root: &File,
) -> Result<CgroupSockAddrLink, DatapathError> {
    let program = program(object, name)?;
    // Links live beside each other whatever the mode; a mode other than this one is refused for
    // them.
    program
        .attach(root, CgroupAttachMode::Single)
        .and_then(|id| program.take_link(id))
        .map_err(|error| load_error(error.into()))
}

/// What the kernel said.
pub(super) fn map_error(error: MapError) -> io::Error {
    match error {
        MapError::SyscallError(error) => error.io_error,
        error => io::Error::other(error),
    }
}

/// The agent and its object are built together, so this is a mistake in the build.
fn broken_object(part: &'static str) -> DatapathError {
    DatapathError::Unsupported(format!(
        "the eBPF object of this build has no usable {part}"
    ))
}

/// Sorts what the kernel said into what the agent may not and what the kernel cannot.
fn load_error(error: EbpfError) -> DatapathError {
    if is_permission(&error) {
        return DatapathError::NotPermitted(format!(
            "the kernel refused the eBPF programs for lack of privileges: give podcreds CAP_BPF \
             and CAP_NET_ADMIN ({error})"
        ));
    }
    DatapathError::Unsupported(format!(
        "the kernel did not accept the eBPF programs ({error:#})"
    ))
}

fn is_permission(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && matches!(Errno::from_io_error(io), Some(Errno::PERM | Errno::ACCESS))
        {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use aya::sys::SyscallError;

    use super::*;

    #[test]
    fn a_missing_kernel_feature_is_told_from_a_missing_privilege() {
        let error = |errno: Errno| {
            let io_error = io::Error::from(errno);
            let call = "bpf_map_create";
            load_error(EbpfError::MapError(MapError::SyscallError(SyscallError {
                call,
                io_error,
            })))
        };
        // No BPF in the kernel, and a map or a program that it does not know.
        for errno in [Errno::NOSYS, Errno::INVAL] {
            let error = error(errno);
            assert!(matches!(error, DatapathError::Unsupported(_)), "{error}");
            assert!(error.to_string().contains("did not accept"), "{error}");
        }
        for errno in [Errno::PERM, Errno::ACCESS] {
            let error = error(errno);
            assert!(matches!(error, DatapathError::NotPermitted(_)), "{error}");
            assert!(error.to_string().contains("CAP_BPF"), "{error}");
        }
    }
}
