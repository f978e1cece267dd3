//! Why subjects last got no new credentials, for people to read: it decides about nothing.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime},
};

use podcreds_cache::Subject;

use crate::report::Told;

/// Pods whose error is remembered: more than a node has.
const MOST_PODS: usize = 1024;
/// Tokens of callers that nobody has identified. Those can make up any number of them.
const MOST_TOKENS: usize = 256;
/// How long the error of such a token is of use. Nothing says when its pod is gone.
const TOKENS_LAST: Duration = Duration::from_secs(60 * 60);

/// Why a subject last got no new credentials.
#[derive(Clone, Debug)]
pub struct LastError {
    /// When.
    pub at: SystemTime,
    /// EKS Auth's words or the agent's, without secrets.
    pub message: Arc<str>,
    /// What the token says about its pod.
    pub told: Told,
}

/// The last error of each subject that had one. Tokens do not push out pods.
#[derive(Default)]
pub(crate) struct LastErrors {
    pods: Errors,
    tokens: Errors,
    /// An outage has the same words for all pods.
    words: Arc<str>,
}

#[derive(Default)]
struct Errors {
    errors: HashMap<Subject, LastError>,
    /// The same subjects, by the time of their first error.
    order: VecDeque<Subject>,
}

impl LastErrors {
    /// Remembers an error in place of the subject's last one.
    pub(crate) fn note(&mut self, subject: Subject, words: &str, mut error: LastError) {
        if *self.words != *words {
            self.words = words.into();
        }
        error.message = Arc::clone(&self.words);
        let now = error.at;
        self.tokens.retain(|_, error| is_of_use(error, now));
        let (errors, most) = match subject {
            Subject::Pod(_) => (&mut self.pods, MOST_PODS),
            Subject::Token(_) => (&mut self.tokens, MOST_TOKENS),
        };
        errors.note(subject, error, most);
    }

    /// Forgets those of a pod that is gone.
    pub(crate) fn forget(&mut self, subject: &Subject) {
        for errors in [&mut self.pods, &mut self.tokens] {
            errors.retain(|other, _| other != subject);
        }
    }

    /// All of them that are of use at this time.
    pub(crate) fn all(&self, now: SystemTime) -> Vec<(Subject, LastError)> {
        let tokens = self.tokens.errors.iter();
        let tokens = tokens.filter(|(_, error)| is_of_use(error, now));
        let all = self.pods.errors.iter().chain(tokens);
        all.map(|(subject, error)| (*subject, error.clone()))
            .collect()
    }
}

/// Whether the error of a token is.
fn is_of_use(error: &LastError, now: SystemTime) -> bool {
    let age = now.duration_since(error.at).unwrap_or_default();
    age < TOKENS_LAST
}

impl Errors {
    fn note(&mut self, subject: Subject, error: LastError, most: usize) {
        if self.errors.insert(subject, error).is_none() {
            self.order.push_back(subject);
        }
        while self.order.len() > most {
            if let Some(oldest) = self.order.pop_front() {
                self.errors.remove(&oldest);
            }
        }
    }

    fn retain(&mut self, is_kept: impl Fn(&Subject, &LastError) -> bool) {
        let before = self.errors.len();
        self.errors.retain(|subject, error| is_kept(subject, error));
        if self.errors.len() < before {
            let errors = &self.errors;
            self.order.retain(|subject| errors.contains_key(subject));
        }
    }
}

#[cfg(test)]
mod tests {
    use podcreds_types::Token;

    use super::*;

    const START: SystemTime = SystemTime::UNIX_EPOCH;

    fn error(at: SystemTime) -> LastError {
        LastError {
            at,
            message: "".into(),
            told: Told::default(),
        }
    }

    fn token(number: usize) -> Subject {
        Subject::Token(Token::new(number.to_string()).digest())
    }

    fn pod(number: usize) -> Subject {
        Subject::Pod(format!("{number:032x}").parse().unwrap())
    }

    #[test]
    fn errors_take_bounded_memory_and_share_their_words() {
        for (most, subject) in [
            (MOST_TOKENS, token as fn(usize) -> Subject),
            (MOST_PODS, pod),
        ] {
            let mut errors = LastErrors::default();
            for number in 0..3 * most {
                errors.note(subject(number), "no answer", error(START));
            }
            let all = errors.all(START);
            assert_eq!(all.len(), most);
            assert!(Arc::ptr_eq(&all[0].1.message, &all[1].1.message));
            errors.forget(&subject(3 * most - 1));
            let kept = errors.all(START).len();
            assert_eq!(kept, most - 1);
            let order = errors.pods.order.len() + errors.tokens.order.len();
            assert_eq!(order, kept);
        }
    }

    #[test]
    fn the_errors_of_tokens_push_out_no_pod_and_end_with_their_use() {
        let mut errors = LastErrors::default();
        errors.note(pod(0), "refused", error(START));
        for number in 0..2 * MOST_PODS {
            errors.note(token(number), "refused", error(START));
        }
        assert_eq!(errors.all(START).len(), 1 + MOST_TOKENS);
        let later = START + TOKENS_LAST;
        let left = errors.all(later);
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].0, pod(0));
        errors.note(token(0), "refused", error(later));
        assert_eq!(errors.tokens.order, [token(0)]);
        assert_eq!(errors.all(later).len(), 2);
    }
}
