//! EKS: a cluster, and its associations.

use std::collections::BTreeMap;

use aws_config::SdkConfig;
use aws_sdk_eks::{
    Client,
    types::{PodIdentityAssociation, PodIdentityAssociationSummary},
};
use futures_util::{StreamExt, stream};
use podcreds_types::ServiceAccount;

use super::{AT_ONCE, missing};
use crate::{
    progress::Progress,
    snapshot::{Association, Cluster, Details, Seen},
};

/// The most that EKS puts on a page.
const PAGE: i32 = 100;

/// The associations of a cluster, by service account.
pub(crate) type Associations = BTreeMap<ServiceAccount, Association>;

/// EKS's API, for one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Eks {
    client: Client,
    cluster: String,
}

impl Eks {
    pub(crate) fn new(config: &SdkConfig, cluster: &str) -> Self {
        Self {
            client: Client::new(config),
            cluster: cluster.to_owned(),
        }
    }

    /// The cluster itself.
    pub(crate) async fn cluster(&self) -> Seen<Cluster> {
        let region = self.client.config().region().map(ToString::to_string);
        let call = self.client.describe_cluster().name(&self.cluster).send();
        let answer = call
            .await
            .map_err(|error| missing("the cluster", "eks:DescribeCluster", &error))?;
        Ok(Cluster {
            name: self.cluster.clone(),
            arn: answer.cluster.and_then(|cluster| cluster.arn),
            region,
            missing: None,
        })
    }

    /// The associations of all service accounts, of those of a namespace, or of one. Their details
    /// take a call each, so they are asked for only by [`Eks::describe`].
    pub(crate) async fn associations(
        &self,
        namespace: Option<&str>,
        account: Option<&str>,
    ) -> Seen<Associations> {
        let mut pages = self
            .client
            .list_pod_identity_associations()
            .cluster_name(&self.cluster)
            .set_namespace(namespace.map(str::to_owned))
            .set_service_account(account.map(str::to_owned))
            .max_results(PAGE)
            .into_paginator()
            .send();
        let mut associations = Associations::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| {
                missing("associations", "eks:ListPodIdentityAssociations", &error)
            })?;
            let summaries = page.associations.into_iter().flatten();
            associations.extend(summaries.filter_map(summary));
        }
        Ok(associations)
    }

    /// Asks for the details of each of these.
    pub(crate) async fn describe(&self, associations: &mut Associations, progress: &Progress) {
        let all = associations.values_mut();
        let calls = all.map(|association| async {
            association.details = Some(self.details(&association.id).await);
            progress.one_done();
        });
        stream::iter(calls)
            .buffer_unordered(AT_ONCE)
            .collect::<()>()
            .await;
    }

    async fn details(&self, id: &str) -> Seen<Details> {
        let call = self
            .client
            .describe_pod_identity_association()
            .cluster_name(&self.cluster)
            .association_id(id)
            .send();
        let what = format!("association {id}");
        let action = "eks:DescribePodIdentityAssociation";
        let answer = call.await.map_err(|error| missing(&what, action, &error))?;
        Ok(answer.association.map(details).unwrap_or_default())
    }
}

fn summary(summary: PodIdentityAssociationSummary) -> Option<(ServiceAccount, Association)> {
    let account = ServiceAccount {
        namespace: summary.namespace?,
        name: summary.service_account?,
    };
    let association = Association {
        id: summary.association_id?,
        details: None,
    };
    Some((account, association))
}

fn details(of: PodIdentityAssociation) -> Details {
    Details {
        role: of.role_arn.unwrap_or_default(),
        target_role: of.target_role_arn,
        external_id: of.external_id,
        session_tags: !of.disable_session_tags.unwrap_or_default(),
        has_policy: of.policy.is_some(),
        created: of.created_at.map(|at| at.secs()),
    }
}
