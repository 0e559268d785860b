//! Writing files into a folder that others write to as well.

use std::{fs, io::ErrorKind, path::Path};

use anyhow::{Context as _, Result, bail};

/// How a file of ours begins, where it can have a comment.
const MARK: &str = "# Written by kldtrace ";
/// The same as the first key of an object in JSON, which has no comments.
const JSON_MARK: &str = "  \"__kldtrace\": \"Written by kldtrace ";
/// What stands before the checksum of all that follows the marked line.
const SUM: &str = ", sum ";

/// A text with a first line that says who wrote it, with which command, and by
/// a checksum whether somebody has changed it since.
pub fn marked(command: &str, text: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    if let Some(rest) = text.strip_prefix("{\n") {
        let sum = crc32fast::hash(rest.as_bytes());
        return format!("{{\n{JSON_MARK}{version} ({command}){SUM}{sum:08x}\",\n{rest}");
    }
    let text = format!("# The same command writes over it, unless it was changed by hand.\n{text}");
    let sum = crc32fast::hash(text.as_bytes());
    format!("{MARK}{version} ({command}){SUM}{sum:08x}\n{text}")
}

/// Whether a file is as [`marked`] made it.
fn is_ours(file: &[u8]) -> bool {
    let parse = || {
        let (file, mark, end_of_sum) = match file.strip_prefix(b"{\n") {
            Some(rest) => (rest, JSON_MARK, "\","),
            None => (file, MARK, ""),
        };
        let end = file.iter().position(|&byte| byte == b'\n')?;
        let first = std::str::from_utf8(&file[..end]).ok()?;
        let (_, sum) = first.strip_prefix(mark)?.rsplit_once(SUM)?;
        let sum = u32::from_str_radix(sum.strip_suffix(end_of_sum)?, 16).ok()?;
        Some(sum == crc32fast::hash(&file[end + 1..]))
    };
    parse() == Some(true)
}

/// Writes all files, or none if one would be lost that is not ours; says on
/// standard output where they are. A name may have folders in it.
///
/// # Errors
/// When something else is there and `force` is not said, and when the folder
/// or a file cannot be written.
pub fn write(folder: &Path, files: &[(impl AsRef<Path>, String)], force: bool) -> Result<()> {
    for (name, text) in files {
        let path = folder.join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        if !force && !is_replaceable(&path, text)? {
            bail!(
                "{} is there already, and not as kldtrace wrote it: nothing is written \
                 (--force writes over it)",
                path.display()
            );
        }
    }
    for (name, text) in files {
        let path = folder.join(name);
        replace(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

/// Whether nothing is lost when the text is written there.
fn is_replaceable(path: &Path, text: &str) -> Result<bool> {
    match fs::read(path) {
        Ok(old) => Ok(is_ours(&old) || old == text.as_bytes()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).with_context(|| format!("cannot look at {}", path.display())),
    }
}

/// Whoever reads may do so at any moment: they see the old or the new.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".kldtrace-new");
    fs::write(&name, text)?;
    fs::rename(&name, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_stays() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let ours = |text: &str| [("a.yml", marked("x", text)), ("b.yml", marked("x", ""))];
        write(folder, &ours("1"), false).unwrap();
        // Our own is replaced.
        write(folder, &ours("2"), false).unwrap();
        assert!(
            fs::read_to_string(folder.join("a.yml"))
                .unwrap()
                .ends_with('2')
        );

        fs::write(folder.join("b.yml"), "groups: []").unwrap();
        fs::write(folder.join("c.yml"), "groups: []").unwrap();
        let error = write(folder, &ours("3"), false).unwrap_err().to_string();
        assert!(error.contains("b.yml is there already"), "{error}");
        // Not even the file before it is written.
        assert!(
            fs::read_to_string(folder.join("a.yml"))
                .unwrap()
                .ends_with('2')
        );

        write(folder, &ours("3"), true).unwrap();
        assert!(
            fs::read_to_string(folder.join("a.yml"))
                .unwrap()
                .ends_with('3')
        );
        assert_eq!(fs::read(folder.join("c.yml")).unwrap(), b"groups: []");
        assert_eq!(fs::read_dir(folder).unwrap().count(), 3);
    }

    #[test]
    fn json_has_its_mark_inside() {
        let folder = tempfile::tempdir().unwrap();
        let text = marked("x", "{\n  \"a\": 1\n}\n");
        let model: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(model["a"], 1);
        assert!(is_ours(text.as_bytes()));
        for changed in [
            text.replace("1\n}", "2\n}"),
            text.replace(SUM, ""),
            "{\n}".to_owned(),
        ] {
            assert!(!is_ours(changed.as_bytes()));
        }
        let files = [("below/deeper/a.json", text)];
        write(folder.path(), &files, false).unwrap();
        write(folder.path(), &files, false).unwrap();
    }

    #[test]
    fn what_was_changed_by_hand_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yml");
        let text = marked("x", "a: 1\n");
        assert!(is_ours(text.as_bytes()));
        for changed in [
            text.replace("a: 1", "a: 2"),
            format!("{text}b: 1\n"),
            text.replace(SUM, ""),
            MARK.to_owned(),
        ] {
            assert!(!is_ours(changed.as_bytes()));
            fs::write(&path, &changed).unwrap();
            write(folder.path(), &[("a.yml", text.clone())], false).unwrap_err();
            assert_eq!(fs::read_to_string(&path).unwrap(), changed);
        }
    }

    #[test]
    fn a_folder_in_the_place_of_a_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("a.yml")).unwrap();
        let files = [("a.yml", marked("x", ""))];
        assert!(write(folder.path(), &files, false).is_err());
        assert!(write(folder.path(), &files, true).is_err());
    }
}
