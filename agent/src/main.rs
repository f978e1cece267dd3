//! The podcreds binary: reads the command line, and turns the outcome into an exit code.

use std::{alloc::System, env, fmt::Display, process::ExitCode};

use podcreds_datapath::DatapathError;
use podcreds_ops::{
    hardening, privileges, seccomp,
    telemetry::{self, LogFormat, Verbosity},
    watchdog::OnStall,
};
use podcreds_upstream::SetupError;
use zeroizing_alloc::ZeroAlloc;

use crate::{
    app::AppError,
    cli::{Cli, Command, ServerArgs},
    commands::{doctor, initialize::InitializeError},
    config::Config,
    exit::{CUT_OFF, NO_PERMISSION, STALLED, UNAVAILABLE, USAGE},
};

mod app;
mod cli;
mod commands;
mod config;
mod exit;

/// Wipes what is freed. Libraries copy tokens and credentials to where we cannot reach: hyper's
/// buffers, the SDK's requests and answers, what is decoded of a token.
#[global_allocator]
static HEAP: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    let cli = match Cli::read(doctor::with_agents_flags(env::args_os().collect())) {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done about a terminal that is gone.
            let _printed = error.print();
            return if error.use_stderr() {
                USAGE.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let (format, verbosity) = (cli.log_format, cli.verbosity);
    // Dropped last, also when something panics.
    let _last_words = telemetry::LastWords;
    match cli.command {
        Command::Server(args) => server(*args, format, verbosity),
        Command::Initialize => logging(format, verbosity, initialize),
        Command::Probe(args) => commands::probe(&args),
        Command::Doctor(args) => doctor::doctor(*args),
        Command::DoctorVisit => {
            podcreds_doctor::visit::run();
            ExitCode::SUCCESS
        }
        Command::Status(args) => logging(format, verbosity, || {
            commands::exit_code(commands::status(&args).map(|()| true))
        }),
        Command::Refresh(args) => logging(format, verbosity, || {
            commands::exit_code(commands::refresh(args))
        }),
        Command::LogLevel(args) => logging(format, verbosity, || {
            commands::exit_code(commands::log_level(args).map(|()| true))
        }),
    }
}

/// Runs a command whose log is written from the beginning.
fn logging(
    format: LogFormat,
    verbosity: Verbosity,
    command: impl FnOnce() -> ExitCode,
) -> ExitCode {
    if let Err(error) = telemetry::init(format, verbosity) {
        return fail(&error, UNAVAILABLE);
    }
    if let Err(error) = telemetry::start_writing() {
        return fail(&error, UNAVAILABLE);
    }
    command()
}

fn initialize() -> ExitCode {
    match commands::initialize::initialize() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ InitializeError::NotPermitted) => fail(&error, NO_PERMISSION),
        Err(error) => fail(&error, UNAVAILABLE),
    }
}

fn server(args: ServerArgs, format: LogFormat, verbosity: Verbosity) -> ExitCode {
    let mut config = match Config::try_from(args) {
        Ok(config) => config,
        Err(error) => return fail(&error, USAGE),
    };
    if let Err(error) = telemetry::init(format, verbosity) {
        return fail(&error, UNAVAILABLE);
    }
    if let Err(error) = hardening::forbid_core_dumps() {
        return fail(&error, UNAVAILABLE);
    }
    if let Err(error) = privileges::forbid_new() {
        return fail(&error, UNAVAILABLE);
    }
    if let Err(error) = seccomp::refuse_what_is_never_needed() {
        tracing::warn!(%error, "without a filter of system calls");
    }
    match hardening::raise_open_files() {
        Ok(limit) => config.server.fit_into(limit),
        Err(error) => tracing::warn!(%error, "cannot raise the limit of open files"),
    }
    let on_stall = OnStall {
        code: STALLED.into(),
        say: Box::new(|stalled| {
            last_words(&format_args!(
                "{stalled}: ending, so that another agent can start"
            ));
            telemetry::finish();
        }),
    };
    match app::run(config, on_stall) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, exit_code(&error)),
    }
}

fn exit_code(error: &AppError) -> u8 {
    match error {
        AppError::Bind(_)
        | AppError::Socket(_)
        | AppError::Handover(_)
        | AppError::Admin(_)
        | AppError::Upstream(
            SetupError::NoRegion
            | SetupError::Region(_)
            | SetupError::Variable { .. }
            | SetupError::Bundle { .. },
        ) => USAGE,
        AppError::Datapath(error)
        | AppError::Ebpf(error)
        | AppError::NoPath { ebpf: error, .. } => match error {
            DatapathError::CgroupRoot { .. } | DatapathError::Bind(_) => USAGE,
            DatapathError::NotPermitted(_) => NO_PERMISSION,
            _ => UNAVAILABLE,
        },
        AppError::CutOff { .. } => CUT_OFF,
        _ => UNAVAILABLE,
    }
}

fn fail(error: &dyn Display, code: u8) -> ExitCode {
    last_words(error);
    code.into()
}

/// In the log, or on standard error where there is no log.
fn last_words(error: &dyn Display) {
    if tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!("{error}");
    } else {
        telemetry::say(error);
    }
}
