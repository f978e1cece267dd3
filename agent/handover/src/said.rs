//! What a leader hears of its successor, over however many connections.

use tokio::sync::watch;

/// What the successor has said so far, on its last connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said {
    /// The number of that connection; none before the first one.
    pub(super) connection: Option<u64>,
    /// That it serves.
    pub(super) serves: bool,
    /// That it understands questions.
    pub(super) is_extended: bool,
    /// That it reaches all listeners of this question, and of those before.
    pub(super) reached: u64,
}

/// What the successor says on one connection. It counts unless there is a later one: the leader may
/// notice late that a connection broke, when the successor has said everything again on the next.
#[derive(Clone)]
pub(super) struct SaidHere {
    said: watch::Sender<Said>,
    connection: u64,
}

impl SaidHere {
    /// Nothing has been said on this connection yet.
    pub(super) fn begin(said: &watch::Sender<Said>, connection: u64) -> Self {
        let here = Self {
            said: said.clone(),
            connection,
        };
        here.said.send_if_modified(|said| {
            let is_last = said.connection < Some(connection);
            if is_last {
                *said = here.nothing();
            }
            is_last
        });
        here
    }

    fn nothing(&self) -> Said {
        Said {
            connection: Some(self.connection),
            ..Said::default()
        }
    }

    /// Takes in what is said here.
    pub(super) fn note(&self, note: impl FnOnce(&mut Said)) {
        self.said.send_if_modified(|said| {
            let is_last = said.connection == Some(self.connection);
            if is_last {
                note(said);
            }
            is_last
        });
    }

    /// Whether it was said here that questions are understood.
    pub(super) fn is_extended(&self, said: &Said) -> bool {
        said.is_extended && said.connection == Some(self.connection)
    }

    /// The connection has ended before the leader did.
    pub(super) fn forget(&self) {
        self.note(|said| *said = self.nothing());
    }
}
