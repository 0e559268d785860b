//! Reading kernel memory by a load, where this kernel lets programs do it.
//!
//! Arguments of probes at functions have no type, so a program may not follow
//! them, and `bpf_probe_read_kernel` takes a call and several checks. Since 6.2
//! the kernel's function `bpf_rdonly_cast` (kernel/bpf/helpers.c) gives an
//! address the type that the caller names. Neither rustc nor aya can call
//! functions of the kernel: an object file has a number in place of the call
//! (probes/src/kernel.rs), which is replaced here.

use std::io;

use aya_obj::generated::{bpf_cmd, bpf_prog_type};
use kldtrace_abi::CAST_CALL;
use object::{Object as _, ObjectSection as _, SectionKind};

use super::{
    btf::Btf,
    sys::{bpf, owned, zeroed},
};

const FUNCTION: &str = "bpf_rdonly_cast";
/// It begins with a number of 64 bits, on every kernel and architecture
/// (include/uapi/linux/time_types.h).
const STRUCTURE: &str = "__kernel_timespec";

/// An instruction (include/uapi/linux/bpf.h: `struct bpf_insn`).
type Instruction = [u8; 8];
/// `BPF_JMP | BPF_CALL`.
const CALL: u8 = 0x85;
/// `BPF_PSEUDO_KFUNC_CALL`, in the upper half of the registers: the number is
/// that of a function in the kernel's types.
const OF_KERNEL: u8 = 2 << 4;

/// The kernel's function, and what it makes of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cast {
    function: u32,
    structure: u32,
}

impl Cast {
    /// What this kernel has; `None`: programs need the helper. Types may name
    /// a function that the verifier refuses, as without its compiler: so it is
    /// asked.
    pub(super) fn of(btf: &Btf) -> Option<Self> {
        let (function, structure) = btf.kernel_ids(FUNCTION, STRUCTURE)?;
        let cast = Self {
            function,
            structure,
        };
        match cast.try_out() {
            Ok(()) => Some(cast),
            Err(error) => {
                tracing::debug!(%error, "no {FUNCTION} for programs");
                None
            }
        }
    }

    /// The number of the structure, for programs.
    pub(super) fn structure(self) -> u64 {
        self.structure.into()
    }

    /// The object file with calls of the function.
    pub(super) fn put_into(self, elf: &[u8]) -> anyhow::Result<Vec<u8>> {
        let file = object::File::parse(elf)?;
        let mut elf = elf.to_vec();
        for section in file.sections() {
            if section.kind() != SectionKind::Text {
                continue;
            }
            let Some((start, length)) = section.file_range() else {
                continue;
            };
            let (start, length) = (usize::try_from(start)?, usize::try_from(length)?);
            let code = elf.get_mut(start..start + length);
            for instruction in code.unwrap_or_default().as_chunks_mut().0 {
                if *instruction == call(0, CAST_CALL) {
                    *instruction = call(OF_KERNEL, self.function);
                }
            }
        }
        Ok(elf)
    }

    /// Loads a program that reads by it, and drops it.
    fn try_out(self) -> io::Result<()> {
        let load = |register: u8, number: u32| immediate(0xb7, register, number);
        let code: [Instruction; 5] = [
            load(1, 0),
            load(2, self.structure),
            call(OF_KERNEL, self.function),
            // r0 = *(u64 *)(r0 + 0)
            [0x79, 0, 0, 0, 0, 0, 0, 0],
            // exit
            [0x95, 0, 0, 0, 0, 0, 0, 0],
        ];
        let mut attr = zeroed();
        // The kernel lends the function to programs under its own licence only.
        let license = c"GPL";
        // SAFETY: this command's part of the union.
        let program = unsafe { &mut attr.__bindgen_anon_3 };
        program.prog_type = bpf_prog_type::BPF_PROG_TYPE_KPROBE as u32;
        program.insns = code.as_ptr() as u64;
        program.insn_cnt = code.len() as u32;
        program.license = license.as_ptr() as u64;
        bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr).map(|fd| drop(owned(fd)))
    }
}

fn call(kind: u8, number: u32) -> Instruction {
    immediate(CALL, kind, number)
}

fn immediate(code: u8, registers: u8, number: u32) -> Instruction {
    let [a, b, c, d] = number.to_le_bytes();
    [code, registers, 0, 0, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::object::{NODE, WIREGUARD, ZFS};

    fn count(elf: &[u8], instruction: Instruction) -> usize {
        let (instructions, _) = elf.as_chunks::<8>();
        instructions
            .iter()
            .filter(|one| **one == instruction)
            .count()
    }

    #[test]
    fn calls_are_put_where_an_object_stands_for_them() {
        let cast = Cast {
            function: 7,
            structure: 1,
        };
        let (before, after) = (call(0, CAST_CALL), call(OF_KERNEL, 7));
        for object in [&NODE, &ZFS, &WIREGUARD] {
            let calls = count(object.elf, before);
            assert!(calls > 3, "{}: {calls}", object.name);
            assert_eq!(count(object.elf, after), 0);
            let elf = cast.put_into(object.elf).unwrap();
            assert_eq!((count(&elf, before), count(&elf, after)), (0, calls));
            assert_eq!(elf.len(), object.elf.len());
        }
    }
}
