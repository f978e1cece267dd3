//! What is done to an input.

use fastrand::Rng;

/// Numbers at which parsers stumble.
const NUMBERS: [&str; 10] = [
    "0",
    "-1",
    "255",
    "256",
    "65536",
    "4294967295",
    "9223372036854775808",
    "18446744073709551616",
    "1e999",
    "0.1",
];
/// Bytes that mean something in many formats.
const BYTES: [u8; 24] = *b"\0\t\r\n \"%&'*+,-./:=@[]{}\x7f\xff";
/// The most that is done at once.
const MOST: usize = 6;

/// One of the corpus, damaged at random, or once in a while something invented.
pub(crate) fn damage(
    corpus: &[Vec<u8>],
    words: &[&str],
    longest: usize,
    dice: &mut Rng,
) -> Vec<u8> {
    let mut input = match dice.u8(..) {
        0 => (0..dice.usize(..64)).map(|_| dice.u8(..)).collect(),
        _ => corpus[dice.usize(..corpus.len())].clone(),
    };
    for _ in 0..dice.usize(1..=MOST) {
        once(&mut input, corpus, words, dice);
    }
    input.truncate(longest);
    input
}

fn once(input: &mut Vec<u8>, corpus: &[Vec<u8>], words: &[&str], dice: &mut Rng) {
    let at = dice.usize(..=input.len());
    let stretch = at..(at + dice.usize(..=8)).min(input.len());
    match dice.u8(..10) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << dice.u8(..8);
            }
        }
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = any_byte(dice);
            }
        }
        2 => input.insert(at, any_byte(dice)),
        3 => drop(input.drain(stretch)),
        4 => {
            let copy = input[stretch].to_vec();
            input.splice(at..at, copy);
        }
        5 => input.truncate(at),
        6 | 7 if !words.is_empty() => {
            let word = words[dice.usize(..words.len())];
            let replaced = if dice.bool() { stretch } else { at..at };
            input.splice(replaced, word.bytes());
        }
        8 => {
            let number = NUMBERS[dice.usize(..NUMBERS.len())];
            // In place of one that is there, if it stands here.
            let digits = input[at..].iter().take_while(|it| it.is_ascii_digit());
            let end = at + digits.count();
            input.splice(at..end, number.bytes());
        }
        _ => {
            let other = &corpus[dice.usize(..corpus.len())];
            let from = dice.usize(..=other.len());
            let to = from + dice.usize(..=(other.len() - from));
            input.splice(at..at, other[from..to].iter().copied());
        }
    }
}

fn any_byte(dice: &mut Rng) -> u8 {
    match dice.bool() {
        true => BYTES[dice.usize(..BYTES.len())],
        false => dice.u8(..),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_does_the_same_damage_and_another_one_does_not() {
        let corpus = [b"GET /v1/credentials".to_vec(), b"{\"exp\": 7}".to_vec()];
        let run = |seed| {
            let mut dice = Rng::with_seed(seed);
            let inputs = (0..100).map(|_| damage(&corpus, &["word"], 64, &mut dice));
            inputs.collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        assert!(run(1).iter().all(|input| input.len() <= 64));
    }
}
