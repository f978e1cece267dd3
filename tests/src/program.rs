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
    use std::{fs, thread};

    use super::*;

    #[test]
    fn a_script_and_its_copy_can_be_started() {
        let folder = tempfile::tempdir().unwrap();
        let [path, copied] = ["script", "copy"].map(|name| folder.path().join(name));
        write(&path, "#!/bin/sh\necho here\n");
        copy(&path, &copied);
        for program in [path, copied] {
            assert_eq!(Command::new(program).output().unwrap().stdout, b"here\n");
        }
    }

    #[test]
    fn this_process_never_has_a_program_open_while_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let [path, copied] = ["program", "copy"].map(|name| folder.path().join(name));
        let is_open = || {
            let mut open = fs::read_dir("/proc/self/fd").unwrap().flatten();
            open.any(|fd| fs::read_link(fd.path()).is_ok_and(|it| it == path || it == copied))
        };
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                // So large that writing it takes a while.
                write(&path, vec![b'#'; 64 << 20]);
                copy(&path, &copied);
            });
            while !writer.is_finished() {
                assert!(!is_open());
            }
        });
    }
}
