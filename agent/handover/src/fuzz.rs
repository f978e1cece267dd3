//! What the other agent on a node may send: only root can, but it may be another build.

use podcreds_fuzz::Fuzz;
use tokio::runtime::Builder;

use super::{
    change::EntryChange,
    frame::{Frame, LONGEST, hear, hear_successor, receive},
    reaching::ReachQuestion,
};

const FUZZ: Fuzz = Fuzz {
    manifest: env!("CARGO_MANIFEST_DIR"),
    words: &[
        "podcreds\0\u{1}",
        "\u{1}\0\0\0",
        "\u{2}\0\0\0\0",
        "\u{3}\0\0\0\0",
        "\u{1}\0\u{4}\0\u{1}",
        "{\"subject\":{\"pod\":7},\"kept\":null}",
        "\"bearer\":[",
        "\"kept\":",
        "\"body\":",
        "\"secs_since_epoch\":",
        "\"nanos_since_epoch\":",
        "\"older\":[",
        "\"exchanged\":[",
        "null",
        "true",
        "\\ud800",
        "{\"number\":1,\"listeners\":[{\"pod\":7,\"netns\":8,\"v4\":true,",
    ],
};

#[test]
fn fuzz_frames() {
    let runtime = Builder::new_current_thread().build().unwrap();
    FUZZ.feed("frames", |input| {
        runtime.block_on(async {
            let mut wire = input;
            let mut said = input;
            let mut heard = Vec::new();
            while let Ok(said) = hear_successor(&mut said).await {
                heard.push(said.is_some());
            }
            heard.truncate(3);
            heard.push(hear(&mut wire).await.is_ok());
            while let Ok(frame) = receive(&mut wire).await {
                if let Frame::Change(bytes) = &frame {
                    assert!(bytes.len() <= LONGEST as usize);
                    let _ = EntryChange::decode(bytes).or_else(|| EntryChange::gone_by(bytes));
                }
                if let Frame::Reach(bytes) = &frame {
                    let _ = ReachQuestion::decode(bytes);
                }
                heard.push(matches!(frame, Frame::Unknown(_)));
            }
            heard.truncate(8);
            heard
        })
    });
}

#[test]
fn fuzz_change() {
    FUZZ.feed("change", |input| {
        let Some(change) = EntryChange::decode(input) else {
            return (EntryChange::gone_by(input).is_some(), None);
        };
        // What was understood can be told on, and is understood in the same way.
        let told = change.encode().expect("it came over the wire");
        let again = EntryChange::decode(&told).expect("it was told by this agent");
        assert!(again.subject == change.subject);
        let parts = |change: &EntryChange| {
            let snapshot = change.snapshot.as_ref()?;
            let token = snapshot.renewing.as_ref().map(|it| it.expose().to_owned());
            let digests = (snapshot.latest, snapshot.older.clone(), snapshot.exchanged);
            let tokens = (digests, token);
            Some((snapshot.body.clone(), snapshot.ages, tokens, snapshot.asked))
        };
        assert!(
            parts(&again) == parts(&change),
            "it is told as something else"
        );
        let kept = parts(&change).map(|(_, _, tokens, asked)| {
            let ((latest, older, exchanged), renewing) = tokens;
            (
                latest.is_some(),
                older.len().min(4),
                exchanged.is_some(),
                renewing.is_some(),
                asked,
            )
        });
        (true, kept)
    });
}
