//! Changing what is logged while the agent runs.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};
use tracing_subscriber::{Registry, filter::Targets, reload};

use super::{Filter, LOG, Verbosity};

/// What is logged now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterState {
    /// What holds now.
    pub filter: Filter,
    /// What the process was started with.
    pub started_with: Filter,
    /// In how long it goes back to that by itself, if it does.
    pub back_in: Option<Duration>,
}

/// What the process logs, and how to change that.
pub(super) struct Control {
    handle: reload::Handle<Targets, Registry>,
    started_with: Filter,
    state: Mutex<ControlState>,
}

struct ControlState {
    filter: Filter,
    back_at: Option<Instant>,
    /// Counts the changes, so that an old timer does not undo a newer one.
    changes: u64,
}

impl Control {
    /// For a log that begins with this filter.
    pub(super) fn new(handle: reload::Handle<Targets, Registry>, filter: Filter) -> Self {
        Self {
            handle,
            started_with: filter.clone(),
            state: Mutex::new(ControlState {
                filter,
                back_at: None,
                changes: 0,
            }),
        }
    }

    fn level(&self) -> FilterState {
        let state = self.lock();
        let left = |at: Instant| at.saturating_duration_since(Instant::now());
        FilterState {
            filter: state.filter.clone(),
            started_with: self.started_with.clone(),
            back_in: state.back_at.map(left),
        }
    }

    /// Logs what this filter lets through. The number of the change.
    fn set(&self, filter: Filter, back_at: Option<Instant>) -> u64 {
        let mut state = self.lock();
        let said = tracing::enabled!(tracing::Level::INFO);
        if said {
            tracing::info!(before = %state.filter, now = %filter, "the log level changes");
        }
        if let Err(error) = self.handle.reload(filter.targets()) {
            tracing::error!(%error, "the log level cannot be changed");
            return state.changes;
        }
        if !said {
            tracing::info!(before = %state.filter, now = %filter, "the log level has changed");
        }
        state.filter = filter;
        state.back_at = back_at;
        state.changes += 1;
        state.changes
    }

    /// Goes back to what the process was started with, unless somebody has changed it since.
    fn go_back(&self, change: u64) {
        if self.lock().changes == change {
            self.set(self.started_with.clone(), None);
        }
    }

    fn lock(&self) -> MutexGuard<'_, ControlState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is logged now. `None` where there is no log.
pub fn level() -> Option<FilterState> {
    Some(LOG.get()?.control.level())
}

/// Logs what this filter lets through, for this long or until it is set again. It must be called on
/// a runtime. What is logged then.
pub fn set_level(filter: Filter, lasts: Option<Duration>) -> Option<FilterState> {
    let control = &LOG.get()?.control;
    let back_at = lasts.and_then(|lasts| Instant::now().checked_add(lasts));
    let change = control.set(filter, back_at);
    if let Some(lasts) = lasts {
        tokio::spawn(async move {
            sleep(lasts).await;
            control.go_back(change);
        });
    }
    Some(control.level())
}

/// With each SIGUSR1 logs everything that helps to find a mistake, or again what the process was
/// started with.
///
/// # Errors
///
/// When the handler cannot be installed.
pub async fn follow_signals() -> io::Result<()> {
    let mut signals = signal(SignalKind::user_defined1())?;
    while signals.recv().await.is_some() {
        let Some(FilterState {
            filter,
            started_with,
            ..
        }) = level()
        else {
            return Ok(());
        };
        let debug = Filter::from(Verbosity::Debug);
        let next = match filter == started_with {
            true => debug,
            false => started_with,
        };
        set_level(next, None);
    }
    Ok(())
}
