//! One row for each pod: what the cache, the exchanges, identity and the pods' records know of it.

use std::collections::{HashMap, HashSet};

use podcreds_admin::{
    Granted, IdentifiedBy, OperateError, PathKind, PodState, PodStatus, SubjectKind, Target,
    TimedError,
};
use podcreds_credentials::{self as credentials, ExchangeReport, Subject, Summary, Told};
use podcreds_identity::Arrival;
use podcreds_types::{PodNames, PodUid};

use super::Operator;

/// What there is of one subject.
pub(super) struct Row {
    pub(super) subject: Subject,
    /// What it has; nothing before it has credentials.
    pub(super) granted: Option<Granted>,
    pub(super) status: PodStatus,
}

/// What is going on for a subject beside its credentials, if anything.
#[derive(Default)]
struct Exchange {
    /// Why it last got none.
    error: Option<credentials::LastError>,
    /// What the token tells that is being exchanged, if one is.
    running: Option<Told>,
}

impl Exchange {
    /// What its token tells. Nobody may have verified that.
    fn told(&self) -> Option<&Told> {
        let failed = self.error.as_ref().map(|error| &error.told);
        self.running.as_ref().or(failed)
    }
}

impl Operator {
    /// One row for each subject that has credentials, an exchange or an error, and for each other
    /// pod.
    pub(super) fn rows(&self, report: Option<&ExchangeReport>) -> Vec<Row> {
        let mut exchanges: HashMap<Subject, Exchange> = HashMap::new();
        for (subject, error) in report.into_iter().flat_map(|report| &report.errors) {
            exchanges.entry(*subject).or_default().error = Some(error.clone());
        }
        for (subject, told) in report.into_iter().flat_map(|report| &report.exchanging) {
            exchanges.entry(*subject).or_default().running = Some(told.clone());
        }
        let mut rows = Vec::new();
        let mut served = HashSet::new();
        for summary in self.store.cache().summaries() {
            let exchange = exchanges.remove(&summary.subject).unwrap_or_default();
            served.extend(pod_of(&summary.subject, summary.pod));
            rows.push(self.with_credentials(summary, exchange.error));
        }
        for (subject, exchange) in others(exchanges, self.pods.all(), &served) {
            rows.push(self.without(subject, exchange));
        }
        let key = |row: &Row| {
            let PodStatus {
                namespace,
                name,
                uid,
                ..
            } = &row.status;
            (
                namespace.is_none(),
                namespace.clone(),
                name.clone(),
                uid.clone(),
            )
        };
        rows.sort_by_cached_key(key);
        rows
    }

    fn with_credentials(&self, summary: Summary, error: Option<credentials::LastError>) -> Row {
        let pod = pod_of(&summary.subject, summary.pod);
        let arrival = pod.map(|pod| self.identity.arrival(pod));
        let identified_by = match (summary.subject, arrival) {
            (Subject::Token(_), _) => Some(IdentifiedBy::EksAuth),
            (Subject::Pod(_), Some(Arrival::Redirected)) => Some(IdentifiedBy::Kernel),
            // The agent before this one knows.
            (Subject::Pod(_), _) if summary.last_asked.is_none() => None,
            (Subject::Pod(_), _) => Some(IdentifiedBy::Key),
        };
        let role = summary.role.as_deref().map(str::to_owned);
        let status = PodStatus {
            state: match (summary.has_expired, summary.is_stale) {
                (true, _) => PodState::Expired,
                (false, true) => PodState::Stale,
                (false, false) => PodState::Valid,
            },
            names_verified: summary.names.is_some(),
            role: role.clone(),
            expires: Some(summary.expiration.into()),
            renewed: Some(summary.renewed.into()),
            renewal_due: Some(summary.renew_at.into()),
            last_asked: summary.last_asked.map(Into::into),
            identified_by,
            path: path(arrival, summary.last_asked.is_some()),
            renewed_by_leader: summary.is_followed,
            failed_renewals: summary.failures,
            last_error: error.map(last_error),
            ..nameless(summary.subject, pod, summary.names)
        };
        Row {
            subject: summary.subject,
            granted: Some(Granted {
                role,
                expires: summary.expiration.into(),
            }),
            status,
        }
    }

    fn without(&self, subject: Subject, exchange: Exchange) -> Row {
        let pod = pod_of(&subject, None);
        let verified = pod.and_then(|pod| self.pods.names(pod));
        let told = exchange.told().cloned().unwrap_or_default();
        let names = verified.as_deref().cloned().or(told.names);
        // Beside names with a question mark a UID is read as they are, and alone it is not.
        let uid = pod.or(told.pod.filter(|_| names.is_some()));
        let state = match (&exchange.running, &exchange.error) {
            (Some(_), _) => PodState::Fetching,
            (None, Some(_)) => PodState::Failed,
            (None, None) => PodState::None,
        };
        let has_asked = state != PodState::None;
        let status = PodStatus {
            state,
            names_verified: verified.is_some(),
            path: path(pod.map(|pod| self.identity.arrival(pod)), has_asked),
            last_error: exchange.error.map(last_error),
            ..nameless(subject, uid, names)
        };
        Row {
            subject,
            granted: None,
            status,
        }
    }
}

/// Who has no credentials, and why not if that is known: each pod that fetches some, that failed or
/// that has not asked, and tokens. A token that got nothing may name any pod, and takes no other's
/// place.
fn others(
    mut exchanges: HashMap<Subject, Exchange>,
    known: Vec<PodUid>,
    served: &HashSet<PodUid>,
) -> Vec<(Subject, Exchange)> {
    let pods = exchanges.keys().filter_map(|subject| pod_of(subject, None));
    let pods: HashSet<_> = pods.chain(served.iter().copied()).collect();
    // What a token says of a pod of which more is known is of no use, as after its replacement.
    exchanges.retain(|subject, exchange| match subject {
        Subject::Pod(_) => true,
        Subject::Token(_) => {
            let claimed = exchange.told().and_then(|told| told.pod);
            claimed.is_none_or(|pod| !pods.contains(&pod))
        }
    });
    let quiet = known.into_iter().filter(|pod| !pods.contains(pod));
    let quiet = quiet.map(|pod| (Subject::Pod(pod), Exchange::default()));
    exchanges.into_iter().chain(quiet).collect()
}

fn pod_of(subject: &Subject, claimed: Option<PodUid>) -> Option<PodUid> {
    match subject {
        Subject::Pod(pod) => Some(*pod),
        Subject::Token(_) => claimed,
    }
}

/// A pod of which nothing but its names is known.
fn nameless(subject: Subject, pod: Option<PodUid>, names: Option<PodNames>) -> PodStatus {
    let text = |text: &str| text.to_owned();
    PodStatus {
        subject: match subject {
            Subject::Pod(_) => SubjectKind::Pod,
            Subject::Token(_) => SubjectKind::Token,
        },
        uid: pod.map(|pod| pod.to_string()),
        namespace: names.as_ref().map(|names| text(&names.namespace)),
        name: names.as_ref().map(|names| text(&names.name)),
        service_account: names.as_ref().map(|names| text(&names.service_account)),
        names_verified: false,
        state: PodState::None,
        role: None,
        expires: None,
        renewed: None,
        renewal_due: None,
        last_asked: None,
        identified_by: None,
        path: None,
        renewed_by_leader: false,
        failed_renewals: 0,
        last_error: None,
    }
}

fn path(arrival: Option<Arrival>, has_asked: bool) -> Option<PathKind> {
    match arrival {
        Some(Arrival::Redirected) => Some(PathKind::InPod),
        Some(Arrival::Unreachable) => Some(PathKind::Node),
        Some(Arrival::NotSeen) | None => has_asked.then_some(PathKind::Node),
    }
}

fn last_error(error: credentials::LastError) -> TimedError {
    TimedError {
        at: error.at.into(),
        message: error.message.to_string(),
    }
}

/// The rows that are meant.
pub(super) fn select(rows: Vec<Row>, target: &Target) -> Result<Vec<Row>, OperateError> {
    let is = |text: &Option<String>, wanted: &String| text.as_ref() == Some(wanted);
    let uid = match target {
        Target::Uid(uid) => match uid.parse::<PodUid>() {
            Ok(uid) => uid.to_string(),
            Err(error) => return Err(OperateError::Invalid(format!("{uid:?} is {error}"))),
        },
        _ => String::new(),
    };
    let is_meant = |pod: &PodStatus| match target {
        Target::ServiceAccount { namespace, name } => {
            is(&pod.namespace, namespace) && is(&pod.service_account, name)
        }
        Target::Pod { namespace, name } => is(&pod.namespace, namespace) && is(&pod.name, name),
        Target::Uid(_) => is(&pod.uid, &uid),
    };
    let meant: Vec<_> = rows
        .into_iter()
        .filter(|row| is_meant(&row.status))
        .collect();
    if !meant.is_empty() {
        return Ok(meant);
    }
    let named = "a pod's names are known once it has got credentials";
    Err(OperateError::NotFound(match target {
        Target::ServiceAccount { namespace, name } => {
            format!("no pod of {namespace}/{name} is known on this node ({named})")
        }
        Target::Pod { namespace, name } => {
            format!("no pod {namespace}/{name} is known on this node ({named}; try its UID)")
        }
        Target::Uid(_) => format!("no pod {uid} is known on this node"),
    }))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use podcreds_types::Token;

    use super::*;

    fn pod(number: u8) -> PodUid {
        format!("{number:032x}").parse().unwrap()
    }

    fn token(text: &str) -> Subject {
        Subject::Token(Token::new(text.to_owned()).digest())
    }

    fn told(pod: Option<PodUid>) -> Told {
        Told { pod, names: None }
    }

    /// The error of a subject with a token that claims to be this pod's.
    fn failed(subject: Subject, claimed: Option<PodUid>) -> (Subject, Exchange) {
        let error = credentials::LastError {
            at: SystemTime::UNIX_EPOCH,
            message: "refused".into(),
            told: told(claimed),
        };
        let exchange = Exchange {
            error: Some(error),
            running: None,
        };
        (subject, exchange)
    }

    #[test]
    fn a_forged_token_takes_no_pods_place() {
        let (asked, quiet, serving) = (pod(1), pod(2), pod(3));
        let forged: Vec<_> = (0..50).map(|number| token(&number.to_string())).collect();
        let mut exchanges = HashMap::from([failed(Subject::Pod(asked), Some(asked))]);
        for (subject, claimed) in forged
            .iter()
            .zip([asked, quiet, serving].into_iter().cycle())
        {
            exchanges.extend([failed(*subject, Some(claimed))]);
        }
        exchanges.extend([failed(token("of nobody"), None)]);
        let known = vec![asked, quiet, serving];
        let shown = others(exchanges, known, &HashSet::from([serving]));
        let of = |subject: Subject| {
            let found = shown.iter().filter(|(other, _)| *other == subject);
            found
                .map(|(_, exchange)| exchange.error.is_some())
                .collect::<Vec<_>>()
        };
        assert_eq!(of(Subject::Pod(asked)), [true]);
        assert_eq!(of(Subject::Pod(quiet)), [false]);
        assert!(
            of(Subject::Pod(serving)).is_empty(),
            "it has its row already"
        );
        assert_eq!(of(token("of nobody")), [true]);
        let claims = |claimed| {
            let tokens = shown
                .iter()
                .filter(|(subject, _)| matches!(subject, Subject::Token(_)));
            let told = tokens.filter_map(|(_, exchange)| exchange.told());
            told.filter(|told| told.pod == Some(claimed)).count()
        };
        assert_eq!([asked, quiet, serving].map(claims), [0, 17, 0]);
    }

    #[test]
    fn who_waits_for_a_first_answer_is_shown_whether_the_pod_is_known_or_not() {
        let running = |claimed| Exchange {
            error: None,
            running: Some(told(claimed)),
        };
        let on_node_path = token("of a pod that nothing identifies");
        let exchanges = HashMap::from([
            (Subject::Pod(pod(1)), running(Some(pod(1)))),
            (on_node_path, running(Some(pod(2)))),
        ]);
        let shown = others(exchanges, vec![pod(1)], &HashSet::new());
        assert_eq!(shown.len(), 2);
        assert!(shown.iter().all(|(_, exchange)| exchange.running.is_some()));
    }
}
