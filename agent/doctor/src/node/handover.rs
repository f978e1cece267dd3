//! The folder in which agents hand over to each other.

use podcreds_handover::{self as handover, Config};

use crate::report::Finding;

const NAME: &str = "handover";

pub(super) fn check(place: Option<&Config>) -> Finding {
    let Some(place) = place else {
        return Finding::pass(NAME, "not wanted (--handover-dir none)");
    };
    let found = handover::check(&place.dir).map_err(|error| error.to_string());
    judge(&place.dir.display().to_string(), place.is_named, found)
}

fn judge(dir: &str, is_named: bool, found: Result<bool, String>) -> Finding {
    const REMEDY: &str = "give the agent a folder that belongs to root and that nobody else can \
                          write to, or --handover-dir none";
    match found {
        Ok(true) => Finding::pass(NAME, format!("{dir} can be used")),
        Ok(false) => Finding::pass(NAME, format!("{dir} is not there yet: the agent makes it")),
        Err(why) if is_named => Finding::fail(NAME, why, REMEDY),
        Err(why) => Finding::warn(
            NAME,
            format!("{why}; each new agent starts without credentials"),
            REMEDY,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Status;

    #[test]
    fn a_folder_that_was_named_must_be_usable() {
        let unsafe_one = || Err("others can write to it".to_owned());
        assert_eq!(judge("/run/x", true, Ok(true)).status, Status::Pass);
        assert_eq!(judge("/run/x", true, unsafe_one()).status, Status::Fail);
        assert_eq!(judge("/run/x", false, unsafe_one()).status, Status::Warn);
    }
}
