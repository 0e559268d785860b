use proptest::prelude::*;

use super::*;

type Fields = Vec<(&'static str, Vec<u8>)>;

/// What comes out when the stream arrives in pieces of these sizes.
fn read(stream: &[u8], pieces: impl IntoIterator<Item = usize>) -> (Vec<Fields>, u64) {
    let mut parser = Parser::new();
    let mut entries = Vec::new();
    let mut rest = stream;
    for size in pieces.into_iter().chain([usize::MAX]) {
        let (mut piece, after) = rest.split_at(size.min(rest.len()));
        rest = after;
        while let Some(entry) = parser.next(&mut piece) {
            let fields = FIELDS.iter().enumerate().filter_map(|(index, field)| {
                let value = entry.at(index)?;
                Some((field.name, value.to_vec()))
            });
            entries.push(fields.collect());
        }
        assert!(piece.is_empty());
    }
    (entries, parser.resyncs)
}

/// The format as its description has it, written by other code.
fn write(fields: &[(String, Vec<u8>)], out: &mut Vec<u8>) {
    for (name, value) in fields {
        out.extend_from_slice(name.as_bytes());
        if value.iter().any(|byte| *byte < b' ') || std::str::from_utf8(value).is_err() {
            out.push(b'\n');
            out.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            out.push(b'=');
        }
        out.extend_from_slice(value);
        out.push(b'\n');
    }
    out.push(b'\n');
}

fn field(name: &str, value: &[u8]) -> (String, Vec<u8>) {
    (name.to_owned(), value.to_vec())
}

fn two() -> Vec<u8> {
    let mut stream = Vec::new();
    for message in [&b"first"[..], b"\n\n__CURSOR=no\n\n\0\xff=\n"] {
        let fields = [
            field(CURSOR_NAME, b"s=1;i=2"),
            field("_PID", b"7"),
            field("IGNORED", b"line\nline"),
            field("MESSAGE", message),
            field("MESSAGE", b"a second"),
            field("_COMM", b""),
        ];
        write(&fields, &mut stream);
    }
    stream
}

#[test]
fn an_entry_is_the_same_wherever_it_is_split() {
    let stream = two();
    let (whole, resyncs) = read(&stream, []);
    assert_eq!((whole.len(), resyncs), (2, 0));
    assert_eq!(
        whole[1],
        [
            (CURSOR_NAME, b"s=1;i=2".to_vec()),
            ("MESSAGE", b"\n\n__CURSOR=no\n\n\0\xff=\n".to_vec()),
            ("_PID", b"7".to_vec()),
            ("_COMM", Vec::new()),
        ]
    );
    for at in 0..stream.len() {
        assert_eq!(read(&stream, [at]), (whole.clone(), 0), "{at}");
    }
    assert_eq!(read(&stream, vec![1; stream.len()]), (whole, 0));
}

#[test]
fn what_is_longer_than_its_room_is_cut_and_the_rest_is_whole() {
    for long in [vec![b'x'; 5 << 20], b"x\n".repeat(1 << 20)] {
        let mut stream = Vec::new();
        let fields = [field("MESSAGE", &long), field("_PID", b"7")];
        write(&fields, &mut stream);
        let mut input = &stream[..];
        let mut parser = Parser::new();
        let entry = parser.next(&mut input).unwrap();
        let message = entry.get("MESSAGE").unwrap();
        assert!(long.starts_with(message));
        assert_eq!(message.len(), FIELDS[place(b"MESSAGE").unwrap()].room);
        assert_eq!((entry.get("_PID"), entry.cut), (Some(&b"7"[..]), true));
        assert!(parser.next(&mut input).is_none());
    }
}

#[test]
fn after_nonsense_the_next_entry_is_found() {
    for nonsense in [
        &b"a line of text\n"[..],
        b"=value\n",
        b"MESSAGE\n\xff\xff\xff\xff\xff\xff\xff\xff",
        b"MESSAGE\n\x01\0\0\0\0\0\0\0ab",
        &[b'A'; 65],
    ] {
        let mut stream = two();
        stream.extend_from_slice(nonsense);
        stream.extend_from_slice(b"\n\n\n");
        stream.extend_from_slice(&two());
        let (entries, resyncs) = read(&stream, []);
        let length = entries.len();
        assert_eq!((length, resyncs), (4, 1), "{nonsense:?}");
        assert_eq!(entries[..2], entries[2..]);
    }
}

#[test]
fn another_stream_begins_anew() {
    let stream = two();
    let (whole, _) = read(&stream, []);
    for end in 0..stream.len() / 2 {
        let mut parser = Parser::new();
        let mut begun = &stream[..end];
        while parser.next(&mut begun).is_some() {}
        parser.restart();
        let entry = parser.next(&mut &stream[..]).unwrap();
        assert_eq!(entry.get("MESSAGE"), Some(&whole[0][1].1[..]));
    }
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[ -~é]{0,20}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..40),
        // What the format itself is made of.
        proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'='), Just(b'A')], 0..20),
    ]
}

proptest! {
    #[test]
    fn what_was_written_is_read(
        entries in proptest::collection::vec(
            proptest::collection::btree_map("[A-Z_]{1,12}|MESSAGE|_COMM|__CURSOR", value(), 1..6),
            0..5,
        ),
        pieces in proptest::collection::vec(1usize..50, 0..20),
    ) {
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for entry in &entries {
            let fields: Vec<_> = entry.clone().into_iter().collect();
            write(&fields, &mut stream);
            let kept = FIELDS.iter().filter_map(|field| {
                Some((field.name, entry.get(field.name)?.clone()))
            });
            expected.push(kept.collect::<Fields>());
        }
        prop_assert_eq!(read(&stream, pieces), (expected, 0));
    }

    #[test]
    fn whatever_comes_it_goes_on(
        tokens in proptest::collection::vec(
            prop_oneof![
                Just(b"\n".to_vec()), Just(b"=".to_vec()), Just(b"MESSAGE".to_vec()),
                Just(b"__CURSOR=".to_vec()), Just(b"\x03\0\0\0\0\0\0\0".to_vec()),
                proptest::collection::vec(any::<u8>(), 0..12),
            ],
            0..60,
        ),
        pieces in proptest::collection::vec(1usize..20, 0..40),
    ) {
        let stream = tokens.concat();
        let whole = read(&stream, []);
        prop_assert_eq!(read(&stream, pieces), whole);
    }
}
