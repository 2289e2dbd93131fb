//! The committed tables are those of the committed figures.

use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn each_record_is_read_and_gives_its_table() {
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
    for (figures, table) in [
        ("figures.json", "table.md"),
        (
            "wan-10ms-50mbit-queue-60ms.json",
            "wan-10ms-50mbit-queue-60ms.md",
        ),
        (
            "wan-20ms-200mbit-queue-60ms.json",
            "wan-20ms-200mbit-queue-60ms.md",
        ),
        (
            "wan-100ms-1gbit-queue-60ms.json",
            "wan-100ms-1gbit-queue-60ms.md",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_towline-bench"))
            .arg("--merge")
            .arg(results.join(figures))
            .arg("--results")
            .arg(dir.path())
            .output()
            .unwrap();
        // 1: a cell of Towline failed in that run.
        assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
        for file in [figures, table] {
            let [written, committed] =
                [dir.path(), &results].map(|dir| fs::read_to_string(dir.join(file)).unwrap());
            assert!(written == committed, "{file} is not what the bench writes");
        }
    }
}
