//! Protobuf's wire format, as far as what is exported needs it.
//!
//! <https://protobuf.dev/programming-guides/encoding/>

/// A varint follows the tag.
const VARINT: u64 = 0;
/// Eight bytes follow the tag.
const FIXED_64: u64 = 1;
/// A length and as many bytes follow the tag.
const DELIMITED: u64 = 2;

/// Seven bits to a byte, the lowest first; the top bit says that more follow.
pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Folds the sign into the lowest bit, so that small numbers stay short.
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn tag(out: &mut Vec<u8>, field: u32, wire_type: u64) {
    varint(out, u64::from(field) << 3 | wire_type);
}

/// A field of type uint32, uint64, sint (after [`zigzag`]) or enum.
pub fn integer(out: &mut Vec<u8>, field: u32, value: u64) {
    tag(out, field, VARINT);
    varint(out, value);
}

/// A field of type double.
pub fn double(out: &mut Vec<u8>, field: u32, value: f64) {
    tag(out, field, FIXED_64);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A field of type string.
pub fn string(out: &mut Vec<u8>, field: u32, value: &str) {
    tag(out, field, DELIMITED);
    varint(out, value.len() as u64);
    out.extend_from_slice(value.as_bytes());
}

/// A field that holds a message or a packed list, mostly of less than 128 bytes.
pub fn message(out: &mut Vec<u8>, field: u32, body: impl FnOnce(&mut Vec<u8>)) {
    sized_message(out, field, 1, body);
}

/// The same, of which the length mostly takes `room` bytes, 1 to 10.
pub fn sized_message(out: &mut Vec<u8>, field: u32, room: usize, body: impl FnOnce(&mut Vec<u8>)) {
    tag(out, field, DELIMITED);
    delimited(out, room, body);
}

/// What `body` writes, after its length, which mostly takes `room` bytes.
///
/// The length is known last and belongs first: where it needs more or less than
/// its room, all that follows is moved.
pub fn delimited(out: &mut Vec<u8>, room: usize, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.resize(start + room, 0);
    body(out);
    let length = out.len() - start - room;
    let needed = varint_length(length as u64);
    if needed != room {
        out.resize(start + needed.max(room) + length, 0);
        out.copy_within(start + room..start + room + length, start + needed);
        out.truncate(start + needed + length);
    }
    let mut rest = length;
    for byte in &mut out[start..start + needed - 1] {
        *byte = rest as u8 | 0x80;
        rest >>= 7;
    }
    out[start + needed - 1] = rest as u8;
}

/// How many bytes [`varint`] writes: 1 to 10.
pub fn varint_length(value: u64) -> usize {
    (value | 1).ilog2() as usize / 7 + 1
}

/// Writes many small things into room that was made before: each costs a store or
/// two, where a vector that grows asks for its capacity each time.
pub struct Cursor<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Cursor<'_> {
    /// Room for a varint: the longest takes 10 bytes.
    pub const VARINT: usize = 10;

    /// Lets `body` write to the end of `out`, into room of `most` bytes.
    ///
    /// # Panics
    /// When that is too little. Each varint needs room of [`Self::VARINT`] bytes
    /// from where it begins, however many it takes.
    pub fn append(out: &mut Vec<u8>, most: usize, body: impl FnOnce(&mut Cursor<'_>)) {
        let start = out.len();
        out.resize(start + most, 0);
        let mut cursor = Cursor {
            out: &mut out[start..],
            at: 0,
        };
        body(&mut cursor);
        let end = start + cursor.at;
        out.truncate(end);
    }

    /// Some bytes as they are.
    pub fn bytes<const N: usize>(&mut self, bytes: [u8; N]) {
        self.out[self.at..self.at + N].copy_from_slice(&bytes);
        self.at += N;
    }

    /// The same as [`varint`] writes, for all but the longest without a loop, of
    /// which the processor would have to guess the end.
    pub fn varint(&mut self, value: u64) {
        let length = varint_length(value);
        if value < 1 << 56 {
            // Two halves of 28 bits, four quarters of 14, eight bytes of 7.
            let halves = (value & !0xfff_ffff) << 4 | value & 0xfff_ffff;
            let quarters = (halves & 0x0fff_c000_0fff_c000) << 2 | halves & 0x0000_3fff_0000_3fff;
            let bytes = (quarters & 0x3f80_3f80_3f80_3f80) << 1 | quarters & 0x007f_007f_007f_007f;
            // All but the last have their top bit set.
            let more = 0x0080_8080_8080_8080 & ((1 << (8 * (length - 1))) - 1);
            self.out[self.at..self.at + 8].copy_from_slice(&(bytes | more).to_le_bytes());
        } else {
            let mut rest = value;
            for byte in &mut self.out[self.at..self.at + length] {
                *byte = rest as u8 | 0x80;
                rest >>= 7;
            }
            self.out[self.at + length - 1] &= 0x7f;
        }
        self.at += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_and_zigzag_are_as_documented() {
        let bytes = |value| {
            let mut out = Vec::new();
            varint(&mut out, value);
            out
        };
        assert_eq!(bytes(0), [0]);
        assert_eq!(bytes(127), [0x7f]);
        assert_eq!(bytes(150), [0x96, 0x01]);
        assert_eq!(bytes(u64::MAX).len(), 10);
        assert_eq!([0, -1, 1, -2].map(zigzag), [0, 1, 2, 3]);
        assert_eq!([i64::MAX, i64::MIN].map(zigzag), [u64::MAX - 1, u64::MAX]);
    }

    #[test]
    fn the_cursor_writes_the_same_varints() {
        let powers = (0..64).map(|power| 1_u64 << power);
        let values = powers.flat_map(|power| [power - 1, power, power + 1, power | 0x55]);
        for value in values.chain([u64::MAX]) {
            let (mut expected, mut out) = (vec![9], vec![9]);
            varint(&mut expected, value);
            assert_eq!(expected.len() - 1, varint_length(value), "{value}");
            Cursor::append(&mut out, Cursor::VARINT, |out| out.varint(value));
            assert_eq!(out, expected, "{value}");
        }
    }

    #[test]
    fn any_room_for_a_length_comes_out_right() {
        for length in [0_u32, 1, 127, 128, 16_383, 16_384] {
            let body: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            let mut expected = vec![9];
            varint(&mut expected, u64::from(length));
            expected.extend_from_slice(&body);
            for room in 1..=10 {
                let mut out = vec![9];
                delimited(&mut out, room, |out| out.extend_from_slice(&body));
                assert!(out == expected, "{length} in {room}");
            }
        }
    }

    #[test]
    fn long_messages_keep_their_order() {
        let mut out = vec![9];
        message(&mut out, 1, |out| out.extend(0..200));
        assert_eq!(out[..6], [9, 0x0a, 0xc8, 0x01, 0, 1]);
        assert_eq!(out[203], 199);
        assert_eq!(out.len(), 204);
    }
}
