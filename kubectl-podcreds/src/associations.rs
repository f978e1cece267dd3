//! `kubectl podcreds associations`: who has which role, and which pods use it.

use std::collections::BTreeMap;

use podcreds_output::{harmless, role, table};
use podcreds_types::ServiceAccount;
use serde::Serialize;

use crate::{
    checks,
    finding::Finding,
    show::Shown,
    snapshot::{Missing, Pod, Snapshot},
};

/// All associations. The names in JSON are an interface.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Associations {
    pub(crate) associations: Vec<Row>,
    /// What could not be looked at.
    pub(crate) findings: Vec<Finding>,
    /// How long it took to look, in seconds.
    pub(crate) seconds: f64,
}

/// One association.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    pub(crate) namespace: String,
    pub(crate) service_account: String,
    pub(crate) id: String,
    /// Nothing where it could not be asked for.
    pub(crate) role: Option<String>,
    pub(crate) target_role: Option<String>,
    pub(crate) session_tags: Option<bool>,
    pub(crate) policy: Option<bool>,
    /// Nothing where service accounts could not be listed.
    pub(crate) service_account_exists: Option<bool>,
    pub(crate) pods: Option<Pods>,
}

/// The pods that use an association.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Pods {
    /// Those that have not ended.
    pub(crate) running: usize,
    /// Those among them that are older than the association.
    pub(crate) older: usize,
    /// Those among them that nobody has told where to ask.
    pub(crate) missed: usize,
}

impl Associations {
    pub(crate) fn new(snapshot: &Snapshot, seconds: f64) -> Self {
        Self {
            associations: rows(snapshot),
            findings: checks::missing(snapshot),
            seconds,
        }
    }
}

impl Shown for Associations {
    /// The table, and what stands out in it.
    fn text(&self, width: Option<usize>) -> String {
        let heading = [
            "NAMESPACE",
            "SERVICE ACCOUNT",
            "ROLE",
            "TARGET ROLE",
            "TAGS",
            "POLICY",
            "PODS",
            "OLDER",
            "MISSED",
        ];
        let rows: Vec<_> = self.associations.iter().map(Row::cells).collect();
        let mut text = match rows.is_empty() {
            true => "no associations\n".to_owned(),
            false => table(heading, &rows, width),
        };
        let count = match self.associations.len() {
            1 => "1 association".to_owned(),
            count => format!("{count} associations"),
        };
        let looked = format!("{count}, looked at in {:.1} s", self.seconds);
        text.push_str(&format!("\n{looked}\n"));
        let without = |row: &&Row| row.service_account_exists == Some(false);
        match self.associations.iter().filter(without).count() {
            0 => {}
            1 => text.push_str("1 has no such service account (!)\n"),
            count => text.push_str(&format!("{count} have no such service account (!)\n")),
        }
        let sum = |of: fn(&Pods) -> usize| -> usize {
            self.associations
                .iter()
                .flat_map(|row| &row.pods)
                .map(of)
                .sum()
        };
        if sum(|pods| pods.missed) > 0 {
            text.push_str("pods that were missed have no role: kubectl podcreds doctor\n");
        }
        for finding in &self.findings {
            text.push_str(&format!("{}: {}\n", finding.subject, finding.seen));
            if let Some(remedy) = &finding.remedy {
                text.push_str(&format!("  -> {remedy}\n"));
            }
        }
        text
    }
}

impl Row {
    fn cells(&self) -> [String; 9] {
        let mark = match self.service_account_exists {
            Some(false) => "!",
            _ => "",
        };
        let short = |arn: &Option<String>| {
            let arn = arn.as_deref();
            arn.map_or_else(dash, |arn| harmless(&role(arn)))
        };
        let yes = |it: Option<bool>| match it {
            Some(true) => "yes".to_owned(),
            Some(false) => "no".to_owned(),
            None => "?".to_owned(),
        };
        let count = |of: fn(&Pods) -> usize| {
            let pods = self.pods.as_ref();
            pods.map_or_else(|| "?".to_owned(), |pods| of(pods).to_string())
        };
        [
            harmless(&self.namespace),
            harmless(&self.service_account) + mark,
            match &self.role {
                Some(_) => short(&self.role),
                None => "?".to_owned(),
            },
            short(&self.target_role),
            yes(self.session_tags),
            yes(self.policy),
            count(|pods| pods.running),
            count(|pods| pods.older),
            count(|pods| pods.missed),
        ]
    }
}

fn dash() -> String {
    "-".to_owned()
}

fn rows(snapshot: &Snapshot) -> Vec<Row> {
    let mut by_account: BTreeMap<ServiceAccount, Vec<&Pod>> = BTreeMap::new();
    for pod in snapshot.pods.iter().flatten().filter(|pod| pod.is_alive()) {
        by_account
            .entry(pod.service_account())
            .or_default()
            .push(pod);
    }
    let associations = snapshot.associations.iter().flatten();
    let rows = associations.map(|(account, association)| {
        let details = association.known();
        let created = details.and_then(|details| details.created);
        let pods = by_account
            .get(account)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let count = |wanted: &dyn Fn(&Pod) -> bool| pods.iter().filter(|pod| wanted(pod)).count();
        Row {
            namespace: account.namespace.clone(),
            service_account: account.name.clone(),
            id: association.id.clone(),
            role: details.map(|it| it.role.clone()),
            target_role: details.and_then(|it| it.target_role.clone()),
            session_tags: details.map(|it| it.session_tags),
            policy: details.map(|it| it.has_policy),
            service_account_exists: exists(snapshot, account),
            pods: snapshot.pods.is_ok().then(|| Pods {
                running: pods.len(),
                older: count(&|pod| created.is_some_and(|created| pod.created < created)),
                missed: count(&|pod| !pod.is_injected()),
            }),
        }
    });
    rows.collect()
}

fn exists(snapshot: &Snapshot, account: &ServiceAccount) -> Option<bool> {
    let accounts: &BTreeMap<_, _> = match &snapshot.accounts {
        Ok(accounts) => accounts,
        Err(Missing { .. }) => return None,
    };
    Some(accounts.contains_key(account))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Account, Association, Cluster, Container, Details};

    fn snapshot() -> Snapshot {
        let pod = |created, is_injected: bool| {
            let uri = (crate::variables::URI.to_owned(), None);
            Pod {
                namespace: "shop".to_owned(),
                account: "reader".to_owned(),
                phase: "Running".to_owned(),
                created,
                containers: vec![Container {
                    env: is_injected.then_some(uri).into_iter().collect(),
                    ..Container::default()
                }],
                ..Pod::default()
            }
        };
        let details = Details {
            role: "arn:aws:iam::111122223333:role/reader".to_owned(),
            session_tags: true,
            created: Some(100),
            ..Details::default()
        };
        let association = |id: &str, details| Association {
            id: id.to_owned(),
            details,
        };
        let denied = Missing {
            what: "association a-2".to_owned(),
            why: "AccessDeniedException: no".to_owned(),
            needs: Some("eks:DescribePodIdentityAssociation".to_owned()),
        };
        let account = |name: &str| name.parse::<ServiceAccount>().unwrap();
        let ended = Pod {
            phase: "Succeeded".to_owned(),
            ..pod(1, false)
        };
        Snapshot {
            cluster: Cluster::default(),
            pods: Ok(vec![pod(99, false), pod(101, true), pod(101, false), ended]),
            agents: Ok(Vec::new()),
            accounts: Ok([(account("shop/reader"), Account::default())].into()),
            nodes: Ok([].into()),
            network_policies: Ok(Vec::new()),
            associations: Ok([
                (
                    account("pay/wr\u{9b}iter"),
                    association("a-2", Some(Err(denied))),
                ),
                (
                    account("shop/reader"),
                    association("a-1", Some(Ok(details))),
                ),
            ]
            .into()),
            roles: BTreeMap::new(),
            agent_report: None,
        }
    }

    #[test]
    fn pods_that_are_older_or_were_missed_are_counted_and_accounts_that_lack_are_marked() {
        let text = Associations::new(&snapshot(), 0.5).text(None);
        let expected = "\
NAMESPACE  SERVICE ACCOUNT  ROLE                 TARGET ROLE  TAGS  POLICY  PODS  OLDER  MISSED
pay        wr?iter!         ?                    -            ?     ?       0     0      0
shop       reader           111122223333/reader  -            yes   no      3     1      2

2 associations, looked at in 0.5 s
1 has no such service account (!)
pods that were missed have no role: kubectl podcreds doctor
association a-2: cannot be looked at: AccessDeniedException: no
  -> needs the permission eks:DescribePodIdentityAssociation; the other checks go on without it
";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_was_not_seen_is_null_for_programs() {
        let mut snapshot = snapshot();
        snapshot.pods = Err(Missing {
            what: "pods".to_owned(),
            why: "forbidden".to_owned(),
            needs: None,
        });
        let json = serde_json::to_value(Associations::new(&snapshot, 0.5)).unwrap();
        let rows = json["associations"].as_array().unwrap();
        assert!(rows[0]["pods"].is_null() && rows[0]["role"].is_null());
        assert_eq!(rows[0]["serviceAccountExists"], false);
        assert_eq!(rows[1]["sessionTags"], true);
        assert_eq!(json["findings"].as_array().unwrap().len(), 2);
    }
}
