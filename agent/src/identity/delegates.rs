//! Pods that fetch credentials on behalf of others.
//!
//! The AWS provider of the Secrets Store CSI driver, for one, gets the tokens of the pods that it mounts
//! secrets for, and uses them from its own pod. The kernel tells which pod that is, but not its service
//! account. Kubelet does: it keeps the tokens that it made for a pod in a directory of the host's
//! that carries the pod's UID, where the pod itself cannot put anything.

use std::{
    fs,
    path::{Path, PathBuf},
};

use dashmap::DashMap;

use super::claims::Claims;
use crate::types::{PodUid, ServiceAccount, Token};

/// The service accounts of `--delegate`, and which pods turned out to run as one of them.
#[derive(Debug)]
pub(super) struct Delegates {
    accounts: Vec<ServiceAccount>,
    kubelet_root: PathBuf,
    /// A pod's service account never changes, so each is looked up once.
    known: DashMap<PodUid, bool>,
}

impl Delegates {
    pub(super) fn new(accounts: Vec<ServiceAccount>, kubelet_root: PathBuf) -> Self {
        Self {
            accounts,
            kubelet_root,
            known: DashMap::new(),
        }
    }

    /// Whether this pod may use other pods' tokens.
    pub(super) fn contains(&self, pod: PodUid) -> bool {
        if self.accounts.is_empty() {
            return false;
        }
        *self.known.entry(pod).or_insert_with(|| self.look_up(pod))
    }

    pub(super) fn forget(&self, pod: PodUid) {
        self.known.remove(&pod);
    }

    fn look_up(&self, pod: PodUid) -> bool {
        let volumes = self
            .kubelet_root
            .join("pods")
            .join(pod.to_string())
            .join("volumes/kubernetes.io~projected");
        let Ok(volumes) = fs::read_dir(volumes) else {
            return false;
        };
        volumes
            .flatten()
            .filter_map(|volume| service_account(&volume.path(), pod))
            .any(|account| self.accounts.contains(&account))
    }
}

/// The service account of the tokens in a projected volume of `pod`.
fn service_account(volume: &Path, pod: PodUid) -> Option<ServiceAccount> {
    // Kubelet's own files are behind one link, `..data`.
    fs::read_dir(volume.join("..data"))
        .ok()?
        .flatten()
        .filter_map(|file| fs::read_to_string(file.path()).ok())
        .filter_map(|text| Claims::read(&Token::new(text.trim())).ok())
        .find(|claims| claims.pod == Some(pod))?
        .service_account
}
