//! Tests on the live kernel: a known thing is made to happen and must be found
//! in the numbers, against a source that is not ours.
//!
//! They need root and run one after the other (`--test-threads=1`): they
//! measure the machine that they run on.

#[path = "../../../exporters/tests/tls/authority.rs"]
mod authority;
#[path = "../planes/beside.rs"]
mod beside;
mod block;
mod btf;
mod common;
mod compared;
mod daemon;
mod dashboards;
mod digested;
mod digests;
mod disk;
#[path = "../../../exporters/tests/loki/double.rs"]
#[expect(dead_code, reason = "what the tests of Loki itself ask")]
mod double;
mod end;
mod export;
mod faults;
mod growth;
mod held;
mod input;
mod journal;
#[path = "../../../exporters/tests/journal/journald.rs"]
#[expect(dead_code, reason = "what the tests of the journal itself ask")]
mod journald;
mod load;
mod mayflies;
mod net;
mod own;
mod paging;
#[path = "../planes/pair.rs"]
mod pair;
mod prometheus;
mod pushes;
mod rotel;
mod sched;
mod serving;
mod synthetic;
mod tcp;
mod tls;
mod tool;
mod unseen;
