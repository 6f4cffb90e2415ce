//! The recorded answers of the real server: a text file an area, a line a request.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use super::table::Area;

/// A check's answer: for each step what was asked and what came back.
pub(crate) type Answer = Vec<(String, Value)>;
/// Answers by check.
pub(crate) type Answers = BTreeMap<String, Answer>;

/// Most differing paths of one step that are told.
const PATHS_MAX: usize = 12;

/// All recorded answers. A check is a line `# name`, a step a line with the request, two spaces and the answer.
pub(crate) fn read(folder: &Path) -> Answers {
    let mut answers = Answers::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.to_str().is_some_and(|p| p.ends_with(".golden.txt")) {
            continue;
        }
        let mut check = String::new();
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            if let Some(name) = line.strip_prefix("# ") {
                check = name.to_owned();
                answers.insert(check.clone(), Vec::new());
            } else if let Some((request, answer)) = line.split_once("  ") {
                let answer = serde_json::from_str(answer)
                    .unwrap_or_else(|e| panic!("{}: {check}: {e}", path.display()));
                answers
                    .entry(check.clone())
                    .or_default()
                    .push((request.to_owned(), answer));
            }
        }
    }
    answers
}

/// Writes what the real server answered; checks that were not asked keep what was recorded.
pub(crate) fn write(folder: &Path, areas: &[Area], answers: &Answers, whole: bool) {
    let before = if whole { Answers::new() } else { read(folder) };
    // With a filter the areas are not whole.
    let all = super::table::load(folder);
    for area in if whole { areas } else { &all } {
        let mut text = String::new();
        for check in &area.checks {
            let Some(answer) = answers.get(&check.name).or_else(|| before.get(&check.name)) else {
                continue;
            };
            writeln!(text, "# {}", check.name).unwrap();
            for (request, answer) in answer {
                writeln!(text, "{request}  {answer}").unwrap();
            }
        }
        std::fs::write(folder.join(format!("{}.golden.txt", area.name)), text).unwrap();
    }
}

/// How an answer differs from the recorded one; empty when it does not.
pub(crate) fn differences(recorded: Option<&Answer>, answer: &Answer) -> String {
    let Some(recorded) = recorded else {
        return "  nothing is recorded for it\n".to_owned();
    };
    let mut out = String::new();
    if recorded.len() != answer.len() {
        writeln!(out, "  {} steps are recorded", recorded.len()).unwrap();
    }
    for ((asked, wanted), (request, got)) in recorded.iter().zip(answer) {
        let mut paths = Vec::new();
        if asked != request {
            paths.push(format!("recorded for {asked}"));
        }
        if wanted["code"] == got["code"] {
            compare("", wanted, got, &mut paths);
        } else {
            paths.push(format!("real {}\n    ours {}", brief(wanted), brief(got)));
        }
        if !paths.is_empty() {
            writeln!(out, "  {request}").unwrap();
            for path in paths.iter().take(PATHS_MAX) {
                writeln!(out, "    {path}").unwrap();
            }
        }
    }
    out
}

/// An answer of another code than the one it is compared with: what it is is enough.
fn brief(answer: &Value) -> String {
    let body = &answer["body"];
    let what = [&body["message"], &body["kind"], body]
        .into_iter()
        .find(|v| !v.is_null());
    format!("{} {}", answer["code"], what.unwrap_or(&Value::Null))
}

fn compare(path: &str, wanted: &Value, got: &Value, out: &mut Vec<String>) {
    match (wanted, got) {
        (Value::Object(wanted), Value::Object(got)) => {
            for (key, value) in wanted {
                let path = format!("{path}.{key}");
                match got.get(key) {
                    Some(other) => compare(&path, value, other, out),
                    None => out.push(format!("{path}: real {value}, ours has none")),
                }
            }
            for (key, value) in got.iter().filter(|(k, _)| !wanted.contains_key(*k)) {
                out.push(format!("{path}.{key}: real has none, ours {value}"));
            }
        }
        (Value::Array(wanted), Value::Array(got)) if wanted.len() == got.len() => {
            for (i, (wanted, got)) in wanted.iter().zip(got).enumerate() {
                compare(&format!("{path}[{i}]"), wanted, got, out);
            }
        }
        (wanted, got) if wanted == got => {}
        (wanted, got) => out.push(format!("{path}:\n      real {wanted}\n      ours {got}")),
    }
}
