//! The view on a test terminal: at a usual size, a wide one and a very small one; and how playback moves.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::float_cmp)]

use std::sync::Arc;
use std::time::Duration;

use karpenter_e2e::observe::{Entry, PodCounts};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::draw::{Motion, ViewState, draw};
use super::frame::{Frame, NodeRow, NodeState, Recording};
use super::playback::{Key, Playback};

fn row(name: &str, price: Option<f64>, pods: usize, state: NodeState) -> NodeRow {
    NodeRow {
        name: name.to_owned(),
        instance_type: "c-4x-amd64-linux".to_owned(),
        zone: "test-zone-a".to_owned(),
        capacity_type: "spot".to_owned(),
        price,
        cpu: "3920m".to_owned(),
        pods,
        state,
    }
}

fn entry(at: f64, kind: &str, object: &str, message: &str) -> Entry {
    Entry {
        at,
        kind: kind.to_owned(),
        object: object.to_owned(),
        message: message.to_owned(),
    }
}

fn frame() -> Frame {
    Frame {
        at: 312.0,
        nodes: Arc::new(vec![
            row("default-aaaaa", Some(0.0416), 3, NodeState::Ready),
            row("default-bbbbb", Some(0.0416), 0, NodeState::Booting),
            row("default-ccccc", None, 0, NodeState::Launching),
            row("default-ddddd", Some(0.1), 1, NodeState::Leaving),
        ]),
        pods: PodCounts {
            pending: 5,
            starting: 1,
            running: 4,
        },
        per_hour: 0.1832,
        spent: 0.0123,
        entries: 3,
    }
}

fn entries() -> Vec<Entry> {
    vec![
        entry(10.0, "Step", "inflate", "scaled to 3"),
        entry(
            11.0,
            "NodeClaim",
            "default-aaaaa",
            "created in pool default for cpu 3; 144 instance types fit",
        ),
        entry(300.0, "Pods", "", "4 running, 1 starting, 5 pending"),
        entry(
            400.0,
            "Step",
            "inflate",
            "later than the frame: not shown yet",
        ),
    ]
}

fn shown(width: u16, height: u16, frame: &Frame) -> String {
    let mut playback = Playback::new(1800.0);
    playback.advance(Duration::from_secs(6));
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|f| {
            let state = ViewState {
                seed: 7,
                frame,
                entries: &entries(),
                motion: Motion::Playback(&playback),
            };
            draw(&state, f.area(), f.buffer_mut());
        })
        .unwrap();
    terminal.backend().to_string()
}

#[test]
fn usual_terminal() {
    insta::assert_snapshot!(shown(80, 24, &frame()));
}

#[test]
fn wide_terminal() {
    insta::assert_snapshot!(shown(160, 20, &frame()));
}

#[test]
fn very_small_terminal() {
    insta::assert_snapshot!(shown(40, 10, &frame()));
}

#[test]
fn more_nodes_than_room_says_how_many() {
    let mut frame = frame();
    frame.nodes = Arc::new(
        (0..40)
            .map(|i| row(&format!("default-{i:05}"), Some(0.1), i, NodeState::Ready))
            .collect(),
    );
    let text = shown(80, 24, &frame);
    let listed = text.matches("default-000").count();
    assert!(
        text.contains(&format!("and {} older", 40 - listed)),
        "{text}"
    );
    assert!(
        text.contains("default-00039"),
        "the newest is shown: {text}"
    );
}

#[test]
fn no_size_is_too_small() {
    let (frame, entries, playback) = (frame(), entries(), Playback::new(1800.0));
    let state = ViewState {
        seed: 7,
        frame: &frame,
        entries: &entries,
        motion: Motion::Playback(&playback),
    };
    for width in 0..30 {
        for height in 0..16 {
            let area = Rect::new(0, 0, width, height);
            let mut buffer = Buffer::empty(area);
            draw(&state, area, &mut buffer);
            // The money survives every loss of room that leaves its line.
            if width >= 10 && height >= 2 {
                assert_eq!(buffer[(1, 1)].symbol(), "$", "{width}x{height}");
            }
        }
    }
}

#[test]
fn no_money_has_no_sign() {
    let empty = Frame {
        per_hour: -0.0,
        spent: -0.0,
        ..Frame::default()
    };
    let text = shown(80, 24, &empty);
    assert!(text.contains(" $0.0000/h  $0.0000 spent"), "{text}");
}

#[test]
fn what_comes_later_is_not_shown() {
    assert!(!shown(160, 50, &frame()).contains("later than the frame"));
}

#[test]
fn half_an_hour_takes_36_seconds_and_the_end_is_held() {
    let mut playback = Playback::new(1800.0);
    playback.advance(Duration::from_millis(35_900));
    assert!(playback.at() < 1800.0);
    playback.advance(Duration::from_millis(200));
    assert_eq!(playback.at(), 1800.0);
    assert!(!playback.over());
    playback.advance(Duration::from_secs(3));
    assert!(playback.over());
}

#[test]
fn keys_change_speed_pause_and_leave() {
    let mut playback = Playback::new(1800.0);
    playback.press(Key::Faster);
    assert_eq!(playback.speed(), 100.0);
    playback.press(Key::Slower);
    playback.press(Key::Slower);
    assert_eq!(playback.speed(), 25.0);
    for _ in 0..50 {
        playback.press(Key::Slower);
    }
    assert_eq!(playback.speed(), 1.0);
    playback.press(Key::Pause);
    playback.advance(Duration::from_secs(60));
    assert_eq!(playback.at(), 0.0);
    playback.press(Key::End);
    playback.advance(Duration::from_secs(60));
    assert!(!playback.over(), "paused at the end it stays");
    playback.press(Key::Quit);
    assert!(playback.over());
}

#[test]
fn a_recording_gives_the_last_frame_before() {
    let recording = Recording {
        frames: [0.0, 1.0, 5.0]
            .into_iter()
            .map(|at| Frame {
                at,
                ..Frame::default()
            })
            .collect(),
        entries: Vec::new(),
    };
    let at = |t: f64| recording.at(t).unwrap().at;
    assert_eq!(
        [at(0.0), at(0.9), at(1.0), at(4.9), at(99.0)],
        [0.0, 0.0, 1.0, 1.0, 5.0]
    );
    assert!(Recording::default().at(0.0).is_none());
}
