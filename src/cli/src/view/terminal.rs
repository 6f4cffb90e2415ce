//! The terminal's side of the view: alternate screen, keys, signals. Whatever ends it (a key, a signal, an error, a
//! panic), the terminal is as it was before.

use std::time::Duration;

use karpenter_e2e::world::World;
use karpenter_runtime::Clock;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::draw::{self, Motion, ViewState};
use super::frame::{self, Recording};
use super::playback::{Key, Playback};
use crate::output::Failure;

/// Time between two pictures.
const TICK: Duration = Duration::from_millis(50);

/// How a view was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// At its end or by a key.
    Done,
    /// By a signal: the exit code that a shell gives it.
    Signal(u8),
}

/// The terminal while it is ours.
struct Screen {
    terminal: DefaultTerminal,
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Screen {
    /// Takes the terminal. A panic gives it back before its message is printed.
    fn take() -> std::io::Result<Self> {
        let (interrupt, terminate, hangup) = (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        );
        let terminal = ratatui::try_init().inspect_err(|_| give_back())?;
        Ok(Self {
            terminal,
            interrupt,
            terminate,
            hangup,
        })
    }

    fn show(&mut self, state: &ViewState<'_>) -> std::io::Result<()> {
        self.terminal
            .draw(|f| draw::draw(state, f.area(), f.buffer_mut()))?;
        Ok(())
    }

    /// Waits for the next picture; a signal instead, if there is one.
    async fn tick(&mut self) -> Option<Left> {
        // 128 and the signal's number.
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => Some(Left::Signal(130)),
            _ = self.terminate.recv() => Some(Left::Signal(143)),
            _ = self.hangup.recv() => Some(Left::Signal(129)),
            () = tokio::time::sleep(TICK) => None,
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn give_back() {
    // Nobody is left to tell when the terminal has gone.
    let _ = ratatui::try_restore();
    let _ = ratatui::crossterm::execute!(std::io::stdout(), ratatui::crossterm::cursor::Show);
}

/// Keys pressed since the last look.
fn keys() -> std::io::Result<Vec<Key>> {
    let mut keys = Vec::new();
    while event::poll(Duration::ZERO)? {
        if let Event::Key(pressed) = event::read()? {
            keys.extend(meaning(pressed));
        }
    }
    Ok(keys)
}

/// What a key asks for.
pub(super) fn meaning(key: KeyEvent) -> Option<Key> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c') if ctrl => Some(Key::Quit),
        KeyCode::Char('q') | KeyCode::Esc => Some(Key::Quit),
        KeyCode::Char(' ') => Some(Key::Pause),
        KeyCode::Char('+' | '=') => Some(Key::Faster),
        KeyCode::Char('-' | '_') => Some(Key::Slower),
        KeyCode::Char('e') | KeyCode::End => Some(Key::End),
        _ => None,
    }
}

/// Shows a story that was told.
///
/// # Errors
/// When the terminal fails.
pub(crate) async fn play(seed: u64, recording: &Recording) -> Result<Left, Failure> {
    let mut screen = Screen::take()?;
    let mut playback = Playback::new(recording.end());
    let clock = Clock::real();
    let mut last = clock.now();
    while !playback.over() {
        for key in keys()? {
            playback.press(key);
        }
        let now = clock.now();
        playback.advance(now.saturating_duration_since(last));
        last = now;
        let Some(frame) = recording.at(playback.at()) else {
            break;
        };
        screen.show(&ViewState {
            seed,
            frame,
            entries: &recording.entries,
            motion: Motion::Playback(&playback),
        })?;
        if let Some(left) = screen.tick().await {
            return Ok(left);
        }
    }
    Ok(Left::Done)
}

/// Shows a world as it is, until it is told to leave.
///
/// # Errors
/// When the terminal fails.
pub(crate) async fn follow(seed: u64, world: &World, note: &str) -> Result<Left, Failure> {
    let mut screen = Screen::take()?;
    loop {
        if keys()?.contains(&Key::Quit) {
            return Ok(Left::Done);
        }
        let frame = frame::capture(world);
        let entries = world.observed.lock().entries().to_vec();
        screen.show(&ViewState {
            seed,
            frame: &frame,
            entries: &entries,
            motion: Motion::Live(note),
        })?;
        if let Some(left) = screen.tick().await {
            return Ok(left);
        }
    }
}
