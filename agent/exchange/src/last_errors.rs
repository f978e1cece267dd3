//! Why subjects last got no new credentials, for people to read: it decides about nothing.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::SystemTime,
};

use podcreds_cache::Subject;
use podcreds_types::{PodNames, PodUid};

/// Errors that are remembered: of more subjects than a node has pods. Unidentified callers can make
/// up any number of tokens.
const MANY: usize = 1024;

/// Why a subject last got no new credentials.
#[derive(Clone, Debug)]
pub struct LastError {
    /// When.
    pub at: SystemTime,
    /// EKS Auth's words or the agent's, without secrets.
    pub message: Arc<str>,
    /// The pod that the token names.
    pub pod: Option<PodUid>,
    /// What the token says Kubernetes calls this pod. Nobody may have verified that.
    pub names: Option<PodNames>,
}

/// The last error of each subject that had one.
#[derive(Default)]
pub(crate) struct LastErrors {
    errors: HashMap<Subject, LastError>,
    /// Subjects by the time of their first error. Some may be forgotten already.
    order: VecDeque<Subject>,
    /// An outage has the same words for all pods.
    words: Arc<str>,
}

impl LastErrors {
    /// Remembers an error in place of the subject's last one.
    pub(crate) fn note(&mut self, subject: Subject, words: &str, mut error: LastError) {
        if *self.words != *words {
            self.words = words.into();
        }
        error.message = Arc::clone(&self.words);
        if self.errors.insert(subject, error).is_none() {
            self.order.push_back(subject);
        }
        while self.order.len() > MANY {
            if let Some(oldest) = self.order.pop_front() {
                self.errors.remove(&oldest);
            }
        }
    }

    /// Forgets those of a pod that is gone.
    pub(crate) fn forget(&mut self, subject: &Subject) {
        if self.errors.remove(subject).is_some() {
            self.order.retain(|other| other != subject);
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<(Subject, LastError)> {
        let all = self.errors.iter();
        all.map(|(subject, error)| (*subject, error.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use podcreds_types::Token;

    use super::*;

    fn error() -> LastError {
        LastError {
            at: SystemTime::UNIX_EPOCH,
            message: "".into(),
            pod: None,
            names: None,
        }
    }

    #[test]
    fn errors_take_bounded_memory_and_share_their_words() {
        let mut errors = LastErrors::default();
        let subject = |number: usize| Subject::Token(Token::new(number.to_string()).digest());
        for number in 0..3 * MANY {
            errors.note(subject(number), "no answer", error());
        }
        let all = errors.all();
        assert_eq!((all.len(), errors.order.len()), (MANY, MANY));
        assert!(Arc::ptr_eq(&all[0].1.message, &all[1].1.message));
        errors.forget(&subject(3 * MANY - 1));
        assert_eq!(
            (errors.all().len(), errors.order.len()),
            (MANY - 1, MANY - 1)
        );
    }
}
