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

/// A field that holds a message or a packed list.
pub fn message(out: &mut Vec<u8>, field: u32, body: impl FnOnce(&mut Vec<u8>)) {
    tag(out, field, DELIMITED);
    delimited(out, body);
}

/// What `body` writes, after its length.
pub fn delimited(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    body(out);
    let end = out.len();
    varint(out, (end - start) as u64);
    // The length is known last and belongs first.
    let length_bytes = out.len() - end;
    out[start..].rotate_right(length_bytes);
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
    fn long_messages_keep_their_order() {
        let mut out = vec![9];
        message(&mut out, 1, |out| out.extend(0..200));
        assert_eq!(out[..6], [9, 0x0a, 0xc8, 0x01, 0, 1]);
        assert_eq!(out[203], 199);
        assert_eq!(out.len(), 204);
    }
}
