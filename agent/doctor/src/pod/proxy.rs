//! A proxy in a pod's environment that would get its tokens.

use podcreds_types::sdk::{EXCEPTIONS, excepts_agent};

use crate::report::Finding;

const NAME: &str = "proxy";

/// What is to be said of a proxy, if the pod has one.
pub(super) fn judge(proxy: Option<&'static str>, no_proxy: &str, uri: &str) -> Option<Finding> {
    let variable = proxy?;
    Some(match excepts_agent(no_proxy, uri) {
        true => Finding::pass(NAME, format!("{variable}, and NO_PROXY excepts the agent")),
        false => Finding::warn(
            NAME,
            format!(
                "{variable} is set, and NO_PROXY does not except the agent's address for every SDK"
            ),
            format!(
                "add {EXCEPTIONS} to the pod's NO_PROXY: some SDKs send the request, and the pod's \
                 token, to the proxy"
            ),
        ),
    })
}

#[cfg(test)]
mod tests {
    use podcreds_types::sdk::URIS;

    use super::*;
    use crate::report::Status;

    #[test]
    fn a_proxy_without_an_exception_for_the_agent_is_a_warning() {
        let [uri, _] = URIS;
        assert_eq!(judge(None, "", uri), None);
        let status = |no_proxy| judge(Some("HTTP_PROXY"), no_proxy, uri).unwrap().status;
        assert_eq!(status("localhost,.svc"), Status::Warn);
        let advice = judge(Some("HTTP_PROXY"), "", uri).unwrap().remedy.unwrap();
        assert!(advice.contains(EXCEPTIONS), "{advice}");
        assert_eq!(status(EXCEPTIONS), Status::Pass);
        assert_eq!(status("localhost, 169.254.170.23"), Status::Pass);
    }
}
