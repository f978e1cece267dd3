//! What kubectl is told when a user presses tab behind `kubectl podcreds`.
//!
//! kubectl runs `kubectl_complete-podcreds` with the words so far, the last of them unfinished, and
//! reads what [cobra](https://github.com/spf13/cobra) would print: a proposal a line, with its help
//! behind a tab, and a number that says what else the shell may propose. Nothing is asked for it:
//! names of pods are not among the proposals.

use std::fmt::Write as _;

use clap::{Arg, Command, ValueHint};

/// The shell may add names of files.
const FILES: &str = ":0\n";
/// The shell may not.
const NO_FILES: &str = ":4\n";

/// What may stand in place of the last word.
pub(crate) fn complete(mut root: Command, words: &[String]) -> String {
    root.build();
    let (last, before) = match words.split_last() {
        Some((last, before)) => (last.as_str(), before),
        None => ("", words),
    };
    let mut command = &root;
    // The flag that the next word is the value of, and how many words have been no flags.
    let (mut flag, mut positionals) = (None, 0);
    for word in before {
        if flag.take().is_some() {
            continue;
        }
        if word.starts_with('-') {
            flag = named(command, word);
        } else if let Some(inner) = command.find_subcommand(word) {
            command = inner;
            positionals = 0;
        } else {
            positionals += 1;
        }
    }
    let mut said = String::new();
    if let Some(flag) = flag {
        say_values(&mut said, flag, last);
        let is_file = matches!(
            flag.get_value_hint(),
            ValueHint::AnyPath | ValueHint::FilePath
        );
        return said + if is_file { FILES } else { NO_FILES };
    }
    if last.starts_with('-') {
        let flags = command.get_arguments().filter(|it| !it.is_hide_set());
        for flag in flags {
            if let Some(long) = flag.get_long() {
                let help = flag.get_help().map(ToString::to_string);
                say(&mut said, &format!("--{long}"), help, last);
            }
        }
        return said + NO_FILES;
    }
    for inner in command.get_subcommands().filter(|it| !it.is_hide_set()) {
        let help = inner.get_about().map(ToString::to_string);
        say(&mut said, inner.get_name(), help, last);
    }
    if let Some(positional) = command.get_positionals().nth(positionals) {
        say_values(&mut said, positional, last);
    }
    said + NO_FILES
}

/// The flag that a word names, if the next word is its value.
fn named<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    let mut all = command.get_arguments();
    let flag = all.find(|flag| {
        let long = flag.get_long().map(|long| format!("--{long}"));
        let short = flag.get_short().map(|short| format!("-{short}"));
        [long, short].iter().flatten().any(|it| it == word)
    });
    flag.filter(|flag| flag.get_action().takes_values())
}

fn say_values(said: &mut String, of: &Arg, start: &str) {
    for value in of.get_possible_values() {
        let help = value.get_help().map(ToString::to_string);
        say(said, value.get_name(), help, start);
    }
}

/// Proposes a word, if it begins as what is there.
fn say(said: &mut String, word: &str, help: Option<String>, start: &str) {
    if !word.starts_with(start) {
        return;
    }
    let help = help.unwrap_or_default();
    let first = help.lines().next().unwrap_or_default();
    // Writing to a string does not fail.
    let _written = writeln!(said, "{word}\t{first}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    /// The proposals, and the number behind them.
    fn of(words: &[&str]) -> (Vec<String>, String) {
        let words: Vec<_> = words.iter().map(|&word| word.to_owned()).collect();
        let said = complete(Cli::command(), &words);
        let mut lines: Vec<_> = said.lines().map(str::to_owned).collect();
        let last = lines.pop().unwrap();
        let word = |line: &String| line.split('\t').next().unwrap().to_owned();
        (lines.iter().map(word).collect(), last)
    }

    #[test]
    fn commands_flags_and_values_are_proposed_where_they_may_stand() {
        for (words, expected) in [
            (&["do"][..], &["doctor"][..]),
            (&["doctor", ""], &["pod"]),
            (&["doctor", "pod", ""], &[]),
            (&["doctor", "--prof"], &["--profile"]),
            (&["--profile", "doctor", "re"], &["refresh"]),
            (&["associations", "-o", ""], &["text", "json", "yaml"]),
            (&["associations", "--output", "j"], &["json"]),
            (&["status", "--no"], &["--node"]),
            (&["migrate", "k"], &["kube2iam", "kiam"]),
            (&["completion", "z"], &["zsh"]),
        ] {
            let (proposed, rest) = of(words);
            assert_eq!(proposed, expected, "{words:?}");
            assert_eq!(rest, ":4", "{words:?}");
        }
    }

    #[test]
    fn all_commands_are_proposed_but_the_one_that_kubectl_runs() {
        let (all, _) = of(&[""]);
        let expected = [
            "associations",
            "doctor",
            "status",
            "refresh",
            "migrate",
            "completion",
        ];
        assert_eq!(all, expected);
        assert_eq!(of(&[]).0, expected);
    }

    #[test]
    fn only_a_flag_for_a_file_has_files_proposed() {
        assert_eq!(of(&["--kubeconfig", ""]), (Vec::new(), ":0".to_owned()));
        assert_eq!(of(&["--context", ""]), (Vec::new(), ":4".to_owned()));
    }
}
