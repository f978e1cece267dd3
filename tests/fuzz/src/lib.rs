//! Feeds a parser with damaged and invented input, and keeps what it stumbles over.
//!
//! A target is a unit test of the crate that has the parser, so that it reaches what is private
//! there. It begins with a corpus: the files of a folder. Each input is one of them, damaged at
//! random. One that makes the parser say what it has never said before joins the corpus for the
//! rest of the run, so that damage adds up. There is no sanitizer and no coverage in it, and so it
//! runs with the compiler that builds the agent.
//!
//! An ordinary run of the tests takes a moment for each target. `cargo xtask fuzz` takes as long as
//! it is told.

mod damage;

use std::{
    collections::HashSet,
    env, fs,
    hash::{DefaultHasher, Hash, Hasher as _},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    str::FromStr,
    time::{Duration, Instant},
};

use fastrand::Rng;

use damage::damage;

/// How many inputs there are to be.
const INPUTS: &str = "PODCREDS_FUZZ_INPUTS";
/// For how many seconds it goes on.
const SECONDS: &str = "PODCREDS_FUZZ_SECONDS";
/// What the dice are thrown by.
const SEED: &str = "PODCREDS_FUZZ_SEED";

/// What an ordinary run of the tests takes.
const A_MOMENT: Duration = Duration::from_millis(500);
/// No input gets longer.
const LONGEST: usize = 16 * 1024;
/// The most inputs that are kept because of what the parser said to them.
const MOST_KEPT: usize = 2000;
/// How often the time is looked at.
const LOOK: u64 = 64;

/// A crate with parsers, and what to feed them.
pub struct Fuzz {
    /// The folder of the crate, `env!("CARGO_MANIFEST_DIR")`.
    pub manifest: &'static str,
    /// Words that mean something to the parsers.
    pub words: &'static [&'static str],
}

/// One of the parsers.
struct Target<'a> {
    /// Its name, and that of its folder below `corpus`.
    name: &'a str,
    manifest: &'a str,
}

/// How far a run goes.
struct RunLength {
    inputs: u64,
    time: Duration,
    seed: u64,
}

impl RunLength {
    fn from_environment() -> Self {
        let (inputs, seconds) = (number(INPUTS), number(SECONDS));
        let time = match (inputs, seconds) {
            (_, Some(seconds)) => Duration::from_secs(seconds),
            (Some(_), None) => Duration::MAX,
            (None, None) => A_MOMENT,
        };
        Self {
            inputs: inputs.unwrap_or(u64::MAX),
            time,
            seed: number(SEED).unwrap_or(1),
        }
    }
}

impl Fuzz {
    /// Feeds the parser `name`, whose corpus is the folder `corpus/name` of the crate. `parse` says
    /// what it made of an input (as a `Result`, for one) and panics where something is wrong.
    ///
    /// # Panics
    ///
    /// When `parse` does, after the input was written to `target/fuzz`. When there is no corpus.
    pub fn feed<T: Hash>(&self, name: &str, parse: impl Fn(&[u8]) -> T) {
        let target = Target {
            name,
            manifest: self.manifest,
        };
        let length = RunLength::from_environment();
        let folder = Path::new(self.manifest).join("corpus").join(name);
        let mut corpus = read(&folder);
        assert!(
            !corpus.is_empty(),
            "there is nothing in {}",
            folder.display()
        );
        println!("{name}: seed {}", length.seed);
        let mut dice = Rng::with_seed(length.seed);
        let mut known = HashSet::new();
        for input in &corpus {
            known.insert(outcome(&target, input, &parse));
        }
        let (started, first) = (Instant::now(), corpus.len());
        let mut inputs = 0;
        while inputs < length.inputs {
            if inputs % LOOK == 0 && started.elapsed() >= length.time {
                break;
            }
            inputs += 1;
            let input = damage(&corpus, self.words, LONGEST, &mut dice);
            let is_new = known.insert(outcome(&target, &input, &parse));
            if is_new && corpus.len() < MOST_KEPT {
                corpus.push(input);
            }
        }
        println!(
            "{name}: {inputs} inputs in {:.1} s, from {first} files, {} outcomes",
            started.elapsed().as_secs_f64(),
            known.len(),
        );
    }
}

/// What the parser said to an input, in short.
fn outcome<T: Hash>(target: &Target<'_>, input: &[u8], parse: &impl Fn(&[u8]) -> T) -> u64 {
    match catch_unwind(AssertUnwindSafe(|| parse(input))) {
        Ok(said) => digest(&said),
        Err(panic) => {
            let file = keep(target, input);
            eprintln!("{} fails at the input in {}", target.name, file.display());
            eprintln!("{}", input.escape_ascii());
            resume_unwind(panic)
        }
    }
}

/// Writes an input down. Where that fails, it was at least printed.
fn keep(target: &Target<'_>, input: &[u8]) -> PathBuf {
    let root = Path::new(target.manifest).ancestors().nth(2);
    let folder = root.unwrap_or(Path::new(".")).join("target/fuzz");
    let file = folder.join(format!("{}-{:016x}", target.name, digest(&input)));
    let _ = fs::create_dir_all(&folder).and_then(|()| fs::write(&file, input));
    file
}

fn digest(said: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    said.hash(&mut hasher);
    hasher.finish()
}

/// The files of a folder, in the order of their names.
fn read(folder: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
    files.sort();
    files.iter().flat_map(fs::read).collect()
}

fn number<T: FromStr>(name: &str) -> Option<T> {
    env::var(name).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FUZZ: Fuzz = Fuzz {
        manifest: env!("CARGO_MANIFEST_DIR"),
        words: &["magic"],
    };

    #[test]
    fn a_parser_that_panics_at_a_rare_input_is_found_out() {
        // Three things have to come together, each of which changes what the parser says.
        let parse = |input: &[u8]| {
            let has = |word: &str| input.windows(word.len()).any(|it| it == word.as_bytes());
            let found = (has("magic"), has("<<"), input.len() > 100);
            assert_ne!(found, (true, true, true), "it is found");
            found
        };
        let panic = catch_unwind(|| FUZZ.feed("example", parse)).unwrap_err();
        let words = panic.downcast_ref::<String>().unwrap();
        assert!(words.contains("it is found"), "{words}");
    }

    #[test]
    fn a_parser_that_takes_everything_passes() {
        FUZZ.feed("example", |input| input.is_empty());
    }
}
