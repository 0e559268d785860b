//! Where reading goes on: the journal's cursor, kept on disk.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// An entry's place in the journal, as journald names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(String);

/// Longest cursor; systemd's have some 130 bytes.
const LONGEST: usize = 1024;

impl Cursor {
    /// `None`: nothing that journalctl could find an entry by.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"=;-_".contains(byte);
        let good = bytes.len() <= LONGEST && bytes.contains(&b'=') && bytes.iter().all(plain);
        good.then(|| Self(String::from_utf8_lossy(bytes).into_owned()))
    }

    /// For `journalctl --cursor`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn part(&self, name: &str) -> Option<&str> {
        let mut parts = self.0.split(';').filter_map(|part| part.split_once('='));
        parts.find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The sequence of entries, and the number in it, that journald gave.
    fn number(&self) -> Option<(&str, u64)> {
        let number = u64::from_str_radix(self.part("i")?, 16).ok()?;
        Some((self.part("s")?, number))
    }

    /// Whether it is the same entry. When journald moves entries from /run to
    /// /var they get another sequence and number, and keep boot, times and the
    /// hash of what is in them. A number alone is not enough: after a file
    /// system went back to a snapshot, numbers are given a second time.
    pub fn is(&self, other: &Self) -> bool {
        let kept = |name| self.part(name).is_some() && self.part(name) == other.part(name);
        let moved = || self.part("s") != other.part("s");
        self == other || (moved() && ["b", "m", "t", "x"].into_iter().all(kept))
    }

    /// When the entry was written, in microseconds since 1970 (UTC).
    pub fn time_us(&self) -> Option<u64> {
        u64::from_str_radix(self.part("t")?, 16).ok()
    }

    /// Whether journald numbered it after that entry, in one sequence.
    pub fn is_after(&self, before: &Self) -> bool {
        match (self.number(), before.number()) {
            (Some((one, number)), Some((other, before))) => one == other && number > before,
            _ => false,
        }
    }

    /// Entries that were between this and the later `next`, where both are of
    /// one sequence.
    pub fn between(&self, next: &Self) -> Option<u64> {
        let ((one, number), (other, next)) = (self.number()?, next.number()?);
        (one == other).then(|| next.saturating_sub(number).saturating_sub(1))
    }
}

/// What is to be read first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The oldest entry that there is.
    Oldest,
    /// What follows this entry.
    Behind(Cursor),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Oldest => OLDEST,
            Self::Behind(cursor) => cursor.as_str(),
        })
    }
}

const OLDEST: &str = "oldest";

/// What [`Store::load`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// Nothing was ever kept.
    Nothing,
    /// A place.
    Kept(Place),
    /// A file that cannot be read, or holds something else.
    Damaged(String),
}

/// The file with the place and its checksum: one changed digit would be
/// another place.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
}

impl Store {
    /// A place kept in this file.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// What is kept.
    pub fn load(&self) -> Loaded {
        let mut text = String::new();
        let limit = LONGEST as u64 + 64;
        let read =
            File::open(&self.path).and_then(|file| file.take(limit).read_to_string(&mut text));
        match read {
            Ok(_) => parse(&text).map_or_else(
                || Loaded::Damaged("it holds no cursor".to_owned()),
                Loaded::Kept,
            ),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Loaded::Nothing,
            Err(error) => Loaded::Damaged(error.to_string()),
        }
    }

    /// Replaces the file as a whole: it holds the place before or this one,
    /// also after the machine lost its power.
    pub fn save(&self, place: &Place) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        let new = self.path.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        let text = place.to_string();
        file.write_all(format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes())).as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        File::open(directory)?.sync_all()
    }
}

fn parse(text: &str) -> Option<Place> {
    let (text, checksum) = text.strip_suffix('\n')?.split_once(' ')?;
    if format!("{:08x}", crc32fast::hash(text.as_bytes())) != checksum {
        return None;
    }
    match text {
        OLDEST => Some(Place::Oldest),
        text => Cursor::new(text.as_bytes()).map(Place::Behind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURSOR: &str = "s=ce123c4f7f9548aeb104ed7ef1f7c3b6;i=1f;\
        b=0123456789abcdef0123456789abcdef;m=3e8;t=60a24181e4000;x=3eaf06ce30a0e3cc";

    fn cursor(text: &str) -> Cursor {
        Cursor::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn an_entry_is_known_again_where_journald_moved_it() {
        let one = cursor(CURSOR);
        assert!(one.is(&cursor(CURSOR)));
        let moved = CURSOR.replace("s=ce", "s=cf").replace("i=1f", "i=3");
        assert!(one.is(&cursor(&moved)) && cursor(&moved).is(&one));
        for (part, other) in [("m=3e8", "m=3e9"), ("x=3eaf", "x=3eae"), ("b=01", "b=02")] {
            assert!(!one.is(&cursor(&moved.replace(part, other))), "{part}");
        }
        assert!(!one.is(&cursor("s=cf;i=1f")));
    }

    #[test]
    fn a_number_that_is_given_again_is_another_entry() {
        let one = cursor(CURSOR);
        assert!(!one.is(&cursor(
            &CURSOR.replace("t=60a24181e4000", "t=60a24181e4001")
        )));
    }

    #[test]
    fn entries_in_between_are_known_within_a_sequence() {
        let one = cursor(CURSOR);
        let later = cursor(&CURSOR.replace("i=1f", "i=2a"));
        assert!(!one.is(&later));
        assert_eq!(one.between(&later), Some(10));
        assert_eq!(later.between(&one), Some(0));
        assert!(later.is_after(&one) && !one.is_after(&later) && !one.is_after(&one));
        assert_eq!(one.between(&cursor(&CURSOR.replace("s=ce", "s=cf"))), None);
    }

    #[test]
    fn its_time_is_in_it() {
        assert_eq!(cursor(CURSOR).time_us(), Some(1_700_000_000_000_000));
        assert_eq!(cursor("i=1").time_us(), None);
    }

    #[test]
    fn only_what_looks_like_a_cursor_is_one() {
        for bad in [
            &b""[..],
            b"nothing",
            b"s=1 --flag",
            b"s=\xff",
            &[b'='; 2000],
        ] {
            assert_eq!(Cursor::new(bad), None);
        }
    }

    #[test]
    fn what_is_kept_is_found_again_and_damage_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.cursor");
        let store = Store::new(path.clone());
        assert_eq!(store.load(), Loaded::Nothing);
        for place in [Place::Oldest, Place::Behind(cursor(CURSOR))] {
            store.save(&place).unwrap();
            assert_eq!(store.load(), Loaded::Kept(place));
        }
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).unwrap();
            assert!(matches!(store.load(), Loaded::Damaged(_)), "{at}");
            fs::write(&path, &whole[..at]).unwrap();
            assert!(matches!(store.load(), Loaded::Damaged(_)), "{at}");
        }
        // Neither what was left of a write that was interrupted.
        fs::write(directory.path().join("journal.new"), "s=1").unwrap();
        store.save(&Place::Oldest).unwrap();
        assert_eq!(store.load(), Loaded::Kept(Place::Oldest));
    }
}
