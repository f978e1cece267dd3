//! Data goes one way through the agent's stages, and so do their imports.

use super::{
    Complaint,
    source::{Kind, Source, Token},
};

/// The stages, in the order in which a request meets them.
const STAGES: [&str; 5] = ["datapath", "identity", "server", "credentials", "upstream"];
/// What stands beside the stages, and the one stage that each may know.
const BESIDE: [(&str, &str); 1] = [("handover", "credentials")];
/// What every module may know.
const VALUES: &str = "types";
/// What puts everything together, and may know everything.
const COMPOSITION: [&str; 5] = ["app", "cli", "config", "lib", "main"];

/// Complains about each mention of a module that this file's module must not know.
pub(super) fn check(file: &Source) -> Vec<Complaint> {
    let modules = modules_of(&file.path);
    let Some(&own) = modules.first() else {
        return Vec::new();
    };
    mentions(&file.tokens(), modules.len())
        .into_iter()
        .filter(|(module, _)| !may_import(own, module))
        .map(|(module, line)| Complaint {
            line,
            what: format!("`{own}` must not know `{module}`"),
        })
        .collect()
}

fn may_import(own: &str, other: &str) -> bool {
    let place = |module| STAGES.iter().position(|stage| *stage == module);
    let may_know_all = COMPOSITION.contains(&own);
    if own == other || other == VALUES || may_know_all || BESIDE.contains(&(own, other)) {
        return true;
    }
    matches!((place(own), place(other)), (Some(own), Some(other)) if own < other)
}

/// `agent/src/server/body.rs` is `["server", "body"]`, and `agent/src/server/mod.rs` `["server"]`.
fn modules_of(path: &str) -> Vec<&str> {
    path.trim_start_matches("agent/src/")
        .trim_end_matches(".rs")
        .split('/')
        .filter(|part| *part != "mod")
        .collect()
}

/// The top-level modules that are named by `crate::...` or by enough `super::`, with their lines.
fn mentions(tokens: &[Token], file_depth: usize) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    // For each open group: whether it is the body of an inline module.
    let mut groups = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let (root, after) = match &tokens[at].kind {
            Kind::Open(_) => {
                groups.push(at >= 2 && tokens[at - 2].kind.is_word("mod"));
                (false, at + 1)
            }
            Kind::Close(_) => {
                groups.pop();
                (false, at + 1)
            }
            Kind::Word(word) if word == "crate" => {
                let after = skip_path_separator(tokens, at + 1);
                (after.is_some(), after.unwrap_or(at + 1))
            }
            Kind::Word(word) if word == "super" => {
                let depth = file_depth + groups.iter().filter(|module| **module).count();
                let (ups, after) = count_supers(tokens, at);
                (ups >= depth, after)
            }
            _ => (false, at + 1),
        };
        if root {
            found.extend(first_segments(tokens, after));
        }
        at = after;
    }
    found
}

/// How often `super::` stands in a row from `at` on, and the index of what follows.
fn count_supers(tokens: &[Token], mut at: usize) -> (usize, usize) {
    let mut ups = 0;
    while tokens
        .get(at)
        .is_some_and(|token| token.kind.is_word("super"))
    {
        match skip_path_separator(tokens, at + 1) {
            Some(after) => at = after,
            None => return (0, at + 1),
        }
        ups += 1;
    }
    (ups, at)
}

fn skip_path_separator(tokens: &[Token], at: usize) -> Option<usize> {
    let is_colon = |at: usize| {
        tokens
            .get(at)
            .is_some_and(|token| token.kind == Kind::Mark(':'))
    };
    (is_colon(at) && is_colon(at + 1)).then_some(at + 2)
}

/// `a` in `a::b`, and both `a` and `c` in `{a::b, c}`.
fn first_segments(tokens: &[Token], at: usize) -> Vec<(String, usize)> {
    let word = |token: &Token| match &token.kind {
        Kind::Word(word) => Some((word.clone(), token.line)),
        _ => None,
    };
    if tokens
        .get(at)
        .is_none_or(|token| token.kind != Kind::Open('{'))
    {
        return tokens.get(at).and_then(word).into_iter().collect();
    }
    let mut found = Vec::new();
    let mut depth = 0;
    for pair in tokens[at..].windows(2) {
        match pair[0].kind {
            Kind::Open(_) => depth += 1,
            Kind::Close(_) => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if depth == 1 && matches!(pair[0].kind, Kind::Open('{') | Kind::Mark(',')) {
            found.extend(word(&pair[1]));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(path: &str, text: &str) -> Vec<String> {
        let file = Source {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        check(&file)
            .into_iter()
            .map(|complaint| complaint.what)
            .collect()
    }

    #[test]
    fn to_the_right_and_to_values_is_fine() {
        let text =
            "use crate::{credentials::{self, Cache}, types::Token}; fn f(x: crate::upstream::X) {}";
        assert!(complaints("agent/src/server/mod.rs", text).is_empty());
        assert!(
            complaints(
                "agent/src/app/path.rs",
                "use crate::{ops, datapath, server};"
            )
            .is_empty()
        );
    }

    #[test]
    fn to_the_left_is_not() {
        let text = "use crate::{\n    types::Token,\n    server::{Identify, Refusal},\n};";
        let found = ["`credentials` must not know `server`"];
        assert_eq!(complaints("agent/src/credentials/mod.rs", text), found);
        let text = "fn f() { tokio::select! { x = crate::server::f() => x } }";
        assert_eq!(complaints("agent/src/credentials/cache.rs", text), found);
    }

    #[test]
    fn only_the_composition_root_knows_what_is_no_stage() {
        assert_eq!(
            complaints("agent/src/server/mod.rs", "use crate::ops::Probe;"),
            ["`server` must not know `ops`"]
        );
        assert_eq!(
            complaints("agent/src/ops/mod.rs", "use crate::server::Server;"),
            ["`ops` must not know `server`"]
        );
        assert_eq!(
            complaints("agent/src/types/pod.rs", "use crate::identity::Caller;"),
            ["`types` must not know `identity`"]
        );
    }

    #[test]
    fn what_stands_beside_the_stages_knows_one_and_is_known_by_none() {
        let text = "use crate::{credentials::Store, upstream::EksAuth};";
        assert_eq!(
            complaints("agent/src/handover/leader.rs", text),
            ["`handover` must not know `upstream`"]
        );
        assert_eq!(
            complaints(
                "agent/src/credentials/store.rs",
                "use crate::handover::Seat;"
            ),
            ["`credentials` must not know `handover`"]
        );
    }

    #[test]
    fn the_long_way_round_is_seen() {
        let found = ["`upstream` must not know `server`"];
        let text = "use super::super::server::Refusal;";
        assert_eq!(complaints("agent/src/upstream/answer.rs", text), found);
        let text = "mod tests { use super::super::server; }";
        assert_eq!(complaints("agent/src/upstream/mod.rs", text), found);
        let inside = "use super::{answer, failure}; mod tests { use super::*; }";
        assert!(complaints("agent/src/upstream/answer.rs", inside).is_empty());
    }

    #[test]
    fn comments_strings_and_visibility_are_no_imports() {
        let text = "/// See [`crate::server`].\npub(crate) const A: &str = \"crate::server\";";
        assert!(complaints("agent/src/upstream/mod.rs", text).is_empty());
    }
}
