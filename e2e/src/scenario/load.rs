//! From a folder to a checked scenario: parses, reads the files beside it, and refuses what cannot be meant.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::schema::{Scenario, Step};
use crate::manifests::{self, ManifestError};
use crate::strict::{self, MAX_REPLICAS, Objection};

/// A scenario with everything it refers to.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Name: that of the folder.
    pub name: String,
    /// The story.
    pub scenario: Scenario,
    /// All objects of the start, those of its files included.
    pub objects: Vec<Value>,
    /// What a person should know about objects that were written for an older version.
    pub warnings: Vec<String>,
    /// Instance types of `cloud.instanceTypes`, raw.
    pub instance_types: Option<Vec<u8>>,
    /// Folder, for the files of later steps.
    pub folder: PathBuf,
}

impl Loaded {
    /// A scenario that is in no folder, and refers to no files.
    #[must_use]
    pub fn of(name: impl Into<String>, scenario: Scenario) -> Self {
        Self {
            name: name.into(),
            objects: scenario.objects.clone(),
            scenario,
            warnings: Vec::new(),
            instance_types: None,
            folder: PathBuf::new(),
        }
    }
}

/// Why a scenario cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// A file is missing or broken.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The scenario file does not fit its schema.
    #[error("{file}: {message}")]
    Schema {
        /// File.
        file: String,
        /// What is wrong, with line and column.
        message: String,
    },
    /// A step cannot be meant.
    #[error("{file}: steps[{step}]: {message}")]
    Step {
        /// File.
        file: String,
        /// Index from 0.
        step: usize,
        /// What is wrong.
        message: String,
    },
    /// An object cannot be part of a story.
    #[error("{file}: {objection}")]
    Object {
        /// File.
        file: String,
        /// Which, and what is wrong.
        objection: Objection,
    },
    /// A field has a value that cannot be meant.
    #[error("{file}: {field}: {message}")]
    Field {
        /// File.
        file: String,
        /// Field.
        field: String,
        /// What is wrong.
        message: String,
    },
}

/// Loads the scenario at `path`: a folder with a `scenario.yaml`, or such a file.
///
/// # Errors
/// See [`ScenarioError`].
pub fn load(path: &Path) -> Result<Loaded, ScenarioError> {
    let file = if path.is_dir() {
        path.join("scenario.yaml")
    } else {
        path.to_owned()
    };
    let folder = file.parent().map(Path::to_owned).unwrap_or_default();
    let canonical = std::fs::canonicalize(&folder).unwrap_or_else(|_| folder.clone());
    let name = canonical
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let shown = file.display().to_string();
    let bytes = manifests::read_bytes(&file)?;
    let text = String::from_utf8(bytes).map_err(|e| ScenarioError::Schema {
        file: shown.clone(),
        message: format!("expected UTF-8: {e}"),
    })?;
    let scenario = parse(&text, &shown)?;
    let mut objects = manifests::parse_objects(
        serde_json::to_vec(&Value::Array(scenario.objects.clone()))
            .unwrap_or_default()
            .as_slice(),
        &format!("{shown}: objects"),
    )?;
    for beside in &scenario.files {
        objects.extend(manifests::read_objects(&folder.join(beside))?);
    }
    let (objects, warnings) = manifests::upgrade(objects, &shown)?;
    if let Some(objection) = objects.iter().find_map(strict::unfit) {
        return Err(ScenarioError::Object {
            file: shown,
            objection,
        });
    }
    let instance_types = match &scenario.cloud.instance_types {
        Some(beside) => Some(manifests::read_bytes(&folder.join(beside))?),
        None => None,
    };
    Ok(Loaded {
        name,
        scenario,
        objects,
        warnings,
        instance_types,
        folder,
    })
}

/// Parses and checks the text of a scenario file.
///
/// # Errors
/// See [`ScenarioError`].
pub fn parse(text: &str, file: &str) -> Result<Scenario, ScenarioError> {
    let scenario: Scenario = serde_saphyr::from_str(text).map_err(|e| ScenarioError::Schema {
        file: file.to_owned(),
        message: e.to_string(),
    })?;
    let mut last = super::schema::Span::default();
    for (step, s) in scenario.steps.iter().enumerate() {
        let bad = |message: String| ScenarioError::Step {
            file: file.to_owned(),
            step,
            message,
        };
        let actions = actions(s);
        if actions.len() != 1 {
            return Err(bad(format!(
                "expected exactly one of apply, delete, patch, scale, rollOut, cordon, drain, controller, cloud, machine, api, wait, expect; got {}",
                if actions.is_empty() {
                    "none".to_owned()
                } else {
                    actions.join(", ")
                }
            )));
        }
        if let Some(at) = s.at {
            if at < last {
                return Err(bad(format!(
                    "at: {at} lies before the step above it ({last}); steps are in order of time"
                )));
            }
            last = at;
        }
        check_step(s).map_err(bad)?;
    }
    Ok(scenario)
}

/// Names of the actions a step sets.
fn actions(s: &Step) -> Vec<&'static str> {
    [
        ("apply", s.apply.is_some()),
        ("delete", s.delete.is_some()),
        ("patch", s.patch.is_some()),
        ("scale", s.scale.is_some()),
        ("rollOut", s.roll_out.is_some()),
        ("cordon", s.cordon.is_some()),
        ("drain", s.drain.is_some()),
        ("controller", s.controller.is_some()),
        ("cloud", s.cloud.is_some()),
        ("machine", s.machine.is_some()),
        ("api", s.api.is_some()),
        ("wait", s.wait.is_some()),
        ("expect", s.expect.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, set)| set.then_some(name))
    .collect()
}

fn check_step(s: &Step) -> Result<(), String> {
    if let Some(wait) = &s.wait {
        match (&wait.duration, &wait.until) {
            (Some(_), Some(_)) => {
                return Err("wait: expected either for or until, got both".to_owned());
            }
            (None, None) => return Err("wait: expected for or until, got neither".to_owned()),
            (Some(_), None) if wait.timeout.is_some() => {
                return Err("wait.timeout: only with until".to_owned());
            }
            _ => {}
        }
    }
    let wait = s.wait.as_ref();
    for (field, expect) in [
        ("expect", s.expect.as_ref()),
        ("wait.until", wait.and_then(|w| w.until.as_ref())),
        ("wait.holding", wait.and_then(|w| w.holding.as_ref())),
    ] {
        if expect.is_some_and(|e| serde_json::to_value(e).is_ok_and(|v| v == serde_json::json!({})))
        {
            return Err(format!(
                "{field}: says nothing that could fail; expected a field such as podsRunning"
            ));
        }
    }
    if let Some(scale) = &s.scale
        && !(0..=MAX_REPLICAS).contains(&scale.replicas)
    {
        return Err(format!(
            "scale.replicas: expected a number from 0 to {MAX_REPLICAS}, got {}",
            scale.replicas
        ));
    }
    if let Some((field, message)) = s.patch.as_ref().and_then(|p| strict::too_many(&p.patch)) {
        return Err(format!("patch.patch.{field}: {message}"));
    }
    if let Some(price) = s.cloud.as_ref().and_then(|c| c.price.as_ref())
        && !(price.factor.is_finite() && price.factor >= 0.0)
    {
        return Err(format!(
            "cloud.price.factor: expected a number of 0 or more, got {}",
            price.factor
        ));
    }
    for (field, target) in [
        ("delete", &s.delete),
        ("rollOut", &s.roll_out),
        ("patch.target", &s.patch.as_ref().map(|p| p.target.clone())),
    ] {
        if let Some(t) = target
            && t.name.is_some() == t.selector.is_some()
        {
            return Err(format!("{field}: expected either a name or a selector"));
        }
    }
    Ok(())
}
