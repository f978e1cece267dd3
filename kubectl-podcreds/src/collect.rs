//! Looks at Kubernetes, EKS and IAM, and puts what they say beside each other.

use std::collections::{BTreeMap, BTreeSet};

use aws_config::SdkConfig;

use crate::{
    agents,
    aws::{self, Eks, Iam},
    cli::Place,
    kubeconfig::{Connection, Hints, KubeconfigError, connect},
    kubernetes::Kubernetes,
    progress::Progress,
    snapshot::{Cluster, Missing, Pod, Seen, Snapshot},
};

/// How much of EKS and IAM a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Depth {
    /// Which service accounts have an association.
    Names,
    /// What each association says.
    Details,
    /// The roles as well.
    Roles,
}

/// Everything that can be asked.
pub(crate) struct World {
    pub(crate) kubernetes: Kubernetes,
    /// The context's namespace, or the one that was named.
    pub(crate) namespace: String,
    place: Place,
    hints: Hints,
}

/// EKS and IAM, once it is known which cluster is meant.
struct Aws {
    config: SdkConfig,
    eks: Option<Eks>,
}

impl World {
    /// Reads the kubeconfig.
    ///
    /// # Errors
    ///
    /// When it names no cluster that could be asked.
    pub(crate) async fn new(place: Place) -> Result<Self, KubeconfigError> {
        let Connection {
            client,
            namespace,
            hints,
        } = connect(&place).await?;
        Ok(Self {
            kubernetes: Kubernetes::new(client, place.namespace.clone()),
            namespace: place.namespace.clone().unwrap_or(namespace),
            place,
            hints,
        })
    }

    /// The namespace that was asked for; nothing: all of them.
    pub(crate) fn only_namespace(&self) -> Option<&str> {
        self.place.namespace.as_deref()
    }

    /// The pods of a namespace.
    pub(crate) async fn pods_of(&self, namespace: &str) -> Seen<Vec<Pod>> {
        self.of(namespace).pods().await
    }

    fn of(&self, namespace: &str) -> Kubernetes {
        Kubernetes::new(self.kubernetes.client().clone(), Some(namespace.to_owned()))
    }

    /// The pods of agents.
    pub(crate) async fn agents(&self) -> Seen<Vec<Pod>> {
        self.kubernetes.agents(&self.place.agent_label).await
    }

    /// The cluster, or one namespace of it.
    pub(crate) async fn cluster(&self, depth: Depth) -> Snapshot {
        let aws = self.aws().await;
        let namespace = self.place.namespace.as_deref();
        let (pods, agents, accounts, nodes, network_policies, cluster, mut associations) = tokio::join!(
            self.kubernetes.pods(),
            self.agents(),
            self.kubernetes.accounts(),
            self.kubernetes.nodes(),
            self.kubernetes.network_policies(),
            self.eks_cluster(&aws),
            associations(&aws, namespace, None),
        );
        if let (Ok(associations), Some(eks), true) =
            (&mut associations, &aws.eks, depth > Depth::Names)
        {
            let progress = Progress::new("associations", associations.len());
            eks.describe(associations, &progress).await;
        }
        let mut snapshot = Snapshot {
            cluster,
            pods,
            agents,
            accounts,
            nodes,
            network_policies,
            associations,
            roles: BTreeMap::new(),
            agent_report: None,
        };
        if depth == Depth::Roles {
            let arns = roles_of(&snapshot);
            snapshot.roles = self.roles(&aws, arns).await;
        }
        snapshot
    }

    /// What is around one pod.
    pub(crate) async fn around(&self, pod: &Pod) -> Snapshot {
        let aws = self.aws().await;
        let of_namespace = self.of(&pod.namespace);
        let account = pod.service_account();
        let (agents, accounts, nodes, network_policies, cluster, mut associations, elsewhere) = tokio::join!(
            self.agents(),
            of_namespace.accounts(),
            self.kubernetes.nodes(),
            of_namespace.network_policies(),
            self.eks_cluster(&aws),
            associations(&aws, Some(&account.namespace), None),
            associations(&aws, None, Some(&account.name)),
        );
        if let Ok(all) = &mut associations {
            // Only the pod's own one is looked at more closely.
            let mut own: BTreeMap<_, _> = all.remove_entry(&account).into_iter().collect();
            if let Some(eks) = &aws.eks {
                let progress = Progress::new("associations", own.len());
                eks.describe(&mut own, &progress).await;
            }
            all.extend(elsewhere.unwrap_or_default());
            all.extend(own);
        }
        let mut snapshot = Snapshot {
            cluster,
            pods: Ok(vec![pod.clone()]),
            agents,
            accounts,
            nodes,
            network_policies,
            associations,
            roles: BTreeMap::new(),
            agent_report: None,
        };
        let arns = roles_of(&snapshot);
        let (roles, report) = tokio::join!(
            self.roles(&aws, arns),
            agents::report(self.kubernetes.client(), &snapshot.agents, pod),
        );
        snapshot.roles = roles;
        snapshot.agent_report = report;
        snapshot
    }

    /// These roles beside what has been seen already.
    pub(crate) async fn with_roles(
        &self,
        mut snapshot: Snapshot,
        arns: BTreeSet<String>,
    ) -> Snapshot {
        let aws = self.aws().await;
        snapshot.roles = self.roles(&aws, arns).await;
        snapshot
    }

    async fn roles(
        &self,
        aws: &Aws,
        arns: BTreeSet<String>,
    ) -> BTreeMap<String, Seen<Option<crate::snapshot::Role>>> {
        let progress = Progress::new("roles", arns.len());
        Iam::new(&aws.config).roles(arns, &progress).await
    }

    async fn aws(&self) -> Aws {
        let profile = self.place.profile.as_ref().or(self.hints.profile.as_ref());
        let region = self.place.region.as_ref().or(self.hints.region.as_ref());
        let config = aws::config(profile.map(String::as_str), region.map(String::as_str)).await;
        let name = self.cluster_name();
        let eks = name.map(|name| Eks::new(&config, name));
        Aws { config, eks }
    }

    fn cluster_name(&self) -> Option<&str> {
        let flag = self.place.cluster_name.as_deref();
        flag.or(self.hints.cluster_name.as_deref())
    }

    /// What EKS says about the cluster, or what is known without it.
    async fn eks_cluster(&self, aws: &Aws) -> Cluster {
        let missing = match &aws.eks {
            Some(eks) => match eks.cluster().await {
                Ok(cluster) => return cluster,
                Err(missing) => Some(missing),
            },
            // That the name is not known is said of the associations.
            None => None,
        };
        Cluster {
            missing,
            name: self.cluster_name().unwrap_or("CLUSTER").to_owned(),
            arn: None,
            region: aws.config.region().map(ToString::to_string),
        }
    }
}

async fn associations(
    aws: &Aws,
    namespace: Option<&str>,
    account: Option<&str>,
) -> Seen<BTreeMap<podcreds_types::ServiceAccount, crate::snapshot::Association>> {
    match &aws.eks {
        Some(eks) => eks.associations(namespace, account).await,
        None => Err(Missing {
            what: "associations".to_owned(),
            why: "the kubeconfig does not say what the cluster is called at EKS: --cluster-name"
                .to_owned(),
            needs: None,
        }),
    }
}

/// The roles that associations name.
fn roles_of(snapshot: &Snapshot) -> BTreeSet<String> {
    let associations = snapshot.associations.iter().flat_map(|all| all.values());
    let details = associations.filter_map(|association| association.known());
    let account = snapshot.cluster.account();
    let roles = details.flat_map(|details| {
        // IAM shows the roles of one account.
        let is_own = |arn: &&String| {
            account.is_none() || crate::snapshot::account_of(arn.as_str()) == account
        };
        let target = details.target_role.as_ref().filter(is_own);
        [Some(&details.role), target].into_iter().flatten()
    });
    roles.filter(|arn| !arn.is_empty()).cloned().collect()
}
