//! What a pod's processes say of where it asks, from where, and with which token.

use std::{io, time::SystemTime};

use podcreds_datapath::diagnosis::CREDENTIALS;
use podcreds_types::Token;

use super::{
    TOKEN_FILE, environment::Environment, find::Found, process::PodProcess, proxy, request, token,
};
use crate::{pod::environment, report::Finding};

/// What is known of a pod once its processes have been looked at.
pub(super) struct Look {
    pub(super) findings: Vec<Finding>,
    found: Found,
    /// What the process is told that is looked at more closely, if it is told something.
    told: Option<Environment>,
    /// The pod's first process, and that process.
    processes: Option<(PodProcess, Option<PodProcess>)>,
}

/// What became of reading a token.
pub(super) struct TokenRead {
    pub(super) finding: Option<Finding>,
    /// The token, if it may be sent.
    pub(super) token: Option<Token>,
}

impl Look {
    pub(super) fn at(found: Found) -> Self {
        let mut processes = PodProcess::all_of(&found.pod.path);
        let mut environments: Vec<Environment> =
            processes.iter().filter_map(Environment::of).collect();
        // Those that are told where to ask come first: a pause container is not.
        environments.sort_by_key(|it| !it.is_told());
        let mut findings = vec![environment::judge(&environments)];
        let told = environments.into_iter().find(Environment::is_told);
        if let Some(told) = &told {
            findings.extend(proxy::judge(told.proxy(), told.no_proxy(), told.uri()));
        }
        let at = told
            .as_ref()
            .and_then(|told| processes.iter().position(|it| it.pid == told.pid))
            // Without a hint, the pod's youngest container is most likely its application.
            .or(processes.len().checked_sub(1));
        let chosen = at.filter(|at| *at > 0).map(|at| processes.swap_remove(at));
        let first = processes.into_iter().next();
        Self {
            findings,
            found,
            told,
            processes: first.map(|first| (first, chosen)),
        }
    }

    fn process(&self) -> Option<&PodProcess> {
        let (first, chosen) = self.processes.as_ref()?;
        Some(chosen.as_ref().unwrap_or(first))
    }

    /// Where a request of the pod's would come from, if it has a process.
    ///
    /// # Errors
    ///
    /// Why none can be made.
    pub(super) fn place(&self) -> Option<io::Result<request::RequestRoute>> {
        let (first, _) = self.processes.as_ref()?;
        self.process().map(|process| self.place_of(first, process))
    }

    fn place_of(
        &self,
        first: &PodProcess,
        process: &PodProcess,
    ) -> io::Result<request::RequestRoute> {
        let network = process.network()?;
        // In one that a process has made for itself, it answers itself, with what it likes.
        if !network.is(&first.network()?) {
            return Err(io::Error::other(format!(
                "process {} is in a network namespace of its own, not the pod's",
                process.pid
            )));
        }
        let asked = self.told.as_ref().and_then(Environment::address);
        Ok(request::RequestRoute {
            mount: self.found.tree.mount.clone(),
            cgroup: process.cgroup.clone(),
            network,
            address: asked.unwrap_or(CREDENTIALS),
        })
    }

    /// Reads the token that the process would send.
    pub(super) fn read_token(&self) -> TokenRead {
        let told = self.told.as_ref();
        let file = told.and_then(Environment::token_file).unwrap_or(TOKEN_FILE);
        let Some(process) = self.process() else {
            return TokenRead {
                finding: None,
                token: None,
            };
        };
        let token = match token::read(process, file) {
            Ok(token) => token,
            Err(error) => return TokenRead::failed(token::judge_missing(file, &error)),
        };
        let pod = self.found.pod.uid;
        TokenRead {
            finding: Some(token::judge(&token, pod, SystemTime::now())),
            token: token::may_be_sent(&token, pod).then_some(token),
        }
    }
}

impl TokenRead {
    pub(super) fn failed(finding: Finding) -> Self {
        Self {
            finding: Some(finding),
            token: None,
        }
    }
}
