//! Which columns each kind has.

use crate::crd::Column;
use crate::ops::Target;

fn column(name: &str, kind: &str, priority: i64) -> Column {
    Column {
        name: name.to_owned(),
        kind: kind.to_owned(),
        format: if name == "Name" {
            "name".to_owned()
        } else {
            String::new()
        },
        description: String::new(),
        priority,
        json_path: String::new(),
    }
}

/// Columns of a resource; the first is always the name.
#[must_use]
pub fn of(target: &Target) -> Vec<Column> {
    let mut columns = vec![column("Name", "string", 0)];
    let custom = target
        .version_info()
        .map(|v| v.columns.as_slice())
        .unwrap_or_default();
    if custom.is_empty() {
        columns.push(column("Age", "string", 0));
    } else {
        columns.extend(custom.iter().cloned());
    }
    columns
}
