//! The live view of the demo: what is seen ([`frame`]), where its clock stands ([`playback`]), how it is drawn
//! ([`draw`]) and, apart from all that, the terminal ([`terminal`]).

pub(crate) mod draw;
pub(crate) mod frame;
pub(crate) mod playback;
pub(crate) mod terminal;

#[cfg(test)]
mod tests;

use std::time::Duration;

/// How often a recording looks at the world: seconds of the world, not of the viewer.
pub(crate) const RECORD_EVERY: Duration = Duration::from_secs(1);

/// Whether the view is to be had: a terminal at both ends that can do more than print.
pub(crate) fn wanted(plain: bool) -> bool {
    use std::io::IsTerminal as _;
    !plain
        && std::io::stdout().is_terminal()
        && std::io::stdin().is_terminal()
        && std::env::var_os("TERM").is_some_and(|t| !t.is_empty() && t != "dumb")
}
