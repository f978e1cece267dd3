//! The folder in which agents hand over to each other.

use std::fmt::Display;

use podcreds_handover::{self as handover, Config};

use crate::report::Finding;

const NAME: &str = "handover";

pub(super) fn check(place: Option<&Config>) -> Finding {
    let Some(place) = place else {
        return Finding::pass(NAME, "not wanted (--handover-dir none)");
    };
    judge(
        &place.dir.display().to_string(),
        place.is_named,
        handover::check(&place.dir),
    )
}

fn judge(dir: &str, is_named: bool, found: Result<bool, impl Display>) -> Finding {
    const REMEDY: &str = "give the agent a folder that belongs to root and that nobody else can \
                          write to, or --handover-dir none";
    match found {
        Ok(true) => Finding::pass(NAME, format!("{dir} can be used")),
        Ok(false) => Finding::pass(NAME, format!("{dir} is not there yet: the agent makes it")),
        Err(why) if is_named => Finding::fail(NAME, why.to_string(), REMEDY),
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
        let judge = |is_named, found: Result<bool, &str>| judge("/run/x", is_named, found).status;
        assert_eq!(judge(true, Ok(true)), Status::Pass);
        assert_eq!(judge(true, Err("others can write to it")), Status::Fail);
        assert_eq!(judge(false, Err("others can write to it")), Status::Warn);
    }
}
