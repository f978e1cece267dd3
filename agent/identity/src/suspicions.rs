//! What the log says about where pods' tokens came from, so that nobody can flood it.

use std::mem::{self, Discriminant};

use podcreds_types::{PodUid, Route, SharedMap};

/// How many of one kind are logged of one pod, which can make up any number of tokens.
const MOST_PER_POD: usize = 16;

/// What is logged, once each. By the way that the token came, so that a proxy cannot hide a thief.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Suspicion {
    /// The pod shows a token that claims to be this one's, or no pod's.
    ForeignToken(Option<PodUid>, Route),
    /// The pod's own token has come to the node path.
    Detour(Route),
}

impl Suspicion {
    /// What has a limit of its own: what others do by way of a pod that is a proxy must not hide
    /// what it does itself.
    fn kind(&self) -> (Discriminant<Self>, Route) {
        let (Self::ForeignToken(_, route) | Self::Detour(route)) = self;
        (mem::discriminant(self), *route)
    }
}

/// What has been logged, by the pod that it is about.
#[derive(Default)]
pub(super) struct Suspicions(SharedMap<PodUid, Vec<Suspicion>>);

impl Suspicions {
    /// Notes a suspicion. Whether it is to be logged: it is news, and not one too many.
    pub(super) fn is_due(&self, pod: PodUid, suspicion: Suspicion) -> bool {
        let mut logged = self.0.entry(pod).or_default();
        let alike = logged.iter().filter(|it| it.kind() == suspicion.kind());
        let is_due = alike.count() < MOST_PER_POD && !logged.contains(&suspicion);
        if is_due {
            logged.push(suspicion);
        }
        is_due
    }

    pub(super) fn pod_gone(&self, pod: PodUid) {
        self.0.remove(&pod);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_suspicion_is_logged_once_and_a_pod_cannot_flood_the_log() {
        let suspicions = Suspicions::default();
        let pod = |number: u8| PodUid::from(u128::from(number));
        for route in [Route::Direct, Route::Proxy] {
            for suspicion in [
                Suspicion::Detour(route),
                Suspicion::ForeignToken(None, route),
                Suspicion::ForeignToken(Some(pod(2)), route),
            ] {
                assert!(suspicions.is_due(pod(1), suspicion), "{suspicion:?}");
                assert!(!suspicions.is_due(pod(1), suspicion), "{suspicion:?}");
            }
        }
        // Two by each route were logged above.
        for route in [Route::Proxy, Route::Direct] {
            let made_up =
                (3..=u8::MAX).map(|other| Suspicion::ForeignToken(Some(pod(other)), route));
            let logged = made_up.filter(|suspicion| suspicions.is_due(pod(1), *suspicion));
            assert_eq!(logged.count(), MOST_PER_POD - 2, "{route:?}");
        }
        assert!(suspicions.is_due(pod(2), Suspicion::Detour(Route::Direct)));
        suspicions.pod_gone(pod(1));
        assert!(suspicions.is_due(pod(1), Suspicion::Detour(Route::Direct)));
    }
}
