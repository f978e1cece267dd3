//! Where unsafe code may be, and that it gives its reasons.

use super::{
    Complaint,
    source::{Kind, Source},
};

/// Where the kernel is talked to; everything else is safe Rust.
const ALLOWED: [&str; 3] = ["agent/src/datapath/", "common/src/", "ebpf/src/"];
/// How far above the word its reasons may stand: a long comment, and a statement of some lines.
const LINES_ABOVE: usize = 8;

pub(super) fn check(file: &Source) -> Vec<Complaint> {
    let lines: Vec<_> = file.text.lines().collect();
    let allowed = ALLOWED.iter().any(|folder| file.is_below(folder));
    file.tokens()
        .into_iter()
        .filter(|token| matches!(&token.kind, Kind::Word(word) if word == "unsafe"))
        .filter_map(|token| {
            let what = if !allowed {
                "unsafe code belongs into the datapath, `common` or `ebpf`"
            } else if !is_explained(&lines, token.line) {
                "unsafe code without a SAFETY comment"
            } else {
                return None;
            };
            Some(Complaint {
                line: token.line,
                what: what.to_owned(),
            })
        })
        .collect()
}

/// Clippy sees to it that the comment belongs to just this code.
fn is_explained(lines: &[&str], line: usize) -> bool {
    let from = line.saturating_sub(LINES_ABOVE + 1);
    lines[from..line]
        .iter()
        .any(|line| line.contains("// SAFETY: ") || line.contains("/// # Safety"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(path: &str, text: &str) -> Vec<Complaint> {
        check(&Source {
            path: path.to_owned(),
            text: text.to_owned(),
        })
    }

    const EXPLAINED: &str = "// SAFETY: it is sound.\nfn f() { unsafe { g() } }";

    #[test]
    fn outside_the_datapath_no_reason_is_good_enough() {
        assert_eq!(complaints("agent/src/server/mod.rs", EXPLAINED).len(), 1);
        assert!(complaints("agent/src/datapath/mod.rs", EXPLAINED).is_empty());
    }

    #[test]
    fn inside_it_takes_a_reason() {
        let unexplained = "// It is sound.\nfn f() {\n    unsafe { g() }\n}";
        let complaints = complaints("ebpf/src/main.rs", unexplained);
        assert_eq!(complaints.len(), 1);
        assert_eq!(complaints[0].line, 3);
    }
}
