use std::{process::Command, time::Instant};

use rustix::thread::gettid;

use super::*;

/// As many ticks as make a part count as stopped.
const TICKS: u32 = (LIMIT.as_millis() / CLOSE_TICK.as_millis()) as u32;

const WAITING: Option<ThreadState> = state(false, Duration::ZERO);

const fn state(is_runnable: bool, cpu: Duration) -> Option<ThreadState> {
    Some(ThreadState { is_runnable, cpu })
}

/// How many ticks it takes until a part counts as stopped, if it does.
fn ticks_until_stalled(mut state: impl FnMut(u32) -> Option<ThreadState>) -> Option<u32> {
    let (health, mut watch) = (VitalsHealth::default(), Watch::default());
    let part = health.vitals.thread("a part");
    part.beat();
    let found = (0..100 * TICKS).find(|tick| {
        let state = state(*tick);
        watch.tick(&health, CLOSE_TICK, |_| state).is_some()
    });
    part.retire();
    found
}

#[test]
fn a_part_that_waits_for_too_long_has_stopped() {
    assert_eq!(ticks_until_stalled(|_| WAITING), Some(TICKS));
    // Where the kernel does not say what a thread is at.
    assert_eq!(ticks_until_stalled(|_| None), Some(TICKS));
}

#[test]
fn a_part_that_runs_in_a_circle_has_stopped() {
    let busy = |tick| state(true, tick * CLOSE_TICK);
    let ticks = ticks_until_stalled(busy).unwrap();
    assert!((TICKS..TICKS + 3).contains(&ticks), "{ticks}");
}

#[test]
fn a_part_that_gets_no_processor_is_not_at_fault() {
    assert_eq!(ticks_until_stalled(|_| state(true, Duration::ZERO)), None);
    // One that gets a hundredth of it has a hundred times as long.
    let starved = |tick| state(true, tick * CLOSE_TICK / 100);
    let ticks = ticks_until_stalled(starved).unwrap_or(100 * TICKS);
    assert!(ticks > 90 * TICKS, "{ticks}");
}

#[test]
fn a_beat_makes_good_for_all_silence_before_it() {
    let (health, mut watch) = (VitalsHealth::default(), Watch::default());
    let part = health.vitals.thread("a part");
    for _ in 0..3 {
        part.beat();
        for _ in 0..TICKS {
            assert_eq!(watch.tick(&health, CLOSE_TICK, |_| WAITING), None);
        }
        let said = health.check().unwrap_err().to_string();
        assert!(said.contains("a part has done nothing for"), "{said}");
    }
    part.beat();
    assert_eq!(watch.tick(&health, CLOSE_TICK, |_| WAITING), None);
    assert_eq!(health.check(), Ok(()));
    part.retire();
}

#[test]
fn a_stall_is_noticed_within_ten_seconds_whenever_it_begins() {
    let (health, mut watch) = (VitalsHealth::default(), Watch::default());
    let part = health.vitals.thread("a part");
    part.beat();
    assert_eq!(watch.tick(&health, TICK, |_| WAITING), None);
    assert_eq!(watch.next_tick(), TICK);
    // It answers once more, and stops at once.
    part.beat();
    let mut passed = Duration::ZERO;
    loop {
        let tick = watch.next_tick();
        passed += tick;
        if watch.tick(&health, tick, |_| WAITING).is_some() {
            break;
        }
    }
    assert!(passed <= Duration::from_millis(9500), "{passed:?}");
    part.retire();
}

#[tokio::test]
async fn a_runtime_answers_whenever_it_is_asked() {
    let (health, mut watch) = (VitalsHealth::default(), Watch::default());
    let runtime = tokio::spawn(beat(health.vitals.thread("a runtime")));
    for _ in 0..3 * TICKS {
        // It counts from its first beat on.
        tokio::task::yield_now().await;
        assert_eq!(watch.tick(&health, TICK, |_| WAITING), None);
        assert_eq!(watch.next_tick(), TICK);
        health.vitals.ask();
    }
    runtime.abort();
}

#[test]
fn a_part_that_has_ended_is_noticed_at_once() {
    let (health, mut watch) = (VitalsHealth::default(), Watch::default());
    drop(health.vitals.task("accepting"));
    let ended = Some(Stalled::Ended("accepting".to_owned()));
    assert_eq!(watch.tick(&health, CLOSE_TICK, |_| WAITING), ended);
}

#[test]
fn a_part_that_retired_is_not_watched() {
    let (health, mut watch) = (VitalsHealth::default(), Watch::default());
    let part = health.vitals.thread("a part");
    part.beat();
    assert_eq!(watch.tick(&health, CLOSE_TICK, |_| WAITING), None);
    part.retire();
    assert!((0..2 * TICKS).all(|_| watch.tick(&health, CLOSE_TICK, |_| WAITING).is_none()));
    assert!(watch.0.is_empty());
}

#[test]
fn the_kernel_says_what_a_thread_is_at() {
    let me = gettid().as_raw_pid();
    let before = thread_state(me).unwrap();
    assert!(before.is_runnable);
    let start = Instant::now();
    while thread_state(me).unwrap().cpu < before.cpu + Duration::from_millis(20) {
        assert!(start.elapsed() < Duration::from_secs(60));
    }
    assert_eq!(thread_state(0), None);
}

#[test]
fn a_thread_name_with_a_bracket_is_parsed() {
    let stat = "7 (a) R) S 1 7 7 0 -1 4194560 10 0 0 0 150 50 0 0 20 0 1 0 9 9 9";
    let expected = state(false, Duration::from_secs(2));
    assert_eq!(parse_stat(stat, 100), expected);
    assert_eq!(parse_stat("7 (a", 100), None);
    assert_eq!(parse_stat("7 (a) S 1", 100), None);
}

/// Ends this process, in a run of its own.
const ENDS: &str = "watchdog::tests::the_process_ends_though_its_last_words_are_not_read";

#[test]
fn the_process_ends_though_its_last_words_are_not_read() {
    if std::env::var_os("PODCREDS_TEST_ENDS").is_some() {
        let say = Box::new(|_: &_| thread::sleep(Duration::from_secs(600)));
        end(Stalled::Ended("x".to_owned()), OnStall { code: 70, say });
    }
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", ENDS])
        .env("PODCREDS_TEST_ENDS", "1")
        .output()
        .unwrap()
        .status;
    assert_eq!(status.code(), Some(70));
}
