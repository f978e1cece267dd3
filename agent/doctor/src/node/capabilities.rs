//! What this process may do, which is what an agent in the same place may do.

use std::fmt::Display;

use podcreds_datapath::diagnosis;

use crate::report::Finding;

const NAME: &str = "capabilities";

pub(super) fn check() -> Finding {
    judge(diagnosis::missing_capabilities())
}

fn judge(missing: Result<Vec<&'static str>, impl Display>) -> Finding {
    const REMEDY: &str = "run it as root, or give the container these capabilities; the chart does";
    match missing {
        Ok(missing) if missing.is_empty() => Finding::pass(NAME, "all that redirecting pods takes"),
        Ok(missing) => Finding::fail(NAME, format!("missing: {}", missing.join(", ")), REMEDY),
        Err(why) => Finding::warn(NAME, why.to_string(), REMEDY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Status;

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(judge(Ok::<_, &str>(Vec::new())).status, Status::Pass);
        let missing = judge(Ok::<_, &str>(vec!["CAP_BPF (to load the programs)"]));
        assert_eq!(missing.status, Status::Fail);
        assert!(missing.seen.contains("CAP_BPF"));
    }
}
