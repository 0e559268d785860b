//! No BTF, or BTF that is cut off or garbled: a reason for every signal, and
//! never a panic.

use std::{fs, sync::LazyLock};

use kldtrace::{
    catalogue,
    kernel::{
        btf::Btf,
        loader::{self, Availability, Options, VMLINUX_BTF},
        object::NODE,
    },
};
use proptest::prelude::*;

use super::common::root;

static BTF: LazyLock<Vec<u8>> = LazyLock::new(|| fs::read(VMLINUX_BTF).unwrap_or_default());

/// Resolves what the probes want; only that it ends counts.
fn resolve(bytes: Vec<u8>) -> bool {
    let Ok(btf) = Btf::parse(bytes) else {
        return false;
    };
    let fields: [(&str, &[&str]); 4] = [
        ("request", &["start_time_ns"]),
        ("task_struct", &["se", "cfs_rq"]),
        ("sock", &["__sk_common", "skc_family"]),
        ("no_such_struct", &["x"]),
    ];
    let found = fields.map(|(of, path)| btf.offset_of(of, path).is_ok());
    let _ = btf.tracepoint_arguments("sched_switch");
    let _ = btf.function_arguments("inet_csk_accept");
    let _ = btf.enumerator("__RQF_FLUSH_SEQ");
    found == [true, true, true, false]
}

/// A place in the file: near the header more often than elsewhere.
fn place() -> impl Strategy<Value = usize> {
    prop_oneof![1 => 0_usize..64, 4 => any::<usize>()]
}

proptest! {
    // A case goes through megabytes.
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn btf_cut_or_garbled_is_refused_not_feared(
        cut in prop_oneof![place(), Just(usize::MAX)],
        mended in any::<bool>(),
        garble in proptest::collection::vec((place(), any::<u8>()), 0..200),
    ) {
        let mut bytes = BTF.clone();
        if !bytes.is_empty() {
            if cut != usize::MAX {
                bytes.truncate(cut % bytes.len());
            }
            if mended && bytes.len() > 32 {
                // A header that agrees with the cut: what comes after it must
                // find out by itself. btf_header: type_len, str_off.
                let types = (bytes.len() as u32 - 24) / 2;
                bytes[12..16].copy_from_slice(&types.to_le_bytes());
                bytes[16..20].copy_from_slice(&types.to_le_bytes());
            }
            for (at, byte) in garble {
                if let Some(at) = at.checked_rem(bytes.len()) {
                    bytes[at] ^= byte;
                }
            }
            resolve(bytes);
        }
    }
}

#[test]
fn btf_missing_every_traced_signal_says_so() {
    if !root() {
        return;
    }
    assert!(resolve(BTF.clone()), "the whole of it is good");
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let length = BTF.len();
    for (path, said) in [
        (folder.path().join("absent"), "CONFIG_DEBUG_INFO_BTF"),
        (file("empty", b""), "malformed BTF"),
        (file("text", &[b'x'; 4096]), "malformed BTF"),
        (file("header", &BTF[..20]), "malformed BTF"),
        (file("half", &BTF[..length / 2]), "malformed BTF"),
        (file("nearly", &BTF[..length - 1]), ""),
    ] {
        let wanted: Vec<_> = catalogue::signals()
            .filter(|signal| signal.subject.object().module.is_none())
            .collect();
        let options = Options {
            btf: path.clone(),
            ..Options::default()
        };
        let (loaded, ()) = loader::load(&NODE, &wanted, &options, |_| Ok(())).unwrap();
        let mut absent = 0;
        for (signal, is) in &loaded.signals {
            match is {
                Availability::Absent(reason) => {
                    assert!(reason.contains(said), "{}: {reason}", signal.name);
                    absent += 1;
                }
                Availability::Waiting(reason) | Availability::Unused(reason) => {
                    panic!("{}: {reason}", signal.name)
                }
                Availability::Available => {
                    assert!(
                        signal.hooks.is_empty() || said.is_empty(),
                        "{}",
                        signal.name
                    );
                }
            }
        }
        assert!(absent > 0 || said.is_empty(), "{}", path.display());
    }
}
