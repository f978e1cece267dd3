//! Programs that a test makes, and then starts.
//!
//! Another process writes them. While this one has a file open for writing, so has for a moment
//! whatever another test starts just then, and the kernel starts nothing that somebody may be
//! writing to ("text file busy").

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

/// Makes a copy of a program.
///
/// # Panics
///
/// When it cannot be written.
pub fn copy(from: &Path, to: &Path) {
    let status = install(from, to).status();
    assert!(status.expect("install").success(), "no copy of {from:?}");
}

/// Writes a program: a script, or what a compiler would write.
///
/// # Panics
///
/// When it cannot be written.
pub fn write(path: &Path, contents: impl AsRef<[u8]>) {
    let mut writer = install(Path::new("/dev/stdin"), path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("install");
    let mut input = writer.stdin.take().expect("its input");
    let written = input.write_all(contents.as_ref());
    drop(input);
    let status = writer.wait().expect("install");
    assert!(written.is_ok() && status.success(), "{path:?}");
}

fn install(from: &Path, to: &Path) -> Command {
    let mut command = Command::new("install");
    command.args(["-m", "755"]).arg(from).arg(to);
    command
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering::Relaxed},
        thread,
    };

    use super::*;

    #[test]
    fn a_program_starts_at_once_however_many_others_start() {
        let folder = tempfile::tempdir().unwrap();
        let is_over = AtomicBool::new(false);
        let others = || {
            while !is_over.load(Relaxed) {
                Command::new("true").status().unwrap();
            }
        };
        let start = |number: usize| {
            let path = folder.path().join(number.to_string());
            write(&path, "#!/bin/sh\necho here\n");
            let copied = path.with_extension("copy");
            copy(&path, &copied);
            [path, copied].map(|program| Command::new(program).output().ok())
        };
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(others);
            }
            let all: Vec<_> = (0..100).flat_map(start).collect();
            is_over.store(true, Relaxed);
            for output in all {
                assert_eq!(output.unwrap().stdout, b"here\n");
            }
        });
    }
}
