//! The definitions as templates of the `karpenter-crd` chart.

use serde_json::Value;

/// Where a definition's annotations go.
const ANNOTATIONS: &str = "  {{- with .Values.additionalAnnotations }}\n  annotations:\n    {{- toYaml . | nindent 4 }}\n  {{- end }}\n";

/// Name of the template file: `<group>_<plural>.yaml`.
#[must_use]
pub fn file_name(definition: &Value) -> String {
    let part = |path: &str| {
        definition
            .pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    format!(
        "{}_{}.yaml",
        part("/spec/group"),
        part("/spec/names/plural")
    )
}

/// Text of the template: the definition as YAML, with a place for the chart's annotations.
///
/// # Errors
/// When the definition cannot be written as YAML.
pub fn template(definition: &Value) -> Result<String, serde_saphyr::SerializeError> {
    let yaml = serde_saphyr::to_string(definition)?;
    // What Helm would take for an action of its own becomes text of one.
    let yaml = yaml.replace("{{", "{{ `{{` }}");
    let note = "# Written by the tests of the crate that defines the kind, with UPDATE_CRDS=1. Do not edit.\n";
    Ok(format!(
        "{note}{}",
        yaml.replacen("metadata:\n", &format!("metadata:\n{ANNOTATIONS}"), 1)
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn annotations_have_a_place_and_braces_stay_text() {
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "metadata": { "name": "as.g" },
            "spec": { "group": "g", "names": { "plural": "as" }, "pattern": "^{{x$" },
        });
        assert_eq!(file_name(&definition), "g_as.yaml");
        let text = template(&definition).unwrap();
        assert!(
            text.contains("metadata:\n  {{- with .Values.additionalAnnotations }}\n  annotations:"),
            "{text}"
        );
        assert!(text.contains("{{ `{{` }}x$"), "{text}");
    }
}
