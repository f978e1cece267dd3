//! The rules of CONTRIBUTING.md that neither the compiler nor clippy holds.
//!
//! Each rule is a function from a file to what is wrong with it, so that it can be tried on a text
//! that breaks it, and a test that applies it to the whole checkout.

mod metrics;
mod names;
mod source;
mod text;

use source::{Source, checkout};

/// Something that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
struct Complaint {
    /// Counted from 1.
    line: usize,
    what: String,
}

/// Applies a rule to the files that it is for, and fails with all that is wrong.
fn hold(applies: impl Fn(&Source) -> bool, rule: impl Fn(&Source) -> Vec<Complaint>) {
    let files: Vec<_> = checkout().into_iter().filter(applies).collect();
    assert!(!files.is_empty(), "the rule applies to no file at all");
    let complaints: Vec<_> = files
        .iter()
        .flat_map(|file| {
            rule(file)
                .into_iter()
                .map(|Complaint { line, what }| format!("{}:{line}: {what}", file.path))
        })
        .collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn unsafe_stays_where_it_belongs() {
    hold(Source::is_rust, text::unsafety);
}

#[test]
fn files_are_short() {
    hold(
        |file| file.is_rust() || file.has_extension("md"),
        text::length,
    );
}

#[test]
fn lines_of_prose_are_short() {
    hold(
        |file| file.is_rust() || file.has_extension("md"),
        text::width,
    );
}

#[test]
fn nothing_is_left_for_later() {
    hold(|_| true, text::leftovers);
}

#[test]
fn words_are_plain() {
    hold(
        |file| file.is_rust() || file.has_extension("md"),
        text::plain_words,
    );
}

#[test]
fn links_lead_to_files_of_this_repository() {
    hold(|file| file.has_extension("md"), text::links);
}

#[test]
fn versions_are_in_the_workspace_manifest_only() {
    hold(
        |file| file.path.ends_with("/Cargo.toml"),
        text::dependency_versions,
    );
}

#[test]
fn metrics_are_explained() {
    let unexplained = metrics::unexplained(&checkout());
    assert!(unexplained.is_empty(), "\n{}\n", unexplained.join("\n"));
}

#[test]
fn types_that_files_share_have_names_of_their_own() {
    let repeated = names::repeated(&checkout());
    assert!(repeated.is_empty(), "\n{}\n", repeated.join("\n"));
}
