//! Every file under `fixtures/reports` is a story that a user of Karpenter had to tell, with our own facts: it runs in
//! virtual time, its expectations must hold and no rule may be broken. `docs/reports.md` says what each is about.

use std::path::{Path, PathBuf};

use karpenter_e2e::{report, run};
use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    let arguments = Arguments::from_args();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files: Vec<PathBuf> = std::fs::read_dir(root.join("fixtures/reports"))
        .map(|entries| entries.filter_map(Result::ok).map(|e| e.path()).collect())
        .unwrap_or_default();
    files.sort();
    let mut names: Vec<String> = files.iter().map(|f| name(f)).collect();
    names.sort();
    let table = root.join("docs/reports.md");
    let told = Trial::test("the table and the files are the same", move || {
        same(&table, &names)
    });
    let trials = files
        .into_iter()
        .map(|file| Trial::test(name(&file), move || test(&file)));
    libtest_mimic::run(&arguments, trials.chain([told]).collect()).exit();
}

fn name(file: &Path) -> String {
    file.file_stem()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn test(file: &Path) -> Result<(), Failed> {
    let done = run::run_at(file, None)?;
    if report::passed(&done) {
        return Ok(());
    }
    let text = report::text_of(&done);
    Err(format!("an expectation failed or a rule was broken:\n{text}").into())
}

/// Whether the table names each file, as `fixtures/reports/NAME`, and no others.
fn same(table: &Path, files: &[String]) -> Result<(), Failed> {
    let text = std::fs::read_to_string(table)?;
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let mut named: Vec<String> = text
        .split("`reports/")
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| is_of_name(*c)).collect())
        .collect();
    named.sort();
    named.dedup();
    if named.is_empty() || named != files {
        return Err(format!("docs/reports.md names {named:?}, there are {files:?}").into());
    }
    Ok(())
}
