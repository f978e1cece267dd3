//! `kubectl podcreds migrate`: the commands that take over from another mechanism. None is run.

use std::collections::{BTreeMap, BTreeSet};

use podcreds_output::harmless;
use podcreds_types::ServiceAccount;
use serde::Serialize;

use crate::{
    checks,
    cli::From,
    commands,
    finding::Finding,
    policy::{self, ASSUME, Principal, TAG, Verdict, judge},
    show::Shown,
    snapshot::{Cluster, Details, Missing, Role, Snapshot, account_of},
};

/// What kube2iam and kiam look for at pods.
const POD_ROLE: &str = "iam.amazonaws.com/role";

/// What is to be done. The names in JSON are an interface.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Plan {
    steps: Vec<Step>,
    /// What could not be looked at.
    findings: Vec<Finding>,
}

/// What is to be done for one service account or one role.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    /// Why, in a sentence.
    about: String,
    /// The command, if one can be given.
    command: Option<String>,
}

/// The roles that service accounts have today.
pub(crate) type Wanted = BTreeMap<ServiceAccount, BTreeSet<String>>;

/// Which roles the annotations name, as ARNs.
///
/// # Errors
///
/// When what has the annotations could not be looked at.
pub(crate) fn wanted(snapshot: &Snapshot, from: From) -> Result<Wanted, Missing> {
    let mut wanted = Wanted::new();
    let mut want = |account: ServiceAccount, role: &str| {
        if role.is_empty() {
            return;
        }
        let arn = arn(&snapshot.cluster, role);
        wanted.entry(account).or_default().insert(arn);
    };
    match from {
        From::Irsa => {
            let accounts = snapshot.accounts.as_ref().map_err(Clone::clone)?;
            for (name, account) in accounts {
                if let Some(role) = &account.irsa_role {
                    want(name.clone(), role);
                }
            }
        }
        From::Kube2iam | From::Kiam => {
            let pods = snapshot.pods.as_ref().map_err(Clone::clone)?;
            for pod in pods.iter().filter(|pod| pod.is_alive()) {
                if let Some(role) = pod.annotations.get(POD_ROLE) {
                    want(pod.service_account(), role);
                }
            }
        }
    }
    Ok(wanted)
}

/// A role's ARN. kube2iam and kiam also take a name, with its path.
fn arn(cluster: &Cluster, role: &str) -> String {
    if role.starts_with("arn:") {
        return role.to_owned();
    }
    let partition = cluster.arn.as_deref().and_then(|arn| arn.split(':').nth(1));
    let account = cluster.account().unwrap_or("ACCOUNT");
    format!(
        "arn:{}:iam::{account}:role/{}",
        partition.unwrap_or("aws"),
        role.trim_start_matches('/')
    )
}

impl Plan {
    /// What takes over from these roles. Those in the snapshot are known.
    pub(crate) fn new(snapshot: &Snapshot, wanted: &Wanted) -> Self {
        let mut steps: Vec<Step> = Vec::new();
        for (account, roles) in wanted {
            steps.push(associate(snapshot, account, roles));
        }
        let roles: BTreeSet<&String> = wanted.values().flatten().collect();
        steps.extend(roles.into_iter().filter_map(|arn| trust(snapshot, arn)));
        Self {
            steps,
            findings: checks::missing(snapshot),
        }
    }
}

/// The association of a service account.
fn associate(snapshot: &Snapshot, account: &ServiceAccount, roles: &BTreeSet<String>) -> Step {
    let mut all = roles.iter();
    let (Some(role), None) = (all.next(), all.next()) else {
        let roles: Vec<_> = roles.iter().map(String::as_str).collect();
        let about = format!(
            "{account}: its pods have {} roles ({}): give each of them a service account of its own",
            roles.len(),
            roles.join(", ")
        );
        return Step {
            about,
            command: None,
        };
    };
    let associations = snapshot.associations.as_ref().ok();
    if associations.is_some_and(|all| all.contains_key(account)) {
        return Step {
            about: format!("{account}: it has an association already"),
            command: None,
        };
    }
    let own = snapshot.cluster.account();
    if own.is_some() && account_of(role) != own {
        return Step {
            about: format!(
                "{account}: {role} is of another account: it needs a role of this account, and \
                 that one as --target-role-arn"
            ),
            command: None,
        };
    }
    let about = match account.name.as_str() {
        "default" => format!(
            "{account}: {role}; every pod of the namespace without a service account of its own \
             gets it"
        ),
        _ => format!("{account}: {role}{}", also(snapshot, account)),
    };
    let like = Details {
        role: role.clone(),
        session_tags: true,
        ..Details::default()
    };
    Step {
        about,
        command: Some(commands::create_association(
            &snapshot.cluster,
            account,
            Some(&like),
        )),
    }
}

/// Which pods get the role of others: an annotation is a pod's, and an association is its
/// account's.
fn also(snapshot: &Snapshot, account: &ServiceAccount) -> String {
    let pods = snapshot.pods.iter().flatten();
    let own = pods.filter(|pod| pod.is_alive() && pod.service_account() == *account);
    let (with, without): (Vec<_>, Vec<_>) =
        own.partition(|pod| pod.annotations.contains_key(POD_ROLE));
    match (with.len(), without.len()) {
        (0, _) | (_, 0) => String::new(),
        (_, others) => format!("; so do {others} of its pods that have no annotation"),
    }
}

/// What a role's trust policy lacks, if it lacks something.
fn trust(snapshot: &Snapshot, arn: &str) -> Option<Step> {
    let own = snapshot.cluster.account();
    if own.is_some() && account_of(arn) != own {
        return None;
    }
    let role: &Role = match snapshot.roles.get(arn) {
        Some(Ok(Some(role))) => role,
        Some(Ok(None)) => {
            return Some(Step {
                about: format!("{arn}: there is no such role"),
                command: None,
            });
        }
        // That it could not be looked at is a finding.
        Some(Err(_)) | None => return None,
    };
    if !role.trust.is_object() {
        return Some(Step {
            about: format!("{arn}: its trust policy cannot be read"),
            command: None,
        });
    }
    let verdict = |action: &&str| {
        let keys = policy::Keys::default();
        judge(&role.trust, Principal::Pods, action, &keys)
    };
    let actions = [ASSUME, TAG];
    if actions
        .iter()
        .any(|action| matches!(verdict(action), Verdict::Denied))
    {
        return Some(Step {
            about: format!("{arn}: its trust policy denies EKS"),
            command: None,
        });
    }
    let lacks: Vec<_> = actions
        .into_iter()
        .filter(|action| verdict(action) == Verdict::NotAllowed)
        .collect();
    (!lacks.is_empty()).then(|| Step {
        about: format!("{arn}: EKS may not assume it yet"),
        command: Some(commands::set_trust(
            arn,
            &policy::extended(&role.trust, &lacks),
        )),
    })
}

impl Shown for Plan {
    /// A script for a shell, to be read before it is run.
    fn text(&self, _width: Option<usize>) -> String {
        if self.steps.is_empty() && self.findings.is_empty() {
            return "# nothing has such an annotation\n".to_owned();
        }
        let mut text = String::new();
        for Step { about, command } in &self.steps {
            text.push_str(&format!("# {}\n", harmless(about)));
            if let Some(command) = command {
                text.push_str(&format!("{}\n", harmless(command)));
            }
        }
        for Finding {
            subject,
            seen,
            remedy,
            ..
        } in &self.findings
        {
            text.push_str(&format!("# {subject}: {seen}\n"));
            if let Some(remedy) = remedy {
                text.push_str(&format!("#   {remedy}\n"));
            }
        }
        if !self.steps.is_empty() {
            text.push_str(
                "# then make the pods anew, and take the annotations away once they have the role\n",
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::snapshot::{Account, Association, Pod};

    fn snapshot() -> Snapshot {
        let pod = |name: &str, account: &str, role: &str| Pod {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            account: account.to_owned(),
            phase: "Running".to_owned(),
            annotations: [(POD_ROLE.to_owned(), role.to_owned())].into(),
            ..Pod::default()
        };
        let mut unannotated = pod("web-3", "reader", "");
        unannotated.annotations.clear();
        let irsa = Account {
            irsa_role: Some("arn:aws:iam::111122223333:role/reader".to_owned()),
        };
        let done = Association {
            id: "a-1".to_owned(),
            details: None,
        };
        let account = |name: &str| name.parse::<ServiceAccount>().unwrap();
        let trusted = Role {
            trust: policy::extended(&json!({}), &[ASSUME, TAG]),
            boundary: None,
        };
        Snapshot {
            cluster: Cluster {
                name: "prod".to_owned(),
                arn: Some("arn:aws-cn:eks:cn-north-1:111122223333:cluster/prod".to_owned()),
                ..Cluster::default()
            },
            pods: Ok(vec![
                pod("web-1", "reader", "reader"),
                pod("web-2", "reader", "reader"),
                unannotated,
                pod("api", "both", "one"),
                pod("job", "both", "/team/two"),
                pod("old", "done", "done"),
            ]),
            agents: Ok(Vec::new()),
            accounts: Ok([(account("shop/reader"), irsa)].into()),
            nodes: Ok([].into()),
            network_policies: Ok(Vec::new()),
            associations: Ok([(account("shop/done"), done)].into()),
            roles: [
                (
                    "arn:aws-cn:iam::111122223333:role/reader".to_owned(),
                    Ok(Some(Role {
                        trust: json!({}),
                        boundary: None,
                    })),
                ),
                (
                    "arn:aws-cn:iam::111122223333:role/one".to_owned(),
                    Ok(Some(trusted)),
                ),
                (
                    "arn:aws-cn:iam::111122223333:role/team/two".to_owned(),
                    Ok(None),
                ),
            ]
            .into(),
            agent_report: None,
        }
    }

    #[test]
    fn pods_with_one_role_get_an_association_and_those_with_two_a_hint() {
        let snapshot = snapshot();
        let wanted = wanted(&snapshot, From::Kube2iam).unwrap();
        let text = Plan::new(&snapshot, &wanted).text(None);
        let has = |piece: &str| assert!(text.contains(piece), "{piece}\n{text}");
        has("--namespace shop --service-account reader \
             --role-arn arn:aws-cn:iam::111122223333:role/reader\n");
        has("# shop/both: its pods have 2 roles");
        has("; so do 1 of its pods that have no annotation\n");
        has("# shop/done: it has an association already\n");
        has("aws iam update-assume-role-policy --role-name reader ");
        has("role/team/two: there is no such role\n");
        assert!(!text.contains("--role-name one"), "{text}");
        assert!(!text.contains("--service-account both"), "{text}");
        for line in text.lines() {
            assert!(line.starts_with('#') || line.starts_with("aws "), "{line}");
        }
    }

    #[test]
    fn irsa_is_found_at_service_accounts() {
        let snapshot = snapshot();
        let wanted = wanted(&snapshot, From::Irsa).unwrap();
        assert_eq!(wanted.len(), 1);
        let roles: Vec<_> = wanted.values().flatten().collect();
        assert_eq!(roles, ["arn:aws:iam::111122223333:role/reader"]);
        let text = Plan::new(&snapshot, &wanted).text(None);
        assert!(text.contains("--service-account reader"), "{text}");
        let none = Plan::new(&snapshot, &Wanted::new()).text(None);
        assert_eq!(none, "# nothing has such an annotation\n");
    }

    #[test]
    fn a_role_of_another_account_is_a_hint_and_what_cannot_be_seen_an_error() {
        let mut snapshot = snapshot();
        let abroad = Account {
            irsa_role: Some("arn:aws:iam::999922223333:role/reader".to_owned()),
        };
        snapshot.accounts = Ok([("shop/reader".parse().unwrap(), abroad)].into());
        let wanted_roles = wanted(&snapshot, From::Irsa).unwrap();
        let text = Plan::new(&snapshot, &wanted_roles).text(None);
        assert!(text.contains("is of another account"), "{text}");
        assert!(!text.contains("\naws "), "{text}");

        let missing = Missing {
            what: "serviceaccounts".to_owned(),
            why: "no".to_owned(),
            needs: None,
        };
        snapshot.accounts = Err(missing.clone());
        assert_eq!(wanted(&snapshot, From::Irsa), Err(missing));
    }
}
