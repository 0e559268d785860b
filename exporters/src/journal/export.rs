//! The journal export format, read piece by piece: what `journalctl
//! --output=export` writes.
//!
//! An entry is lines `NAME=value`; a value with a newline or a byte that is no
//! text comes as `NAME`, a newline, its length in 64 bits little-endian, its
//! bytes and a newline. An empty line ends the entry.
//! <https://systemd.io/JOURNAL_EXPORT_FORMATS/#journal-export-format>

use super::fields::{CURSOR, CURSOR_NAME, FIELDS, MESSAGE, place};

/// Longest name of a field: systemd's own limit.
const NAME: usize = 64;

/// Longest value that is passed over; systemd takes 768 MiB at most. A length
/// above is none.
const LONGEST: u64 = 1 << 30;

/// What an entry begins with after the one before it.
const BEGINNING: &[u8] = b"\n\n__CURSOR=";

/// One entry: those of its fields that are in [`FIELDS`]. Of a field that is
/// there more than once, the first counts.
#[derive(Debug)]
pub struct Entry {
    values: Vec<Vec<u8>>,
    present: Vec<bool>,
    /// A field was longer than its room.
    pub cut: bool,
    /// Bytes of the message beyond its room.
    pub message_over: u64,
}

impl Entry {
    fn new() -> Self {
        Self {
            values: vec![Vec::new(); FIELDS.len()],
            present: vec![false; FIELDS.len()],
            cut: false,
            message_over: 0,
        }
    }

    /// The value of the field at this place in [`FIELDS`].
    pub fn at(&self, index: usize) -> Option<&[u8]> {
        self.present[index].then(|| &self.values[index][..])
    }

    /// The value of a field by its name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.at(place(name.as_bytes())?)
    }

    fn clear(&mut self) {
        self.values.iter_mut().for_each(Vec::clear);
        self.present.fill(false);
        self.cut = false;
        self.message_over = 0;
    }

    fn append(&mut self, slot: Option<usize>, bytes: &[u8]) {
        let Some(slot) = slot else { return };
        let room = FIELDS[slot].room - self.values[slot].len();
        let kept = room.min(bytes.len());
        self.values[slot].extend_from_slice(&bytes[..kept]);
        let over = bytes.len() - kept;
        self.cut |= over > 0;
        if slot == MESSAGE {
            self.message_over += over as u64;
        }
    }
}

/// What the next byte belongs to. `slot`: the field's place in [`FIELDS`], if
/// it is kept.
#[derive(Clone, Copy, Debug)]
enum State {
    /// A field's name, or the empty line.
    Name,
    /// A value up to the end of the line.
    Text { slot: Option<usize> },
    /// The length of a value: so many bytes of it are known.
    Length {
        slot: Option<usize>,
        known: u32,
        length: u64,
    },
    /// A value, of which so many bytes are to come.
    Binary { slot: Option<usize>, left: u64 },
    /// The newline behind such a value.
    Newline,
    /// Nothing that is understood, until an entry begins: so many bytes of
    /// [`BEGINNING`] were just there.
    Lost { matched: usize },
}

/// Reads a stream of entries, of which any part may come at any time. Never
/// holds more than the fields' rooms.
#[derive(Debug)]
pub struct Parser {
    state: State,
    name: Vec<u8>,
    entry: Entry,
    /// The entry was given out.
    complete: bool,
    /// Fields of this entry so far, also those that are not kept.
    any: bool,
    /// How often the stream was not understood, and the next entry looked for.
    pub resyncs: u64,
}

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

impl Parser {
    /// One at the beginning of a stream.
    pub fn new() -> Self {
        Self {
            state: State::Name,
            name: Vec::with_capacity(NAME),
            entry: Entry::new(),
            complete: false,
            any: false,
            resyncs: 0,
        }
    }

    /// Forgets what was begun: another stream comes.
    pub fn restart(&mut self) {
        self.state = State::Name;
        self.begin();
    }

    /// Takes from `input` up to the end of the next entry, or all of it if
    /// there is none. After an entry, call again for what is left.
    pub fn next(&mut self, input: &mut &[u8]) -> Option<&Entry> {
        if self.complete {
            self.begin();
        }
        while !input.is_empty() && !self.complete {
            let taken = self.step(input);
            *input = &input[taken..];
        }
        self.complete.then_some(&self.entry)
    }

    fn begin(&mut self) {
        self.entry.clear();
        self.name.clear();
        self.complete = false;
        self.any = false;
    }

    /// Takes at least one byte, and says how many.
    fn step(&mut self, input: &[u8]) -> usize {
        match self.state {
            State::Name => {
                self.name_byte(input[0]);
                1
            }
            State::Text { slot } => {
                let end = input.iter().position(|byte| *byte == b'\n');
                self.entry
                    .append(slot, &input[..end.unwrap_or(input.len())]);
                if end.is_some() {
                    self.state = State::Name;
                }
                end.map_or(input.len(), |end| end + 1)
            }
            State::Length {
                slot,
                known,
                length,
            } => {
                let length = length | u64::from(input[0]) << (8 * known);
                self.state = match known + 1 {
                    8 if length > LONGEST => return self.lose(input[0]),
                    8 if length == 0 => State::Newline,
                    8 => State::Binary { slot, left: length },
                    known => State::Length {
                        slot,
                        known,
                        length,
                    },
                };
                1
            }
            State::Binary { slot, left } => {
                let taken = left.min(input.len() as u64);
                self.entry.append(slot, &input[..taken as usize]);
                self.state = match left - taken {
                    0 => State::Newline,
                    left => State::Binary { slot, left },
                };
                taken as usize
            }
            State::Newline if input[0] == b'\n' => {
                self.state = State::Name;
                1
            }
            State::Newline => self.lose(input[0]),
            State::Lost { matched } => {
                self.look(matched, input[0]);
                1
            }
        }
    }

    fn name_byte(&mut self, byte: u8) {
        match byte {
            b'\n' if self.name.is_empty() => {
                // Empty lines between entries are none.
                self.complete = self.any;
            }
            b'=' | b'\n' if !self.name.is_empty() => {
                let slot = self.field();
                self.state = match byte {
                    b'=' => State::Text { slot },
                    _ => State::Length {
                        slot,
                        known: 0,
                        length: 0,
                    },
                };
            }
            b'A'..=b'Z' | b'0'..=b'9' | b'_' if self.name.len() < NAME => self.name.push(byte),
            _ => {
                self.lose(byte);
            }
        }
    }

    /// The field with the name that was read; none if it is not kept.
    fn field(&mut self) -> Option<usize> {
        let slot = place(&self.name).filter(|slot| !self.entry.present[*slot]);
        self.name.clear();
        self.any = true;
        if let Some(slot) = slot {
            self.entry.present[slot] = true;
        }
        slot
    }

    fn lose(&mut self, byte: u8) -> usize {
        self.resyncs += 1;
        self.begin();
        self.state = State::Lost {
            matched: usize::from(byte == b'\n'),
        };
        1
    }

    fn look(&mut self, matched: usize, byte: u8) {
        let matched = match byte {
            _ if byte == BEGINNING[matched] => matched + 1,
            // Of three newlines, the last two may be the beginning.
            b'\n' if matched == 2 => 2,
            b'\n' => 1,
            _ => 0,
        };
        self.state = State::Lost { matched };
        if matched == BEGINNING.len() {
            self.begin();
            self.name.extend_from_slice(CURSOR_NAME.as_bytes());
            let slot = self.field();
            debug_assert_eq!(slot, Some(CURSOR));
            self.state = State::Text { slot };
        }
    }
}

#[cfg(test)]
mod tests;
