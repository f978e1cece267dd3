//! `podcreds probe`: whether an agent lives, or is ready, for kubelet to ask without a network.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use podcreds_ops::ask::ask;

use crate::{cli::ProbeArgs, exit::REFUSED};

/// Asks, and says what the agent says. Fails where it answers that all is not well, or not at all.
pub(crate) fn probe(args: &ProbeArgs) -> ExitCode {
    match ask(&args.socket, &args.path) {
        Ok(answer) => {
            // Nothing can be done about a kubelet that does not listen.
            let _printed = io::stdout().write_all(answer.as_bytes());
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("podcreds: {why}");
            REFUSED.into()
        }
    }
}
