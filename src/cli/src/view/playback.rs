//! Where the viewer stands in a story: position, speed, pause. Pure; the terminal tells it how much time went by.

use std::time::Duration;

/// Speeds to choose from: seconds of the story in a second of the viewer's.
const SPEEDS: [f64; 11] = [
    1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0,
];
/// The first: half an hour in 36 seconds.
const FIRST: usize = 5;
/// How long the end is shown before the view closes by itself.
const HOLD: Duration = Duration::from_secs(3);

/// What the viewer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// Leave.
    Quit,
    /// Pause or go on.
    Pause,
    /// Twice as fast, about.
    Faster,
    /// Half as fast, about.
    Slower,
    /// To the end.
    End,
}

/// A story being shown.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Playback {
    at: f64,
    end: f64,
    speed: usize,
    paused: bool,
    held: Duration,
    quit: bool,
}

impl Playback {
    /// At the beginning of a story of `end` seconds.
    pub(crate) fn new(end: f64) -> Self {
        Self {
            at: 0.0,
            end,
            speed: FIRST,
            paused: false,
            held: Duration::ZERO,
            quit: false,
        }
    }

    /// Seconds since the story's start.
    pub(crate) fn at(&self) -> f64 {
        self.at
    }

    /// Seconds of the story.
    pub(crate) fn end(&self) -> f64 {
        self.end
    }

    /// Seconds of the story in one of the viewer's.
    pub(crate) fn speed(&self) -> f64 {
        SPEEDS.get(self.speed).copied().unwrap_or(1.0)
    }

    /// Whether it stands still by the viewer's wish.
    pub(crate) fn paused(&self) -> bool {
        self.paused
    }

    /// Whether there is nothing more to show.
    pub(crate) fn over(&self) -> bool {
        self.quit || (self.held >= HOLD && !self.paused)
    }

    /// Lets the viewer's time pass.
    pub(crate) fn advance(&mut self, passed: Duration) {
        if self.paused {
            return;
        }
        if self.at >= self.end {
            self.held += passed;
            return;
        }
        self.at = (self.at + passed.as_secs_f64() * self.speed()).min(self.end);
    }

    /// Does what the viewer asks for.
    pub(crate) fn press(&mut self, key: Key) {
        match key {
            Key::Quit => self.quit = true,
            Key::Pause => self.paused = !self.paused,
            Key::Faster => self.speed = (self.speed + 1).min(SPEEDS.len() - 1),
            Key::Slower => self.speed = self.speed.saturating_sub(1),
            Key::End => self.at = self.end,
        }
    }
}
