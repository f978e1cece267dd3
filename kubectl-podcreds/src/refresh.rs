//! `kubectl podcreds refresh`: has the pods of a service account given new credentials, on each of
//! their nodes.

use std::collections::{BTreeMap, BTreeSet};

use podcreds_output::harmless;
use podcreds_types::ServiceAccount;
use serde::Serialize;

use crate::{
    agents::{self, SLOW},
    collect::World,
    kubernetes::{Answer, ExecError},
    show::Shown,
    snapshot::{Missing, Pod},
};

/// What came of it, by node.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Refreshed {
    service_account: String,
    nodes: Vec<OneNode>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct OneNode {
    node: String,
    /// Whether all of its pods have new credentials.
    is_done: bool,
    /// What its agent says, a line for each pod.
    said: Vec<String>,
}

/// Asks the agents of all nodes with such pods.
///
/// # Errors
///
/// When nobody says where the pods or the agents are.
pub(crate) async fn refresh(world: &World, account: &ServiceAccount) -> Result<Refreshed, Missing> {
    let pods = world.pods_of(&account.namespace);
    let (pods, agents) = tokio::join!(pods, world.agents());
    let (pods, agents) = (pods?, agents?);
    let nodes = nodes_of(&pods, account);
    let mut by_node = agents::by_node(&agents);
    by_node.retain(|node, _| nodes.contains(*node));
    let words = ["refresh", &account.to_string()];
    let answers = agents::ask(world.kubernetes.client(), by_node, &words, SLOW).await;
    Ok(Refreshed::new(account, &nodes, &answers))
}

/// The nodes on which pods of the service account run.
fn nodes_of(pods: &[Pod], account: &ServiceAccount) -> BTreeSet<String> {
    let wanted = pods
        .iter()
        .filter(|pod| pod.is_alive() && pod.service_account() == *account);
    wanted.filter_map(|pod| pod.node.clone()).collect()
}

impl Refreshed {
    fn new(
        account: &ServiceAccount,
        nodes: &BTreeSet<String>,
        answers: &BTreeMap<String, (String, Result<Answer, ExecError>)>,
    ) -> Self {
        let nodes = nodes.iter().map(|node| {
            let (is_done, said) = match answers.get(node) {
                Some((_, Ok(answer))) => (
                    answer.has_succeeded,
                    answer.said.lines().map(str::to_owned).collect(),
                ),
                Some((agent, Err(error))) => (false, vec![format!("{agent}: {error}")]),
                None => (false, vec!["no agent of podcreds is there".to_owned()]),
            };
            OneNode {
                node: node.clone(),
                is_done,
                said,
            }
        });
        Self {
            service_account: account.to_string(),
            nodes: nodes.collect(),
        }
    }

    /// Whether all pods have new credentials, and there were some.
    pub(crate) fn is_done(&self) -> bool {
        !self.nodes.is_empty() && self.nodes.iter().all(|node| node.is_done)
    }
}

impl Shown for Refreshed {
    fn text(&self, _width: Option<usize>) -> String {
        if self.nodes.is_empty() {
            return format!("no pod of {} runs\n", harmless(&self.service_account));
        }
        let mut text = String::new();
        for OneNode { node, said, .. } in &self.nodes {
            for line in said {
                text.push_str(&format!("{}: {}\n", harmless(node), harmless(line)));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(account: &str, node: &str, phase: &str) -> Pod {
        Pod {
            namespace: "shop".to_owned(),
            account: account.to_owned(),
            node: Some(node.to_owned()),
            phase: phase.to_owned(),
            ..Pod::default()
        }
    }

    #[test]
    fn only_nodes_with_running_pods_of_the_account_are_asked() {
        let account = "shop/reader".parse().unwrap();
        let pods = [
            pod("reader", "n1", "Running"),
            pod("reader", "n1", "Running"),
            pod("reader", "n2", "Succeeded"),
            pod("writer", "n3", "Running"),
        ];
        assert_eq!(nodes_of(&pods, &account), ["n1".to_owned()].into());
    }

    #[test]
    fn one_node_that_fails_makes_the_whole_fail() {
        let account = "shop/reader".parse().unwrap();
        let nodes = ["n1", "n2", "n3"].map(str::to_owned).into();
        let good = Answer {
            said: "shop/web: a -> b, for 5h59m\n".to_owned(),
            has_succeeded: true,
        };
        let answers = [
            ("n1", Ok(good.clone())),
            ("n2", Err(ExecError::Failed("gone".to_owned()))),
        ];
        let answers = answers.map(|(node, it)| (node.to_owned(), ("x/y".to_owned(), it)));
        let refreshed = Refreshed::new(&account, &nodes, &answers.into());
        assert!(!refreshed.is_done());
        let expected = "\
n1: shop/web: a -> b, for 5h59m
n2: x/y: gone
n3: no agent of podcreds is there
";
        assert_eq!(refreshed.text(None), expected);
        let one = ["n1".to_owned()].into();
        let answers = [("n1".to_owned(), ("x/y".to_owned(), Ok(good)))].into();
        assert!(Refreshed::new(&account, &one, &answers).is_done());
        assert!(!Refreshed::new(&account, &[].into(), &answers).is_done());
    }
}
