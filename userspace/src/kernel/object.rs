//! The probes' object file: which program reads which kernel field.
//!
//! A program names a field by a symbol, `OFFSET___struct___field`, and the
//! linker keeps that as a relocation. So what a program needs is read from
//! the program itself and cannot differ from it.

use std::collections::{BTreeMap, BTreeSet};

use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SymbolKind};

/// An object file of probes. Each is loaded by itself, as what it watches
/// comes and goes.
#[derive(Debug)]
pub struct ObjectFile {
    /// What people call it.
    pub name: &'static str,
    /// The file, built by build.rs.
    pub elf: &'static [u8],
    /// The kernel module that must be there.
    pub module: Option<&'static str>,
}

/// The kernel proper.
pub static NODE: ObjectFile = ObjectFile {
    name: "node",
    elf: aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/node")),
    module: None,
};

/// OpenZFS.
pub static ZFS: ObjectFile = ObjectFile {
    name: "zfs",
    elf: aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/zfs")),
    module: Some("zfs"),
};

/// WireGuard.
pub static WIREGUARD: ObjectFile = ObjectFile {
    name: "wireguard",
    elf: aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/wireguard")),
    module: Some("wireguard"),
};

/// The planes' filters.
pub static PLANE: ObjectFile = ObjectFile {
    name: "plane",
    elf: aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/plane")),
    module: None,
};

const PREFIX: &str = "OFFSET___";

/// A kernel field that a probe reads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Field {
    /// The symbol to set before load.
    pub symbol: String,
    /// The structure.
    pub of: String,
    /// The way to the field.
    pub path: Vec<String>,
}

impl Field {
    fn from_symbol(symbol: &str) -> Option<Self> {
        let mut parts = symbol.strip_prefix(PREFIX)?.split("___");
        Some(Self {
            symbol: symbol.to_owned(),
            of: parts.next()?.to_owned(),
            path: parts.map(str::to_owned).collect(),
        })
    }

    /// As the catalogue and people write it: `task_struct.se.cfs_rq`.
    pub fn dotted(&self) -> String {
        format!("{}.{}", self.of, self.path.join("."))
    }
}

/// Fields by program.
pub fn fields_by_program(elf: &[u8]) -> anyhow::Result<BTreeMap<String, BTreeSet<Field>>> {
    let file = object::File::parse(elf)?;
    let mut programs = BTreeMap::new();
    for symbol in file.symbols() {
        let (SymbolKind::Text, Some(index)) = (symbol.kind(), symbol.section_index()) else {
            continue;
        };
        let section = file.section_by_index(index)?;
        // Subprograms lie in .text; they follow no kernel pointers.
        if section.name()? == ".text" || symbol.size() == 0 {
            continue;
        }
        let code = symbol.address()..symbol.address() + symbol.size();
        let mut fields = BTreeSet::new();
        for (at, relocation) in section.relocations() {
            if let (true, RelocationTarget::Symbol(target)) =
                (code.contains(&at), relocation.target())
            {
                let name = file.symbol_by_index(target)?.name()?.to_owned();
                fields.extend(Field::from_symbol(&name));
            }
        }
        programs.insert(symbol.name()?.to_owned(), fields);
    }
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;

    #[test]
    fn symbols_become_fields() {
        let field = Field::from_symbol("OFFSET___sock_____sk_common___skc_family").unwrap();
        assert_eq!(field.dotted(), "sock.__sk_common.skc_family");
        assert_eq!(Field::from_symbol("SWITCH_X"), None);
    }

    fn programs() -> BTreeMap<String, BTreeSet<Field>> {
        let objects = [&NODE, &ZFS, &WIREGUARD];
        let all = objects.map(|object| fields_by_program(object.elf).unwrap());
        all.into_iter().flatten().collect()
    }

    #[test]
    fn every_hook_has_its_program_and_every_listed_field_is_read() {
        let programs = programs();
        for signal in catalogue::signals() {
            let mut read = BTreeSet::new();
            for hook in signal.hooks.iter().copied().flatten() {
                let fields = programs
                    .get(hook.program)
                    .unwrap_or_else(|| panic!("{}: no program {}", signal.name, hook.program));
                read.extend(fields.iter().map(Field::dotted));
            }
            for field in signal.fields {
                assert!(read.contains(*field), "{}: {field}", signal.name);
            }
        }
    }

    /// No secret leaves the kernel: no program of WireGuard so much as knows
    /// where one lies. Every relocation of the object counts, those of
    /// subprograms too.
    #[test]
    fn wireguard_programs_know_no_secret() {
        let file = object::File::parse(WIREGUARD.elf).unwrap();
        let symbols = file.symbols().filter_map(|symbol| symbol.name().ok());
        let fields: BTreeSet<_> = symbols.filter_map(Field::from_symbol).collect();
        assert!(fields.len() > 30, "{fields:?}");
        // What is read of the structures that hold keys: drivers/net/wireguard
        // noise.h, peer.h, cookie.h.
        let allowed = [
            "cookie_checker.device",
            "noise_handshake.entry.peer",
            "noise_handshake.last_initiation_consumption",
            "noise_keypair.sending.birthdate",
            "wg_device.dev",
            "wg_peer.device",
            "wg_peer.endpoint",
            "wg_peer.handshake",
            "wg_peer.handshake.remote_static",
            "wg_peer.is_dead",
            "wg_peer.keypairs.current_keypair",
            "wg_peer.napi",
            "wg_peer.rx_bytes",
            "wg_peer.staged_packet_queue.qlen",
            "wg_peer.timer_handshake_attempts",
            "wg_peer.timer_retransmit_handshake",
            "wg_peer.tx_bytes",
            "wg_peer.walltime_last_handshake.tv_nsec",
            "wg_peer.walltime_last_handshake.tv_sec",
        ];
        let holders = ["cookie", "noise", "wg_", "index_hashtable"];
        let read: Vec<_> = fields
            .iter()
            .filter(|field| holders.iter().any(|holder| field.of.starts_with(holder)))
            .map(Field::dotted)
            .collect();
        assert_eq!(read, allowed);
        let secrets = [
            "private",
            "preshared",
            "precomputed",
            "chaining",
            "hash",
            "symmetric",
            "secret",
            "ephemeral",
            "cookie_key",
            "encryption_key",
            "mac1_key",
            "key",
        ];
        for field in &fields {
            for secret in secrets {
                let last = field.path.last().unwrap();
                assert!(
                    !last.contains(secret) || last == "current_keypair",
                    "{}",
                    field.dotted()
                );
            }
        }
    }

    #[test]
    fn every_program_is_in_the_catalogue() {
        let hooked: BTreeSet<_> = catalogue::signals()
            .flat_map(|signal| signal.hooks.iter().copied().flatten())
            .map(|hook| hook.program)
            .collect();
        for program in programs().keys() {
            // `empty` is the benchmark's floor.
            assert!(
                program == "empty" || hooked.contains(program.as_str()),
                "{program}"
            );
        }
    }
}
