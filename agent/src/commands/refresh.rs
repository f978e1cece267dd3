//! `podcreds refresh`: has credentials of running pods fetched again.

use std::time::SystemTime;

use podcreds_admin::{Granted, Question, Refresh, RefreshedPod, Target};
use podcreds_output::{self as text, harmless};

use super::asking::{CommandError, ask, print};
use crate::cli::RefreshArgs;

/// Has the credentials fetched, and prints a line for each pod. Whether all have new ones.
///
/// # Errors
///
/// When no agent answers, or none knows such a pod.
pub(crate) fn refresh(args: RefreshArgs) -> Result<bool, CommandError> {
    let account = args.service_account.map(|account| Target::ServiceAccount {
        namespace: account.namespace,
        name: account.name,
    });
    // clap has seen to it that there is one of the two.
    let Some(target) = account.or(args.pod) else {
        return Ok(false);
    };
    let question = Question::Refresh(target);
    let answers: Vec<Refresh> = ask(&args.ask.admin_dir, &question)?;
    let pods: Vec<_> = answers.into_iter().flat_map(|answer| answer.pods).collect();
    if pods.is_empty() {
        eprintln!("podcreds: the agent that renews these credentials has not answered");
        return Ok(false);
    }
    for pod in &pods {
        print(&line(pod, SystemTime::now()))?;
    }
    Ok(pods.iter().all(|pod| pod.error.is_none()))
}

fn line(pod: &RefreshedPod, now: SystemTime) -> String {
    let name = match (&pod.namespace, &pod.name, &pod.uid) {
        (Some(namespace), Some(name), _) => format!("{namespace}/{name}"),
        (_, _, Some(uid)) => uid.clone(),
        (_, _, None) => "a pod without a name".to_owned(),
    };
    let before = pod.before.as_ref().map_or_else(|| "none".to_owned(), role);
    let outcome = match (&pod.after, &pod.error) {
        (_, Some(error)) => format!("failed, had {before}: {error}"),
        (Some(after), None) => {
            let lasts = text::duration(after.expires.until(now));
            format!("{before} -> {}, for {lasts}", role(after))
        }
        (None, None) => "nothing is known of it any more".to_owned(),
    };
    format!("{}: {}\n", harmless(&name), harmless(&outcome))
}

fn role(granted: &Granted) -> String {
    let role = granted.role.as_deref().map(text::role);
    role.unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_line_says_what_a_pod_had_and_has_or_why_not() {
        let now = SystemTime::UNIX_EPOCH;
        let granted = |role: &str| Granted {
            role: Some(format!("arn:aws:sts::123456789012:assumed-role/{role}")),
            expires: (now + Duration::from_secs(600)).into(),
        };
        let mut pod = RefreshedPod {
            uid: None,
            namespace: Some("shop".to_owned()),
            name: Some("web-1".to_owned()),
            before: Some(granted("old")),
            after: Some(granted("new")),
            error: None,
        };
        let expected = "shop/web-1: 123456789012/old -> 123456789012/new, for 10m00s\n";
        assert_eq!(line(&pod, now), expected);
        pod.after = None;
        pod.error = Some("AccessDeniedException: no".to_owned());
        let expected = "shop/web-1: failed, had 123456789012/old: AccessDeniedException: no\n";
        assert_eq!(line(&pod, now), expected);
    }
}
