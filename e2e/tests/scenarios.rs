//! Every folder under `fixtures/scenarios` is a test: it runs in virtual time, its expectations must hold, no rule may
//! be broken, and what an operator would have seen must be what `golden.txt` beside it says.
//! `UPDATE_GOLDENS=1` writes the goldens; read the diff before you commit it.

use std::path::{Path, PathBuf};

use karpenter_e2e::{report, run};
use libtest_mimic::{Arguments, Failed, Trial};

/// Most lines a golden may have: it is to be read.
const MAX_GOLDEN_LINES: usize = 200;

fn main() {
    let arguments = Arguments::from_args();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/scenarios");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(&root)
        .map(|entries| {
            entries
                .filter_map(Result::ok)
                .map(|e| e.path())
                .filter(|p| p.is_dir())
                .collect()
        })
        .unwrap_or_default();
    folders.sort();
    let trials = folders
        .into_iter()
        .map(|folder| {
            let name = folder
                .file_name()
                .map(|n| n.to_string_lossy().into_owned())
                .unwrap_or_default();
            Trial::test(name, move || test(&folder))
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn test(folder: &Path) -> Result<(), Failed> {
    let done = run::run_at(folder, None)?;
    let text = report::text_of(&done);
    if !report::passed(&done) {
        return Err(format!("an expectation failed or a rule was broken:\n{text}").into());
    }
    let golden = folder.join("golden.txt");
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(&golden, &text).map_err(|e| e.to_string())?;
    }
    let lines = text.lines().count();
    if lines > MAX_GOLDEN_LINES {
        return Err(format!("{lines} lines are too many to be read; tell a shorter story (at most {MAX_GOLDEN_LINES})").into());
    }
    let want = std::fs::read_to_string(&golden).unwrap_or_default();
    if want != text {
        return Err(format!("not what {} says; got:\n{text}", golden.display()).into());
    }
    Ok(())
}
