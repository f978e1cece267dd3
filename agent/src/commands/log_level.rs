//! `podcreds log-level`: shows or sets how much running agents log.

use podcreds_admin::{LogLevel, Question, SetLogLevel};
use podcreds_output as text;

use super::asking::{CommandError, ask, print};
use crate::cli::LogLevelArgs;

/// Shows how much each agent logs, or sets that first.
///
/// # Errors
///
/// When none answers, or the filter makes no sense.
pub(crate) fn log_level(args: LogLevelArgs) -> Result<(), CommandError> {
    let question = match args.filter {
        None => Question::LogLevel,
        Some(filter) => Question::SetLogLevel(SetLogLevel {
            filter: filter.to_string(),
            for_seconds: args.lasts.map(|lasts| lasts.as_secs()),
        }),
    };
    for level in ask::<LogLevel>(&args.ask.admin_dir, &question)? {
        print(&line(&level))?;
    }
    Ok(())
}

fn line(level: &LogLevel) -> String {
    let LogLevel {
        filter,
        started_with,
        back_in_seconds,
    } = level;
    let remark = match back_in_seconds {
        _ if filter == started_with => String::new(),
        Some(seconds) => format!(" (back to {started_with} in {})", text::seconds(*seconds)),
        None => format!(" (started with {started_with})"),
    };
    format!("{filter}{remark}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_shown_with_what_it_goes_back_to() {
        let show = |filter: &str, back_in_seconds| {
            line(&LogLevel {
                filter: filter.to_owned(),
                started_with: "info".to_owned(),
                back_in_seconds,
            })
        };
        assert_eq!(show("info", None), "info\n");
        assert_eq!(show("debug", None), "debug (started with info)\n");
        assert_eq!(show("debug", Some(599)), "debug (back to info in 9m59s)\n");
    }
}
