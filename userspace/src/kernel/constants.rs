//! Numbers that user space sets before load, put into the instructions that
//! read them.
//!
//! A program reads such a number, a global in `.rodata`, by its address and a
//! load. The verifier knows what is loaded and takes away what cannot run, but
//! the load stays in the program and is made at each run, thirty times in that
//! of `sched_switch`. Here the number takes its place ([`super::fold`]).

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use object::{
    LittleEndian as LE, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget,
    SectionIndex, SectionKind,
    elf::{FileHeader64, SHT_REL, SectionHeader64},
    read::elf::{ElfFile, SectionHeader as _},
};

use super::fold::{Code, Instruction};

type Elf<'a> = ElfFile<'a, FileHeader64<LE>>;
/// A relocation of an object file for BPF: `struct elf64_rel`.
const RELOCATION: usize = 16;

/// The object file with these numbers in it, as the bytes of the globals that
/// are named, and in the instructions.
///
/// # Errors
/// A global that must be there and is not, or has another size; a file that is
/// none of BPF.
pub(crate) fn put_into(elf: &[u8], globals: &[Global]) -> anyhow::Result<Vec<u8>> {
    let file: Elf = ElfFile::parse(elf)?;
    let rodata = file.section_by_name(".rodata").context("no .rodata")?;
    let mut numbers = rodata.data()?.to_vec();
    for global in globals {
        global.put_into(&file, rodata.index(), &mut numbers)?;
    }
    let mut elf = elf.to_vec();
    let start = rodata.file_range().context("no .rodata")?.0;
    replace(&mut elf, start, &numbers)?;
    for section in file.sections() {
        if section.kind() != SectionKind::Text {
            continue;
        }
        let mut code = code(&file, &section, rodata.index(), &numbers)?;
        code.fold();
        let start = section.file_range().context("no code")?.0;
        replace(&mut elf, start, code.instructions.as_flattened())?;
        forget(&file, section.index(), &code.no_addresses, &mut elf)?;
    }
    Ok(elf)
}

/// A number by the name of its global.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Global<'a> {
    name: &'a str,
    value: u64,
    /// Bytes of the global.
    size: usize,
    /// Whether each object file has it.
    must_exist: bool,
}

impl<'a> Global<'a> {
    /// A number of a program's `settings!` or `offsets!`.
    pub(crate) fn number(name: &'a str, value: u64) -> Self {
        Self {
            name,
            value,
            size: 8,
            must_exist: true,
        }
    }

    /// The level of the probes' diagnostics, 0 for none, where there are some.
    pub(crate) fn log_level(level: u8) -> Self {
        let level = Self::number("AYA_LOG_LEVEL", level.into());
        Self { size: 1, ..level }.where_it_is()
    }

    /// Only where the object file has it.
    pub(crate) fn where_it_is(self) -> Self {
        Self {
            must_exist: false,
            ..self
        }
    }

    fn put_into(self, file: &Elf, rodata: SectionIndex, numbers: &mut [u8]) -> anyhow::Result<()> {
        let Some(symbol) = file.symbol_by_name(self.name) else {
            ensure!(!self.must_exist, "no global {}", self.name);
            return Ok(());
        };
        let at = usize::try_from(symbol.address())?;
        let place = numbers.get_mut(at..at + self.size);
        let place = place.filter(|_| {
            symbol.section_index() == Some(rodata) && symbol.size() == self.size as u64
        });
        let place =
            place.with_context(|| format!("{} is no global of {} bytes", self.name, self.size))?;
        place.copy_from_slice(&self.value.to_le_bytes()[..self.size]);
        Ok(())
    }
}

/// The instructions of a section, with the numbers that they have addresses of.
fn code<'a, 'f>(
    file: &Elf<'f>,
    section: &impl object::ObjectSection<'f>,
    rodata: SectionIndex,
    numbers: &'a [u8],
) -> anyhow::Result<Code<'a>> {
    let mut addresses = BTreeMap::new();
    for (at, relocation) in section.relocations() {
        let RelocationTarget::Symbol(target) = relocation.target() else {
            continue;
        };
        let symbol = file.symbol_by_index(target)?;
        let start = usize::try_from(symbol.address())?;
        let end = start.saturating_add(usize::try_from(symbol.size())?);
        if symbol.section_index() == Some(rodata)
            && let Some(value) = numbers.get(start..end)
        {
            addresses.insert(usize::try_from(at)? / size_of::<Instruction>(), value);
        }
    }
    let instructions = section.data()?.as_chunks().0.to_vec();
    Ok(Code::new(instructions, addresses))
}

fn replace(elf: &mut [u8], at: u64, by: &[u8]) -> anyhow::Result<()> {
    let at = usize::try_from(at)?;
    let place = elf.get_mut(at..at + by.len());
    place
        .context("an object file cut short")?
        .copy_from_slice(by);
    Ok(())
}

/// Takes away the relocations of these instructions of a section.
fn forget(
    file: &Elf,
    section: SectionIndex,
    instructions: &BTreeSet<usize>,
    elf: &mut [u8],
) -> anyhow::Result<()> {
    let table = file.elf_section_table();
    for (index, header) in table.enumerate() {
        if header.sh_type(LE) != SHT_REL || header.info_link(LE) != section {
            continue;
        }
        let relocations = header.data(LE, file.data())?.as_chunks::<RELOCATION>().0;
        let kept: Vec<_> = relocations
            .iter()
            .filter(|relocation| {
                let at = u64::from_le_bytes(*relocation.first_chunk().unwrap_or(&[0; 8]));
                !instructions.contains(&(at as usize / size_of::<Instruction>()))
            })
            .copied()
            .collect();
        let kept = kept.as_flattened();
        replace(elf, header.sh_offset(LE), kept)?;
        let headers = file.elf_header().e_shoff.get(LE);
        let place = headers + (index.0 * size_of::<SectionHeader64<LE>>()) as u64;
        let size = std::mem::offset_of!(SectionHeader64<LE>, sh_size) as u64;
        replace(elf, place + size, &(kept.len() as u64).to_le_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::object::{NODE, ObjectFile, PLANE, WIREGUARD, ZFS};

    /// Addresses of the numbers that an object's programs have, by name.
    fn addresses(elf: &[u8]) -> Vec<String> {
        let file: Elf = ElfFile::parse(elf).unwrap();
        let code = file
            .sections()
            .filter(|one| one.kind() == SectionKind::Text);
        let relocations = code.flat_map(|section| section.relocations());
        let names = relocations.filter_map(|(_, relocation)| {
            let RelocationTarget::Symbol(target) = relocation.target() else {
                return None;
            };
            Some(file.symbol_by_index(target).unwrap().name().unwrap())
        });
        names
            .filter(|name| name.starts_with("OFFSET___") || name.starts_with("SWITCH_"))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn hardly_an_address_is_left() {
        for object in [&NODE, &ZFS, &WIREGUARD] {
            let before = addresses(object.elf);
            let after = addresses(&put_into(object.elf, &[]).unwrap());
            let (before, left) = (before.len(), after.len());
            assert!(left * 10 < before, "{}: {left} of {before}", object.name);
        }
    }

    /// The bytes of a global.
    fn read(elf: &[u8], name: &str) -> Vec<u8> {
        let file: Elf = ElfFile::parse(elf).unwrap();
        let symbol = file.symbol_by_name(name).unwrap();
        let data = file.section_by_name(".rodata").unwrap().data().unwrap();
        let at = symbol.address() as usize;
        data[at..at + symbol.size() as usize].to_vec()
    }

    #[test]
    fn numbers_are_where_the_programs_have_them() {
        let number = Global::number("PLANE_NUMBER", 0x0102_0304_0506_0708);
        let elf = put_into(PLANE.elf, &[number, Global::log_level(3)]).unwrap();
        assert_eq!(read(&elf, "PLANE_NUMBER"), [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(read(&elf, "AYA_LOG_LEVEL"), [3]);
        assert_eq!(read(&elf, "PLANE_BARE"), [0; 8]);
    }

    #[test]
    fn what_is_not_there_is_an_error_or_left_out() {
        let ObjectFile { elf, .. } = NODE;
        let error = |globals: &[Global]| put_into(elf, globals).unwrap_err().to_string();
        let none = Global::number("NO_SUCH", 1);
        assert_eq!(error(&[none]), "no global NO_SUCH");
        assert!(put_into(elf, &[none.where_it_is()]).is_ok());
        let other = Global::number("AYA_LOG_LEVEL", 1);
        assert_eq!(error(&[other]), "AYA_LOG_LEVEL is no global of 8 bytes");
        let program = Global::number("sched_switch", 1);
        assert!(error(&[program]).starts_with("sched_switch is no global"));
        assert!(put_into(&elf[..elf.len() / 2], &[]).is_err());
        assert!(put_into(b"no object", &[]).is_err());
    }
}
