//! The table: checks as data.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

/// A file of checks.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Area {
    /// The file's name without its ending.
    #[serde(skip)]
    pub(crate) name: String,
    /// The checks, each in a namespace of its own.
    pub(crate) checks: Vec<Check>,
}

/// One behaviour.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Check {
    /// What the server does, as a sentence.
    pub(crate) name: String,
    /// What is done first, each of which must succeed and is not compared.
    #[serde(default)]
    pub(crate) given: Vec<Step>,
    /// What is asked and compared.
    pub(crate) steps: Vec<Step>,
}

/// One request.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Step {
    /// `VERB path`. A path that does not begin with a slash is below the check's namespace: `pods/a/status` is of the
    /// core group, `apps/v1:deployments/a` of another. `{ns}` and `{saved}` values are put in.
    #[serde(rename = "do")]
    pub(crate) request: String,
    /// The document that is sent.
    pub(crate) body: Option<Value>,
    /// The same as text, where it is no JSON.
    pub(crate) text: Option<String>,
    /// The same as bytes, in base64.
    pub(crate) base64: Option<String>,
    /// Of the body: `json` (default), `merge`, `json-patch`, `strategic`, `apply`, `yaml`, or a media type.
    pub(crate) content: Option<String>,
    /// `json` (default), `table`, `metadata`, `metadata-list`, or media types.
    pub(crate) accept: Option<String>,
    /// Whom the admin acts for (`Impersonate-User`), and that user's groups.
    #[serde(rename = "as")]
    pub(crate) user: Option<String>,
    #[serde(default)]
    pub(crate) groups: Vec<String>,
    /// A bearer token in place of the admin's credentials.
    pub(crate) agent: Option<String>,
    /// Values for later steps, by path in the answer.
    #[serde(default)]
    pub(crate) save: BTreeMap<String, String>,
    /// Paths of the answer that are compared; everything when there are none. `\.` is a dot in a key, `*` every item.
    #[serde(default)]
    pub(crate) show: Vec<String>,
    /// Headers that are compared.
    #[serde(default)]
    pub(crate) headers: Vec<String>,
    /// Asked again until it succeeds: something else has to happen first (a definition is established).
    #[serde(default)]
    pub(crate) until_ok: bool,
    /// Asked again until this is the code.
    pub(crate) until: Option<u16>,
    /// The bookmark that ends a watch's initial events is compared; when others come is the server's affair.
    #[serde(default)]
    pub(crate) bookmarks: bool,
}

/// All areas in the order of their names.
pub(crate) fn load(folder: &Path) -> Vec<Area> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    let mut names = BTreeSet::new();
    let mut areas = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        // `y` is a letter here.
        let options = serde_saphyr::options! { strict_booleans: true };
        let mut area: Area = serde_saphyr::from_str_with_options(&text, options)
            .unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        area.name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        for check in &area.checks {
            let namespace = check.namespace();
            assert!(
                names.insert(namespace.clone()),
                "{}: two checks would share namespace {namespace}",
                check.name
            );
        }
        areas.push(area);
    }
    areas
}

impl Check {
    /// A namespace named after the check.
    pub(crate) fn namespace(&self) -> String {
        const LEN_MAX: usize = 50;
        let words: Vec<String> = self
            .name
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|w| !w.is_empty())
            .map(str::to_ascii_lowercase)
            .collect();
        let whole = words.join("-");
        let cut: String = whole.chars().take(LEN_MAX).collect();
        format!("t-{}", cut.trim_end_matches('-'))
    }
}
