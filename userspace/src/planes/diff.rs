//! What another policy would change.

use std::fmt::Write as _;

use similar::TextDiff;

use super::saved::{Files, Saved};

/// The differences of two policies' files, as `diff -u` writes them, and which
/// sets have other prefixes; empty: none.
pub fn diff(applied: Option<&Saved>, new: &Files, names: [&str; 2]) -> String {
    let none = Files::default();
    let old = applied.map_or(&none, |saved| &saved.files);
    let mut text = TextDiff::from_lines(&old.text, &new.text)
        .unified_diff()
        .header(names[0], names[1])
        .to_string();
    for (path, bytes) in &new.sets {
        let before = old.sets.iter().find(|(name, _)| name == path);
        if before.is_some_and(|(_, before)| before == bytes) {
            continue;
        }
        let lines = |bytes: &[u8]| bytes.split(|byte| *byte == b'\n').count();
        let before = before.map_or(0, |(_, bytes)| lines(bytes));
        let _ = writeln!(
            text,
            "file {}: {} lines, {before} before",
            path.display(),
            lines(bytes)
        );
    }
    text
}
