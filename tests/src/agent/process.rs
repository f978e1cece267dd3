//! What a process uses of the machine, from /proc.

use std::time::Duration;

use procfs::{ProcResult, WithCurrentSystemInfo, process::Process, ticks_per_second};

/// A snapshot of what a process uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Open file descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: u64,
    /// Resident memory, in bytes.
    pub resident: u64,
    /// CPU time in user space and in the kernel since it started; the clock ticks every 10 ms.
    pub cpu: Duration,
}

impl Usage {
    /// What the process with this ID uses now.
    ///
    /// # Errors
    ///
    /// When it has ended, or its files cannot be read.
    pub fn of(pid: u32) -> ProcResult<Self> {
        let process = Process::new(pid.cast_signed())?;
        let stat = process.stat()?;
        let ticks = stat.utime + stat.stime;
        Ok(Self {
            descriptors: process.fd_count()?,
            threads: stat.num_threads.unsigned_abs(),
            resident: stat.rss_bytes().get(),
            cpu: Duration::from_millis(ticks * 1000 / ticks_per_second()),
        })
    }
}
