//! `kubectl podcreds associations`: who has which role, and which pods use it.

use std::collections::BTreeMap;

use podcreds_output::{Column, harmless, role, table_of};
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

    /// In a narrow terminal, columns are left out that say least about what is wrong: target roles
    /// where nobody has one, then policies and tags.
    fn columns(&self) -> [Column; 9] {
        let has_targets = self.associations.iter().any(|it| it.target_role.is_some());
        [
            Column::new("NAMESPACE").cut_to(8),
            Column::new("SERVICE ACCOUNT").cut_to(14),
            Column::new("ROLE").cut_to(18),
            Column::new("TARGET ROLE")
                .cut_to(20)
                .goes(if has_targets { 2 } else { 5 }),
            Column::new("TAGS").goes(3),
            Column::new("POLICY").goes(4),
            Column::new("PODS"),
            Column::new("OLDER").goes(1),
            Column::new("MISSED"),
        ]
    }
}

impl Shown for Associations {
    /// The table, and what stands out in it.
    fn text(&self, width: Option<usize>) -> String {
        let rows: Vec<_> = self.associations.iter().map(Row::cells).collect();
        let mut text = match rows.is_empty() {
            true => "no associations\n".to_owned(),
            false => table_of(&self.columns(), &rows, width),
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
    fn cells(&self) -> Vec<String> {
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
        vec![
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
            let uri = (podcreds_types::sdk::URI.to_owned(), None);
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

    /// As many accounts, roles and pods as in a cluster of some size.
    fn large() -> Associations {
        let row = |target_role: Option<&str>| Row {
            namespace: "payments-production".to_owned(),
            service_account: "invoice-archive-writer".to_owned(),
            id: "a-1".to_owned(),
            role: Some("arn:aws:iam::111122223333:role/invoice-archive-writer".to_owned()),
            target_role: target_role.map(str::to_owned),
            session_tags: Some(true),
            policy: Some(false),
            service_account_exists: Some(false),
            pods: Some(Pods {
                running: 12_345,
                older: 12_345,
                missed: 12_345,
            }),
        };
        Associations {
            associations: vec![
                row(None),
                row(Some("arn:aws:iam::444455556666:role/archive")),
            ],
            findings: Vec::new(),
            seconds: 0.5,
        }
    }

    /// The lines of the table.
    fn lines(associations: &Associations, width: Option<usize>) -> Vec<String> {
        let text = associations.text(width);
        let table = text.lines().take_while(|line| !line.is_empty());
        table.map(str::to_owned).collect()
    }

    #[test]
    fn the_table_fits_a_narrow_terminal_with_what_is_wrong_in_it() {
        for width in [60, 80, 100, 120] {
            let lines = lines(&large(), Some(width));
            for line in &lines {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
            for heading in ["NAMES", "SERV", "ROLE", "PODS", "MISSED"] {
                assert!(lines[0].contains(heading), "{width}: {}", lines[0]);
            }
            assert!(lines[1].contains('!'), "{width}: {}", lines[1]);
        }
    }

    #[test]
    fn target_roles_are_left_out_first_where_there_are_none() {
        let has_targets = |associations: &Associations, width: usize| {
            lines(associations, Some(width))[0].contains("TARGET")
        };
        let mut all = large();
        assert!(has_targets(&all, 90) && !has_targets(&all, 80));
        all.associations.truncate(1);
        assert!(has_targets(&all, 120) && !has_targets(&all, 90));
        assert!(lines(&all, Some(90))[0].contains("POLICY"));
    }

    #[test]
    fn nothing_is_cut_where_there_is_no_terminal() {
        let lines = lines(&large(), None);
        assert!(lines[1].starts_with(
            "payments-production  invoice-archive-writer!  111122223333/invoice-archive-writer  - "
        ));
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
