//! Any order of doings, held against a list in memory.

use std::collections::VecDeque;

use kldtrace_exporters::{push::Lane, spool::Batch};
use proptest::prelude::*;

use super::{ALL, append, number, open, standing};

#[derive(Clone, Debug)]
enum Doing {
    Append(u64, usize),
    Read(usize),
    Restart,
}

fn doing() -> impl Strategy<Value = Doing> {
    prop_oneof![
        4 => (1..20u64, 10..60_000usize).prop_map(|(count, length)| Doing::Append(count, length)),
        3 => (1..1_000_000usize).prop_map(Doing::Read),
        1 => Just(Doing::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn it_is_a_queue(doings in proptest::collection::vec(doing(), 1..60)) {
        let directory = tempfile::tempdir().unwrap();
        let (mut spool, mut reader) = open(directory.path(), ALL);
        let mut expected = VecDeque::new();
        let mut next = 0;
        let mut dropped = 0;
        let mut batch = Batch::default();
        for doing in doings {
            match doing {
                Doing::Append(count, length) => {
                    append(&spool, Lane::Events, next..next + count, length);
                    expected.extend(next..next + count);
                    next += count;
                }
                Doing::Read(bytes) => {
                    reader.read(bytes, &mut batch).unwrap();
                    for entry in batch.entries() {
                        prop_assert_eq!(Some(number(entry.bytes)), expected.pop_front());
                    }
                    reader.acknowledge();
                }
                Doing::Restart => {
                    drop((spool, reader));
                    (spool, reader) = open(directory.path(), ALL);
                    dropped = 0;
                }
            }
            for _ in dropped..standing(&spool).dropped {
                expected.pop_front();
            }
            dropped = standing(&spool).dropped;
            prop_assert_eq!(standing(&spool).waiting, expected.len() as u64);
        }
        prop_assert_eq!(standing(&spool).damaged, 0);
    }
}
