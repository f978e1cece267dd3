//! One row for each pod: what the cache, the exchanges, identity and the pods' records know of it.

use std::collections::{HashMap, HashSet};

use podcreds_admin::{
    Granted, IdentifiedBy, OperateError, PathKind, PodState, PodStatus, Target, TimedError,
};
use podcreds_credentials::{self as credentials, ExchangeReport, Subject, Summary};
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

impl Operator {
    /// One row for each subject that has credentials or an error, and for each other pod.
    pub(super) fn rows(&self, report: Option<&ExchangeReport>) -> Vec<Row> {
        let mut errors: HashMap<Subject, credentials::LastError> = HashMap::new();
        let mut fetching = HashSet::new();
        if let Some(report) = report {
            errors.extend(report.errors.iter().cloned());
            fetching.extend(report.exchanging.iter().copied());
        }
        let mut rows = Vec::new();
        let mut served = HashSet::new();
        for summary in self.store.cache().summaries() {
            let error = errors.remove(&summary.subject);
            served.extend(pod_of(&summary.subject, summary.pod));
            rows.push(self.with_credentials(summary, error));
        }
        for (subject, error) in others(&errors, self.pods.all(), &served) {
            let is_fetching = fetching.contains(&subject);
            rows.push(self.without(subject, error, is_fetching));
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
            ..nameless(pod, summary.names)
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

    fn without(
        &self,
        subject: Subject,
        error: Option<credentials::LastError>,
        is_fetching: bool,
    ) -> Row {
        let pod = pod_of(&subject, None);
        let verified = pod.and_then(|pod| self.pods.names(pod));
        let told = error.as_ref().and_then(|error| error.names.clone());
        let names = verified.as_deref().cloned().or(told);
        // Beside names with a question mark a UID is read as they are, and alone it is not.
        let claimed = error.as_ref().and_then(|error| error.pod);
        let uid = pod.or(claimed.filter(|_| names.is_some()));
        let has_asked = error.is_some();
        let status = PodStatus {
            state: match (is_fetching, has_asked) {
                (true, _) => PodState::Fetching,
                (false, true) => PodState::Failed,
                (false, false) => PodState::None,
            },
            names_verified: verified.is_some(),
            path: path(pod.map(|pod| self.identity.arrival(pod)), has_asked),
            last_error: error.map(last_error),
            ..nameless(uid, names)
        };
        Row {
            subject,
            granted: None,
            status,
        }
    }
}

/// Who has no credentials, and why not if that is known: each pod that failed or that has not
/// asked, and tokens. A token that got nothing may name any pod, and takes no other's place.
fn others(
    errors: &HashMap<Subject, credentials::LastError>,
    known: Vec<PodUid>,
    served: &HashSet<PodUid>,
) -> Vec<(Subject, Option<credentials::LastError>)> {
    // What a token says of a pod of which more is known is of no use, as after its replacement.
    let is_news = |subject: &Subject, claimed: Option<PodUid>| match (subject, claimed) {
        (Subject::Token(_), Some(pod)) => {
            !served.contains(&pod) && !errors.contains_key(&Subject::Pod(pod))
        }
        (_, _) => true,
    };
    let quiet = known.into_iter().filter(|pod| {
        let subject = Subject::Pod(*pod);
        !served.contains(pod) && !errors.contains_key(&subject)
    });
    let mut others: Vec<_> = quiet.map(|pod| (Subject::Pod(pod), None)).collect();
    let failed = errors.iter();
    let failed = failed.filter(|(subject, error)| is_news(subject, error.pod));
    others.extend(failed.map(|(subject, error)| (*subject, Some(error.clone()))));
    others
}

fn pod_of(subject: &Subject, claimed: Option<PodUid>) -> Option<PodUid> {
    match subject {
        Subject::Pod(pod) => Some(*pod),
        Subject::Token(_) => claimed,
    }
}

/// A pod of which nothing but its names is known.
fn nameless(pod: Option<PodUid>, names: Option<PodNames>) -> PodStatus {
    let text = |text: &str| text.to_owned();
    PodStatus {
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

    /// The error of a subject with a token that claims to be this pod's.
    fn failed(subject: Subject, claimed: Option<PodUid>) -> (Subject, credentials::LastError) {
        let error = credentials::LastError {
            at: SystemTime::UNIX_EPOCH,
            message: "refused".into(),
            pod: claimed,
            names: None,
        };
        (subject, error)
    }

    #[test]
    fn a_forged_token_takes_no_pods_place() {
        let (asked, quiet, serving) = (pod(1), pod(2), pod(3));
        let forged: Vec<_> = (0..50).map(|number| token(&number.to_string())).collect();
        let mut errors = HashMap::from([failed(Subject::Pod(asked), Some(asked))]);
        for (subject, claimed) in forged
            .iter()
            .zip([asked, quiet, serving].into_iter().cycle())
        {
            errors.extend([failed(*subject, Some(claimed))]);
        }
        errors.extend([failed(token("of nobody"), None)]);
        let known = vec![asked, quiet, serving];
        let shown = others(&errors, known, &HashSet::from([serving]));
        let of = |subject: Subject| {
            let found = shown.iter().filter(|(other, _)| *other == subject);
            found.map(|(_, error)| error.is_some()).collect::<Vec<_>>()
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
            let errors = tokens.filter_map(|(_, error)| error.as_ref());
            errors.filter(|error| error.pod == Some(claimed)).count()
        };
        assert_eq!([asked, quiet, serving].map(claims), [0, 17, 0]);
    }
}
