//! What the CRD tests of several crates share: Karpenter's own definitions to compare with, and the chart's copies.

use std::path::{Path, PathBuf};

use karpenter_api::crd::{chart, compare};
use serde_json::Value;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Compares definitions with Karpenter's files of those names. `intended` lists every difference that we want, by
/// file and text; a difference that is not listed fails, and so does a listed one that is gone.
pub(crate) fn assert_like_upstream(pairs: &[(&str, &Value)], intended: &[(&str, &str)]) {
    let shared = std::env::var("KARPENTER_SHARED")
        .map_or_else(|_| workspace().join("../shared"), PathBuf::from);
    let dir = shared.join("upstream-crds");
    if !dir.is_dir() {
        eprintln!(
            "SKIPPED: {} is not there (set KARPENTER_SHARED): definitions were NOT compared",
            dir.display()
        );
        return;
    }
    let mut found = Vec::new();
    for (file, ours) in pairs {
        let text = std::fs::read_to_string(dir.join(file)).unwrap();
        let theirs: Value = serde_saphyr::from_str(&text).unwrap();
        let all = compare::differences(ours, &theirs);
        found.extend(all.into_iter().map(|d| format!("{file}: {d}")));
    }
    let intended: Vec<String> = intended
        .iter()
        .map(|(file, d)| format!("{file}: {d}"))
        .collect();
    let unwanted: Vec<&String> = found.iter().filter(|d| !intended.contains(d)).collect();
    let gone: Vec<&String> = intended.iter().filter(|d| !found.contains(d)).collect();
    assert!(
        unwanted.is_empty(),
        "differences from Karpenter's definitions:\n{unwanted:#?}"
    );
    assert!(
        gone.is_empty(),
        "intended differences that are none:\n{gone:#?}"
    );
}

/// The chart's copies equal the definitions; with `UPDATE_CRDS=1` they are written.
pub(crate) fn assert_in_chart(definitions: &[Value]) {
    let dir = workspace().join("charts/karpenter-crd/templates");
    for definition in definitions {
        let path = dir.join(chart::file_name(definition));
        let text = chart::template(definition).unwrap();
        if std::env::var_os("UPDATE_CRDS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let held = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            held == text,
            "{} is out of date: run the tests with UPDATE_CRDS=1",
            path.display()
        );
        // Without Helm's lines the template is the definition.
        let plain: String = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("{{-") && *line != "  annotations:")
            .map(|line| format!("{}\n", line.replace("{{ `{{` }}", "{{")))
            .collect();
        assert_eq!(
            &serde_saphyr::from_str::<Value>(&plain).unwrap(),
            definition
        );
    }
}
