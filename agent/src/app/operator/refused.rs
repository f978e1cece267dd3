//! Who was refused, with the names of pods that are known.

use podcreds_admin::RefusalStatus;
use podcreds_types::{self as types, CallerId};

use super::Operator;

impl Operator {
    /// Who was refused within the last hour, the latest first.
    pub(super) fn refused(&self) -> Vec<RefusalStatus> {
        let refused = self.refused.all().into_iter();
        refused
            .map(|refused| self.refusal_status(refused))
            .collect()
    }

    fn refusal_status(&self, refused: types::RefusedCaller) -> RefusalStatus {
        let (pod, address, process) = match refused.caller {
            CallerId::Pod(pod) => (Some(pod), None, None),
            CallerId::Address(address) => (None, Some(address.to_string()), None),
            CallerId::Process(process) => (None, None, Some(process)),
            CallerId::Unknown => (None, None, None),
        };
        let names = pod.and_then(|pod| self.pods.names(pod));
        let token_names = refused.token_pod.and_then(|pod| self.pods.names(pod));
        RefusalStatus {
            uid: pod.map(|pod| pod.to_string()),
            namespace: names.as_ref().map(|names| names.namespace.to_string()),
            name: names.as_ref().map(|names| names.name.to_string()),
            address,
            process,
            about: refused.about.map(|about| about.to_string()),
            reason: refused.reason.to_owned(),
            token_uid: refused.token_pod.map(|pod| pod.to_string()),
            token_pod: token_names.map(|names| names.to_string()),
            count: refused.count,
            last: refused.last.into(),
        }
    }
}
