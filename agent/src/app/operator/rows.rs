//! One row for each pod: what the cache, the exchanges, identity and the pods' records know of it.

use std::collections::{HashMap, HashSet};

use podcreds_admin::{
    Granted, IdentifiedBy, LastError, PathKind, PodState, PodStatus, Refused, Target,
};
use podcreds_credentials::{self as credentials, Report, Subject, Summary};
use podcreds_identity::Way;
use podcreds_types::{PodNames, PodUid};

use super::Operator;

/// What there is of one subject.
pub(super) struct Row {
    /// Nothing for a pod that has never got anything.
    pub(super) subject: Option<Subject>,
    /// What it has; nothing before it has credentials.
    pub(super) granted: Option<Granted>,
    pub(super) status: PodStatus,
}

impl Operator {
    /// One row for each subject that has credentials or an error, and for each other pod.
    pub(super) fn rows(&self, report: Option<&Report>) -> Vec<Row> {
        let mut errors: HashMap<Subject, credentials::LastError> = HashMap::new();
        let mut fetching = HashSet::new();
        if let Some(report) = report {
            errors.extend(report.errors.iter().cloned());
            fetching.extend(report.exchanging.iter().copied());
        }
        let mut rows = Vec::new();
        let mut seen = HashSet::new();
        for summary in self.store.cache().summaries() {
            let error = errors.remove(&summary.subject);
            seen.extend(summary.pod);
            rows.push(self.with_credentials(summary, error));
        }
        for (subject, error) in errors {
            let pod = pod_of(&subject, error.pod);
            // A token that was replaced by one that is good says nothing about its pod.
            if pod.is_none_or(|pod| seen.insert(pod)) {
                let is_fetching = fetching.contains(&subject);
                rows.push(self.without(Some(subject), pod, Some(error), is_fetching));
            }
        }
        for pod in self.pods.all() {
            if seen.insert(pod) {
                let subject = Subject::Pod(pod);
                let is_fetching = fetching.contains(&subject);
                rows.push(self.without(Some(subject), Some(pod), None, is_fetching));
            }
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
        let way = pod.map(|pod| self.identity.way(pod));
        let identified_by = match (summary.subject, way) {
            (Subject::Token(_), _) => Some(IdentifiedBy::EksAuth),
            (Subject::Pod(_), Some(Way::Redirected)) => Some(IdentifiedBy::Kernel),
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
            path: path(way, summary.last_asked.is_some()),
            renewed_by_leader: summary.is_followed,
            failed_renewals: summary.failures,
            last_error: error.map(last_error),
            ..nameless(pod, summary.names)
        };
        Row {
            subject: Some(summary.subject),
            granted: Some(Granted {
                role,
                expires: summary.expiration.into(),
            }),
            status,
        }
    }

    fn without(
        &self,
        subject: Option<Subject>,
        pod: Option<PodUid>,
        error: Option<credentials::LastError>,
        is_fetching: bool,
    ) -> Row {
        let verified = pod.and_then(|pod| self.pods.names(pod));
        let names = match (&verified, &error) {
            (Some(names), _) => Some((**names).clone()),
            (None, Some(error)) => error.names.clone(),
            (None, None) => None,
        };
        let has_asked = error.is_some();
        let status = PodStatus {
            state: match (is_fetching, has_asked) {
                (true, _) => PodState::Fetching,
                (false, true) => PodState::Failed,
                (false, false) => PodState::None,
            },
            names_verified: verified.is_some(),
            path: path(pod.map(|pod| self.identity.way(pod)), has_asked),
            last_error: error.map(last_error),
            ..nameless(pod, names)
        };
        Row {
            subject,
            granted: None,
            status,
        }
    }
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

fn path(way: Option<Way>, has_asked: bool) -> Option<PathKind> {
    match way {
        Some(Way::Redirected) => Some(PathKind::InPod),
        Some(Way::Unreachable) => Some(PathKind::Node),
        Some(Way::NotSeen) | None => has_asked.then_some(PathKind::Node),
    }
}

fn last_error(error: credentials::LastError) -> LastError {
    LastError {
        at: error.at.into(),
        message: error.message.to_string(),
    }
}

/// The rows that are meant.
pub(super) fn select(rows: Vec<Row>, target: &Target) -> Result<Vec<Row>, Refused> {
    let is = |text: &Option<String>, wanted: &String| text.as_ref() == Some(wanted);
    let uid = match target {
        Target::Uid(uid) => match uid.parse::<PodUid>() {
            Ok(uid) => uid.to_string(),
            Err(error) => return Err(Refused::Invalid(format!("{uid:?} is {error}"))),
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
    Err(Refused::NotFound(match target {
        Target::ServiceAccount { namespace, name } => {
            format!("no pod of {namespace}/{name} is known on this node ({named})")
        }
        Target::Pod { namespace, name } => {
            format!("no pod {namespace}/{name} is known on this node ({named}; try its UID)")
        }
        Target::Uid(_) => format!("no pod {uid} is known on this node"),
    }))
}
