//! Where log lines go.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::Arc;

use parking_lot::Mutex;

/// Lines a memory sink keeps.
const MEMORY_LINES: usize = 100_000;

/// A place for lines; cheap to clone.
#[derive(Clone, Debug)]
pub enum Sink {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file that is appended to.
    File(Arc<Mutex<File>>),
    /// Memory, for worlds in one process.
    Memory(MemorySink),
}

/// A log file that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("log output {path} cannot be opened")]
pub struct OpenError {
    /// The path as set.
    pub path: String,
    /// Why.
    pub source: std::io::Error,
}

impl Sink {
    /// The sinks that `--log-output-paths` or `--log-error-output-paths` names: `stdout`, `stderr` or file paths.
    ///
    /// # Errors
    /// At the first file that cannot be opened.
    pub fn open(paths: &[String]) -> Result<Vec<Self>, OpenError> {
        paths
            .iter()
            .map(|path| match path.as_str() {
                "stdout" => Ok(Self::Stdout),
                "stderr" => Ok(Self::Stderr),
                _ => OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(path)
                    .map(|file| Self::File(Arc::new(Mutex::new(file))))
                    .map_err(|source| OpenError {
                        path: path.clone(),
                        source,
                    }),
            })
            .collect()
    }

    /// Writes a line.
    pub(super) fn write(&self, line: &str) -> std::io::Result<()> {
        match self {
            Self::Stdout => writeln!(std::io::stdout().lock(), "{line}"),
            Self::Stderr => writeln!(std::io::stderr().lock(), "{line}"),
            Self::File(file) => writeln!(file.lock(), "{line}"),
            Self::Memory(memory) => {
                memory.push(line);
                Ok(())
            }
        }
    }
}

/// The last lines written, in memory; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct MemorySink {
    lines: Arc<Mutex<VecDeque<String>>>,
}

impl MemorySink {
    fn push(&self, line: &str) {
        let mut lines = self.lines.lock();
        if lines.len() == MEMORY_LINES {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    /// The lines held, oldest first.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().iter().cloned().collect()
    }
}
