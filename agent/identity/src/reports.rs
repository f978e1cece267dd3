//! What the log has been told about a pod's tokens, so that nobody can flood it.

use podcreds_types::{PodUid, Route, SharedMap};

/// How much is reported of one pod. It can make up any number of tokens.
const MOST_PER_POD: usize = 16;

/// What is reported, once each. By the way that the token came, so that a proxy cannot hide a thief.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// The pod shows a token that claims to be this one's, or no pod's.
    ForeignToken(Option<PodUid>, Route),
    /// The pod's own token has come to the node path.
    Detour(Route),
}

/// The reports that have been made, by the pod that they are about.
#[derive(Default)]
pub(super) struct Reports(SharedMap<PodUid, Vec<Report>>);

impl Reports {
    /// Notes a report. Whether it is to be made: it is news, and not one too many.
    pub(super) fn is_due(&self, pod: PodUid, report: Report) -> bool {
        let mut made = self.0.entry(pod).or_default();
        let is_due = made.len() < MOST_PER_POD && !made.contains(&report);
        if is_due {
            made.push(report);
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
    fn each_report_is_made_once_and_a_pod_cannot_flood_the_log() {
        let reports = Reports::default();
        let pod = |number: u8| PodUid::from(u128::from(number));
        for route in [Route::Direct, Route::Proxy] {
            for report in [
                Report::Detour(route),
                Report::ForeignToken(None, route),
                Report::ForeignToken(Some(pod(2)), route),
            ] {
                assert!(reports.is_due(pod(1), report), "{report:?}");
                assert!(!reports.is_due(pod(1), report), "{report:?}");
            }
        }
        let made_up =
            (3..=u8::MAX).map(|other| Report::ForeignToken(Some(pod(other)), Route::Direct));
        let made = made_up.filter(|report| reports.is_due(pod(1), *report));
        assert_eq!(made.count(), MOST_PER_POD - 6);
        assert!(reports.is_due(pod(2), Report::Detour(Route::Direct)));
        reports.pod_gone(pod(1));
        assert!(reports.is_due(pod(1), Report::Detour(Route::Direct)));
    }
}
