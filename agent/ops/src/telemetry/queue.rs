//! Log lines on their way to standard error. A thread of their own writes them, so that no other
//! thread ever waits for the reader of the log.

use std::{
    io::{self, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use prometheus::IntCounter;

/// How many bytes of lines wait for the writing thread; as many more may be with it.
const CAPACITY: usize = 256 * 1024;

/// A bounded queue of lines. Clones are the same one.
#[derive(Clone)]
pub(super) struct LogQueue(Arc<Shared>);

struct Shared {
    state: Mutex<QueueState>,
    /// Notified when there are lines to write, and when some have been written.
    changed: Condvar,
    /// Lines for which there was no room.
    dropped: IntCounter,
}

#[derive(Default)]
struct QueueState {
    lines: Vec<u8>,
    /// The thread is writing lines that are no longer in the queue.
    is_writing: bool,
    /// There is a thread.
    is_started: bool,
    /// Lines that were dropped since the thread has last said so.
    dropped: u64,
}

impl LogQueue {
    /// An empty queue that counts the lines that it has no room for.
    pub(super) fn new(dropped: IntCounter) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            dropped,
        }))
    }

    /// Adds a line, or counts it as dropped. Never waits for the reader.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.lines.len() + line.len() > CAPACITY {
            state.dropped += 1;
            drop(state);
            self.0.dropped.inc();
            return;
        }
        state.lines.extend_from_slice(line);
        drop(state);
        self.0.changed.notify_all();
    }

    /// Starts the thread that writes to `sink` for as long as the process lives. It calls `prepare`
    /// first.
    pub(super) fn start(
        &self,
        sink: impl Write + Send + 'static,
        prepare: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let queue = self.clone();
        let thread = thread::Builder::new().name("log".to_owned());
        thread.spawn(move || {
            prepare();
            queue.write_to(sink);
        })?;
        self.lock().is_started = true;
        Ok(())
    }

    /// Waits until everything is written, but no longer than `patience`.
    pub(super) fn finish(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        while !state.lines.is_empty() || state.is_writing {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.0.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether there is a thread that writes.
    pub(super) fn is_started(&self) -> bool {
        self.lock().is_started
    }

    fn write_to(&self, mut sink: impl Write) {
        loop {
            let lines = self.next();
            // Nothing can be done about a reader that is gone.
            let _written = sink.write_all(&lines);
            let mut state = self.lock();
            state.is_writing = false;
            let dropped = mem::take(&mut state.dropped);
            drop(state);
            if dropped > 0 {
                tracing::warn!(
                    lines = dropped,
                    "log lines were dropped: nobody read them in time"
                );
            }
            self.0.changed.notify_all();
        }
    }

    /// Waits for lines, and takes all that there are.
    fn next(&self) -> Vec<u8> {
        let mut state = self.lock();
        while state.lines.is_empty() {
            let waited = self.0.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        state.is_writing = true;
        mem::take(&mut state.lines)
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes lines from `tracing`, which writes each of them at once.
impl Write for LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::unix::net::UnixStream};

    use super::*;

    const LINE: [u8; 100] = [b'x'; 100];
    const PATIENCE: Duration = Duration::from_secs(60);

    fn queue() -> (LogQueue, IntCounter) {
        let dropped = IntCounter::new("dropped", "dropped").unwrap();
        (LogQueue::new(dropped.clone()), dropped)
    }

    #[test]
    fn logging_does_not_wait_for_a_reader_that_does_not_read() {
        let (queue, dropped) = queue();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        queue.start(ours, || {}).unwrap();
        // More than the socket and the queue hold together. A queue that waits would hang here.
        let mut pushed = 0;
        while dropped.get() < 1000 {
            queue.push(&LINE);
            pushed += 1;
        }
        // The end does not wait for long either.
        let begun = Instant::now();
        queue.finish(Duration::from_millis(50));
        assert!(begun.elapsed() < PATIENCE);
        // What was not dropped is there once somebody reads.
        theirs.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut read = vec![0; LINE.len() * (pushed - 1000)];
        theirs.read_exact(&mut read).unwrap();
        assert!(read.iter().all(|byte| *byte == b'x'));
        queue.finish(PATIENCE);
        assert_eq!(dropped.get(), 1000);
    }

    #[test]
    fn finishing_waits_for_the_last_lines() {
        let (queue, dropped) = queue();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        // Lines that came before there was a thread are kept.
        queue.push(b"first\n");
        assert!(!queue.is_started());
        queue.start(ours, || {}).unwrap();
        queue.push(b"last\n");
        queue.finish(PATIENCE);
        let mut read = [0; 11];
        theirs.set_nonblocking(true).unwrap();
        theirs.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"first\nlast\n");
        assert_eq!(dropped.get(), 0);
    }
}
