//! How far a reader is, kept on disk.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

use super::{
    frame::{ByLane, LANES, NEVER},
    segment::START,
};

/// A place in the spool, and what came before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The segment's number.
    pub segment: u64,
    /// Where in its file the next frame begins.
    pub at: u64,
    /// Entries before it.
    pub seen: ByLane,
}

impl Place {
    /// The beginning of a segment.
    pub fn beginning(segment: u64, seen: ByLane) -> Self {
        Self {
            segment,
            at: START,
            seen,
        }
    }
}

/// Numbers in a slot: generation, segment, place in it, entries by lane.
const NUMBERS: usize = 3 + LANES;
const SLOT: usize = 8 * NUMBERS + 4;

/// The file of one reader's place. It has two slots, written in turns and in
/// place: a write that is torn leaves the other, and a full disk does not stop
/// one.
#[derive(Debug)]
pub struct Cursor {
    file: File,
    generation: u64,
}

impl Cursor {
    /// Opens the file, and makes it if there is none. `None`: there was no
    /// place in it.
    pub fn open(path: &Path) -> io::Result<(Self, Option<Place>)> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let newest = [0, 1]
            .into_iter()
            .filter_map(|slot| read(&file, slot))
            .max_by_key(|(generation, _)| *generation);
        let generation = newest.map_or(0, |(generation, _)| generation);
        if newest.is_none() {
            file.write_all_at(&[0; 2 * SLOT], 0)?;
        }
        Ok((Self { file, generation }, newest.map(|(_, place)| place)))
    }

    /// Keeps a place.
    pub fn keep(&mut self, place: &Place) -> io::Result<()> {
        self.generation += 1;
        let mut slot = Vec::with_capacity(SLOT);
        for number in [self.generation, place.segment, place.at]
            .into_iter()
            .chain(place.seen)
        {
            slot.extend_from_slice(&number.to_le_bytes());
        }
        slot.extend_from_slice(&crc32fast::hash(&slot).to_le_bytes());
        let at = self.generation % 2 * SLOT as u64;
        self.file.write_all_at(&slot, at)
    }
}

fn read(file: &File, slot: u64) -> Option<(u64, Place)> {
    let mut bytes = [0; SLOT];
    file.read_exact_at(&mut bytes, slot * SLOT as u64).ok()?;
    let (numbers, checksum) = bytes.split_at(8 * NUMBERS);
    if crc32fast::hash(numbers).to_le_bytes() != checksum {
        return None;
    }
    let number = |index: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&numbers[8 * index..][..8]);
        u64::from_le_bytes(bytes)
    };
    let place = Place {
        segment: number(1),
        at: number(2),
        seen: std::array::from_fn(|lane| number(3 + lane)),
    };
    // A slot of zeros is one that was never written, whatever its checksum.
    let possible = number(0) > 0 && place.seen.iter().all(|entries| *entries < 2 * NEVER);
    possible.then(|| (number(0), place))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(segment: u64) -> Place {
        Place::beginning(segment, [segment, 0, 7])
    }

    #[test]
    fn the_last_place_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("loki.cursor");
        let (mut cursor, found) = Cursor::open(&path).unwrap();
        assert_eq!(found, None);
        for segment in 1..=5 {
            cursor.keep(&place(segment)).unwrap();
            let (other, found) = Cursor::open(&path).unwrap();
            assert_eq!((other.generation, found), (segment, Some(place(segment))));
        }
    }

    #[test]
    fn a_torn_write_leaves_the_place_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("loki.cursor");
        let (mut cursor, _) = Cursor::open(&path).unwrap();
        cursor.keep(&place(1)).unwrap();
        cursor.keep(&place(2)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        // The second went to the first slot.
        for byte in 0..SLOT {
            let mut torn = whole.clone();
            torn[byte] ^= 0x40;
            std::fs::write(&path, torn).unwrap();
            assert_eq!(Cursor::open(&path).unwrap().1, Some(place(1)), "{byte}");
        }
        std::fs::write(&path, &whole[..3]).unwrap();
        assert_eq!(Cursor::open(&path).unwrap().1, None);
    }
}
