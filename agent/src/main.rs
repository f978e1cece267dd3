//! The podcreds binary: reads the command line, and turns the outcome into an exit code.

use std::{
    alloc::System,
    env,
    fmt::Display,
    io::{self, Write as _},
    process::ExitCode,
};

use podcreds_admin::AskError;
use podcreds_datapath::DatapathError;
use podcreds_ops::{
    ask::ask,
    hardening, privileges, seccomp,
    telemetry::{self, LogFormat, Verbosity},
    watchdog::OnStall,
};
use podcreds_upstream::SetupError;
use zeroizing_alloc::ZeroAlloc;

use crate::{
    app::AppError,
    cli::{Cli, Command, ProbeArgs, ServerArgs},
    config::Config,
    initialize::InitializeError,
    operator::CommandError,
};

mod app;
mod cli;
mod config;
mod doctor;
mod initialize;
mod operator;

/// Wipes what is freed. Libraries copy tokens and credentials to where we cannot reach: hyper's
/// buffers, the SDK's requests and answers, what is decoded of a token.
#[global_allocator]
static HEAP: ZeroAlloc<System> = ZeroAlloc(System);

const CUT_OFF: u8 = 1;
const REFUSED: u8 = 1;
// From sysexits.h, which scripts and service managers know.
const USAGE: u8 = 64;
const UNAVAILABLE: u8 = 69;
const STALLED: u8 = 70;
const WRITING_FAILED: u8 = 74;
const NO_PERMISSION: u8 = 77;

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
        Command::Probe(args) => probe(&args),
        Command::Doctor(args) => doctor::doctor(*args),
        Command::DoctorVisit => {
            podcreds_doctor::visit::run();
            ExitCode::SUCCESS
        }
        Command::Status(args) => logging(format, verbosity, || {
            command_exit_code(operator::status(&args).map(|()| true))
        }),
        Command::Refresh(args) => logging(format, verbosity, || {
            command_exit_code(operator::refresh(args))
        }),
        Command::LogLevel(args) => logging(format, verbosity, || {
            command_exit_code(operator::log_level(args).map(|()| true))
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
    match initialize::initialize() {
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

fn probe(args: &ProbeArgs) -> ExitCode {
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

/// The exit code of a command that asks agents: whether all went well.
fn command_exit_code(outcome: Result<bool, CommandError>) -> ExitCode {
    let error = match outcome {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => return REFUSED.into(),
        // The reader has seen enough, as `head` has.
        Err(CommandError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            return ExitCode::SUCCESS;
        }
        Err(error) => error,
    };
    eprintln!("podcreds: {error}");
    let code = match error {
        CommandError::Write(_) | CommandError::Json(_) => WRITING_FAILED,
        CommandError::Ask(AskError::NotPermitted(_)) => NO_PERMISSION,
        CommandError::Ask(AskError::Invalid(_)) => USAGE,
        CommandError::Ask(AskError::NotFound(_)) => REFUSED,
        _ => UNAVAILABLE,
    };
    code.into()
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
