//! The associations of a cluster: which service account has which role.
//!
//! One table, which the stand-ins for the EKS API and for EKS Auth share.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use crate::{
    aws::{ACCOUNT, REGION},
    token::new_uid,
};

/// How long the credentials of an ordinary role live.
pub const ROLE_LIFETIME: Duration = Duration::from_secs(6 * 3600);

/// How long they live when the association names a target role.
pub const TARGET_ROLE_LIFETIME: Duration = Duration::from_secs(59 * 60);

/// One association, with the fields that EKS has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Association {
    /// `a-` and 17 letters and digits.
    pub id: String,
    /// The namespace of the service account.
    pub namespace: String,
    /// Its name.
    pub service_account: String,
    /// The role that EKS Auth assumes.
    pub role_arn: String,
    /// The role that it assumes from there, whose credentials the pod gets.
    pub target_role_arn: Option<String>,
    /// What the target role's trust policy can ask for.
    pub external_id: Option<String>,
    /// Whether the session has no tags.
    pub disable_session_tags: bool,
    /// A policy that limits the session.
    pub policy: Option<String>,
    /// What has made the association, such as an add-on.
    pub owner_arn: Option<String>,
    /// The tags of the association itself.
    pub tags: BTreeMap<String, String>,
    /// When it was made.
    pub created: SystemTime,
    /// When it was last changed.
    pub modified: SystemTime,
    /// How long its credentials live, where a test wants something else than EKS Auth gives.
    pub lifetime: Option<Duration>,
}

impl Association {
    /// Gives a service account the role of this ARN, or of this name.
    pub fn new(namespace: &str, service_account: &str, role: &str) -> Self {
        let now = SystemTime::now();
        Self {
            id: format!("a-{}", &new_uid().replace('-', "")[..17]),
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
            role_arn: role_arn(role),
            target_role_arn: None,
            external_id: None,
            disable_session_tags: false,
            policy: None,
            owner_arn: None,
            tags: BTreeMap::new(),
            created: now,
            modified: now,
            lifetime: None,
        }
    }

    /// Has EKS Auth assume another role from the first one.
    #[must_use]
    pub fn target(mut self, role: &str) -> Self {
        self.target_role_arn = Some(role_arn(role));
        self.external_id = Some(new_uid());
        self
    }

    /// Its own ARN, in this cluster.
    pub fn arn(&self, cluster: &str) -> String {
        let id = &self.id;
        format!("arn:aws:eks:{REGION}:{ACCOUNT}:podidentityassociation/{cluster}/{id}")
    }

    /// The ARN of the role whose credentials the pod gets.
    pub fn final_role_arn(&self) -> &str {
        self.target_role_arn.as_ref().unwrap_or(&self.role_arn)
    }

    /// The name of that role, without its path.
    pub fn role_name(&self) -> &str {
        let arn = self.final_role_arn();
        arn.rsplit_once('/').map_or(arn, |(_, name)| name)
    }

    /// How long its credentials live.
    pub fn credentials_lifetime(&self) -> Duration {
        self.lifetime.unwrap_or(match self.target_role_arn {
            Some(_) => TARGET_ROLE_LIFETIME,
            None => ROLE_LIFETIME,
        })
    }

    fn account(&self) -> Account {
        (self.namespace.clone(), self.service_account.clone())
    }
}

/// The ARN of a role that is given by name, or by ARN.
pub fn role_arn(role: &str) -> String {
    if role.starts_with("arn:") {
        return role.to_owned();
    }
    format!("arn:aws:iam::{ACCOUNT}:role/{role}")
}

/// A namespace, and a service account in it.
pub type Account = (String, String);

/// The table. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Associations(Arc<Mutex<BTreeMap<Account, Association>>>);

impl Associations {
    /// Puts one in, in place of what its service account had.
    pub fn put(&self, association: Association) {
        self.table().insert(association.account(), association);
    }

    /// Puts one in, unless its service account has one.
    ///
    /// # Errors
    ///
    /// The ID of the one that is there.
    pub fn add(&self, association: Association) -> Result<(), String> {
        let mut table = self.table();
        if let Some(held) = table.get(&association.account()) {
            return Err(held.id.clone());
        }
        table.insert(association.account(), association);
        Ok(())
    }

    /// That of a service account.
    pub fn of(&self, namespace: &str, service_account: &str) -> Option<Association> {
        let account = (namespace.to_owned(), service_account.to_owned());
        self.table().get(&account).cloned()
    }

    /// The one with this ID.
    pub fn get(&self, id: &str) -> Option<Association> {
        self.table().values().find(|held| held.id == id).cloned()
    }

    /// Changes the one with this ID, and returns what has become of it.
    pub fn change(&self, id: &str, change: impl FnOnce(&mut Association)) -> Option<Association> {
        let mut table = self.table();
        let held = table.values_mut().find(|held| held.id == id)?;
        change(held);
        held.modified = SystemTime::now();
        Some(held.clone())
    }

    /// Takes away the one with this ID, and returns it.
    pub fn remove(&self, id: &str) -> Option<Association> {
        let account = self.get(id)?.account();
        self.table().remove(&account)
    }

    /// Takes away that of a service account.
    pub fn remove_of(&self, namespace: &str, service_account: &str) {
        let account = (namespace.to_owned(), service_account.to_owned());
        self.table().remove(&account);
    }

    /// At most so many of those that are wanted, in the order of their service accounts, from
    /// behind `after` on.
    pub fn page(
        &self,
        after: Option<&Account>,
        most: usize,
        wanted: impl Fn(&Association) -> bool,
    ) -> Vec<Association> {
        let table = self.table();
        let behind = table.iter().filter(|(account, _)| Some(*account) > after);
        let wanted = behind.filter(|(_, association)| wanted(association));
        let found = wanted.map(|(_, association)| association.clone());
        found.take(most).collect()
    }

    /// A test that panicked while it held the lock must not hide its reason behind a second panic.
    fn table(&self) -> MutexGuard<'_, BTreeMap<Account, Association>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
