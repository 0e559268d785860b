//! A frame: what one append wrote, with a checksum over all of it.
//!
//! Each frame says how many entries of each lane came before it. So whoever
//! finds the next good frame behind a hole knows exactly how many entries the
//! hole had.

use std::ops::Range;

use crate::push::Lane;

/// Number of lanes, [`Lane`].
pub const LANES: usize = 3;

/// Numbers by lane.
pub type ByLane = [u64; LANES];

/// What a frame begins with; unlikely in text.
pub const MAGIC: [u8; 4] = [0xb1, 0x6b, 0x6c, 0xd5];

/// Bytes before the body: magic, checksum, length of the body, entries in the
/// frame and before it.
pub const HEADER: usize = 4 + 4 + 4 + 4 * LANES + 8 * LANES;

/// Where the checksum's cover begins.
const COVERED: usize = 8;

/// Most bytes of one entry.
pub const MAX_ENTRY: usize = 1 << 20;

/// A body that has reached so many bytes is closed, so that readers can take
/// batches of about this size.
pub const FULL: usize = 128 << 10;

/// Most bytes of a body: an entry may come when it is almost full.
pub const MAX_BODY: usize = FULL + MAX_ENTRY + 16;

/// Entries of a lane that no spool ever reaches: 20,000 a second for 400 years.
/// More are a damage that a checksum did not show, and would not add up.
pub const NEVER: u64 = 1 << 48;

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    checksum: u32,
    /// Bytes of the body.
    pub length: usize,
    /// Entries in the frame.
    pub entries: ByLane,
    /// Entries since the spool was made, without this frame's.
    pub before: ByLane,
}

impl Header {
    /// Reads a header; `None`: it is none.
    pub fn parse(bytes: &[u8; HEADER]) -> Option<Self> {
        let word = |at: usize| -> u32 {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let length = word(8) as usize;
        let entries = std::array::from_fn(|lane| u64::from(word(12 + 4 * lane)));
        let before: ByLane = std::array::from_fn(|lane| long(12 + 4 * LANES + 8 * lane));
        let possible = length <= MAX_BODY && before.iter().all(|entries| *entries < NEVER);
        (bytes[..4] == MAGIC && possible).then(|| Self {
            checksum: word(4),
            length,
            entries,
            before,
        })
    }

    /// Whether header and body are as they were written.
    pub fn covers(&self, header: &[u8; HEADER], body: &[u8]) -> bool {
        self.checksum == checksum(&header[COVERED..], body)
    }

    /// Entries since the spool was made, with this frame's.
    pub fn after(&self) -> ByLane {
        std::array::from_fn(|lane| self.before[lane] + self.entries[lane])
    }
}

fn checksum(header: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(body);
    hasher.finalize()
}

/// Appends frames with all of `entries`, each of at most [`MAX_ENTRY`] bytes,
/// to `out`, and counts them into `total`.
pub fn write<'a>(
    out: &mut Vec<u8>,
    total: &mut ByLane,
    entries: impl IntoIterator<Item = (Lane, &'a [u8])>,
) {
    let mut start = out.len();
    let mut counts = [0; LANES];
    for (lane, bytes) in entries {
        if out.len() == start {
            out.resize(start + HEADER, 0);
        }
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.push(lane as u8);
        out.extend_from_slice(bytes);
        counts[lane as usize] += 1;
        if out.len() - start - HEADER >= FULL {
            close(&mut out[start..], &counts, total);
            start = out.len();
            counts = [0; LANES];
        }
    }
    if out.len() > start {
        close(&mut out[start..], &counts, total);
    }
}

fn close(frame: &mut [u8], counts: &[u32; LANES], total: &mut ByLane) {
    let (header, body) = frame.split_at_mut(HEADER);
    header[..4].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&(body.len() as u32).to_le_bytes());
    for (lane, count) in counts.iter().enumerate() {
        header[12 + 4 * lane..][..4].copy_from_slice(&count.to_le_bytes());
        header[12 + 4 * LANES + 8 * lane..][..8].copy_from_slice(&total[lane].to_le_bytes());
        total[lane] += u64::from(*count);
    }
    let checksum = checksum(&header[COVERED..], body);
    header[4..8].copy_from_slice(&checksum.to_le_bytes());
}

/// The entries of a body that a checksum covers.
pub fn entries(body: &[u8]) -> impl Iterator<Item = (Lane, Range<usize>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let head = body.get(at..at + 5)?;
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let lane = [Lane::Events, Lane::Journal, Lane::Metrics]
            .into_iter()
            .find(|lane| *lane as u8 == head[4])?;
        let place = at + 5..(at + 5).checked_add(length)?;
        body.get(place.clone())?;
        at = place.end;
        Some((lane, place))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(bytes: &[u8]) -> &[u8; HEADER] {
        bytes.first_chunk().unwrap()
    }

    #[test]
    fn a_frame_says_what_is_in_it_and_came_before() {
        let mut total = [5, 0, 9];
        let mut out = Vec::new();
        let given = [
            (Lane::Metrics, &b"m"[..]),
            (Lane::Events, b""),
            (Lane::Metrics, b"mm"),
        ];
        write(&mut out, &mut total, given);
        let frame = Header::parse(header(&out)).unwrap();
        let body = &out[HEADER..];
        assert!(frame.covers(header(&out), body));
        assert_eq!(frame.length, body.len());
        assert_eq!((frame.before, frame.entries), ([5, 0, 9], [1, 0, 2]));
        assert_eq!((frame.after(), total), ([6, 0, 11], [6, 0, 11]));
        let found: Vec<_> = entries(body).map(|(lane, at)| (lane, &body[at])).collect();
        assert_eq!(found, given);
    }

    #[test]
    fn a_large_append_becomes_several_frames() {
        let mut total = [0; LANES];
        let mut out = Vec::new();
        let entry = vec![7; MAX_ENTRY];
        write(
            &mut out,
            &mut total,
            [
                (Lane::Journal, &entry[..FULL - 6]),
                (Lane::Journal, &entry),
                (Lane::Journal, b"x"),
            ],
        );
        let first = Header::parse(header(&out)).unwrap();
        assert_eq!(first.entries, [0, 2, 0]);
        let second = Header::parse(header(&out[HEADER + first.length..])).unwrap();
        assert_eq!((second.before, second.entries), ([0, 2, 0], [0, 1, 0]));
    }

    #[test]
    fn every_bit_counts() {
        let mut out = Vec::new();
        write(&mut out, &mut [3; LANES], [(Lane::Events, &b"entry"[..])]);
        for bit in 0..out.len() * 8 {
            let mut bad = out.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let good = Header::parse(header(&bad))
                .is_some_and(|frame| frame.covers(header(&bad), &bad[HEADER..]));
            assert!(!good, "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_body_there_is_an_end(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(entries(&body).count() <= body.len());
        }
    }
}
