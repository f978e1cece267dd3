//! The roles of all entries: a node's pods have few of them, so each text is there once.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Texts that entries share. Nobody looks here for a request.
#[derive(Default)]
pub(crate) struct Roles(Mutex<HashSet<Arc<str>>>);

impl Roles {
    /// The same text, in the place where all who have it look.
    pub(crate) fn shared(&self, role: Arc<str>) -> Arc<str> {
        let mut roles = self.lock();
        if let Some(known) = roles.get(&role) {
            return Arc::clone(known);
        }
        roles.insert(Arc::clone(&role));
        role
    }

    /// Drops what nobody has any more.
    pub(crate) fn sweep(&self) {
        self.lock().retain(|role| Arc::strong_count(role) > 1);
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Arc<str>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_kept_once_and_dropped_with_the_last_entry_that_has_it() {
        let roles = Roles::default();
        let (first, second) = (roles.shared("a".into()), roles.shared("a".into()));
        assert!(Arc::ptr_eq(&first, &second));
        drop(first);
        roles.sweep();
        assert_eq!(roles.lock().len(), 1);
        drop(second);
        roles.sweep();
        assert_eq!(roles.lock().len(), 0);
    }
}
