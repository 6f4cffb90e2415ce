//! The table of types is what the real types are, where there are any (`just conformance`).

use std::path::Path;
use std::process::Command;

#[test]
fn the_table_is_that_of_the_real_types() {
    let Some(judge) = std::env::var_os("LOCAL_CONTROL_PLANE") else {
        return;
    };
    let output = Command::new(judge).arg("types").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let real = String::from_utf8(output.stdout).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/wire/types.txt");
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(&file, &real).unwrap();
    }
    let ours = std::fs::read_to_string(&file).unwrap();
    assert!(
        ours == real,
        "types.txt is not what the real types are: UPDATE_GOLDENS=1 rewrites it"
    );
}
