//! Field offsets from the running kernel's BTF.
//!
//! rustc emits no CO-RE relocations, so the probes get their offsets from
//! here. aya keeps its parsed BTF to itself and would hold all of it in
//! memory, and the parsers on crates.io are either copyleft or unmaintained;
//! this one borrows the file's bytes and keeps one `u32` for each type.
//! Format: <https://docs.kernel.org/bpf/btf.html>

use std::{fs, path::Path, sync::Arc};

/// Why BTF could not be read or a field not be found.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file is absent or unreadable.
    #[error("{path}: {source} (is the kernel built with CONFIG_DEBUG_INFO_BTF=y?)")]
    Unreadable {
        /// The BTF file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bytes are not BTF, or end too early.
    #[error("malformed BTF at byte {0}")]
    Malformed(usize),
    /// The kernel has no such structure.
    #[error("no struct {0} in this kernel's BTF")]
    NoStruct(String),
    /// Neither has the kernel, nor is there BTF of the module.
    #[error(
        "no struct {of}: the module {module} has no BTF (no /sys/kernel/btf/{module}): \
         cp /sys/kernel/btf/vmlinux /lib/modules/$(uname -r)/build/ and build the module again"
    )]
    NoModuleTypes {
        /// The structure.
        of: String,
        /// The module.
        module: &'static str,
    },
    /// The structure has no such field.
    #[error("no field {field} in struct {of}")]
    NoField {
        /// The structure.
        of: String,
        /// The field, as asked for.
        field: String,
    },
}

const MAGIC: u16 = 0xeb9f;
const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
/// Kinds that only wrap another type: typedef, volatile, const, restrict,
/// type tag.
const TRANSPARENT: [u32; 5] = [KIND_TYPEDEF, 9, 10, 11, 18];

/// The types of one BTF file.
pub struct Btf {
    bytes: Vec<u8>,
    /// Where each type's header begins; type 0 is void, and stands in front of
    /// a module's types too.
    types: Vec<u32>,
    strings: usize,
    strings_length: u32,
    /// What a module's types continue: their ids and the offsets of their
    /// strings begin where the kernel's end.
    base: Option<Arc<Btf>>,
    /// A module whose types should be here and are not.
    lacks: Option<&'static str>,
}

struct Header<'a> {
    /// The file that it lies in.
    bytes: &'a [u8],
    /// Where its name is among the strings.
    name: u32,
    kind: u32,
    vlen: usize,
    /// `info` bit 31: members pack a bit-field size with their offset.
    flag: bool,
    /// The type referred to, or the size.
    type_or_size: u32,
    /// Where what follows the header begins.
    body: usize,
}

impl Header<'_> {
    fn word(&self, at: usize) -> Result<u32, BtfError> {
        read_u32(self.bytes, at)
    }
}

impl Btf {
    /// Reads a BTF file, usually `/sys/kernel/btf/vmlinux`.
    pub fn from_file(path: &Path) -> Result<Self, BtfError> {
        let bytes = fs::read(path).map_err(|source| BtfError::Unreadable {
            path: path.display().to_string(),
            source,
        })?;
        Self::parse(bytes)
    }

    /// Reads a module's BTF file, usually `/sys/kernel/btf/MODULE`, whose
    /// types continue the kernel's.
    pub fn from_module_file(path: &Path, base: Arc<Self>) -> Result<Self, BtfError> {
        let mut btf = Self::from_file(path)?;
        btf.base = Some(base);
        Ok(btf)
    }

    /// Says, where a structure is not found, that this module has no types.
    #[must_use]
    pub fn without(mut self, module: &'static str) -> Self {
        self.lacks = Some(module);
        self
    }

    /// Indexes BTF bytes; every length is checked against what is there.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, BtfError> {
        let magic = bytes.get(..2).map(|b| u16::from_le_bytes([b[0], b[1]]));
        if magic != Some(MAGIC) {
            return Err(BtfError::Malformed(0));
        }
        let header = read_u32(&bytes, 4)? as usize;
        let at = |field| Ok::<_, BtfError>(read_u32(&bytes, field)? as usize);
        let first = header.saturating_add(at(8)?);
        let end = first.saturating_add(at(12)?);
        let strings = header.saturating_add(at(16)?);
        if end > bytes.len() || strings > bytes.len() {
            return Err(BtfError::Malformed(bytes.len()));
        }
        let strings_length = read_u32(&bytes, 20)?;
        let mut btf = Self {
            bytes,
            types: vec![u32::MAX],
            strings,
            strings_length,
            base: None,
            lacks: None,
        };
        let mut next = first;
        while next < end {
            btf.types.push(next as u32);
            next = next
                .checked_add(12 + btf.body_length(next)?)
                .ok_or(BtfError::Malformed(next))?;
        }
        btf.types.shrink_to_fit();
        Ok(btf)
    }

    /// Offset in bytes of a field; `path` may go through embedded structures:
    /// `["se", "cfs_rq"]`. Anonymous members are looked through. Bit-fields
    /// have no byte offset and are not found.
    pub fn offset_of(&self, of: &str, path: &[&str]) -> Result<u64, BtfError> {
        let mut id = self.find(of, &[KIND_STRUCT, KIND_UNION])?;
        let mut offset = 0;
        for field in path {
            let (inside, member) = self
                .member(id, field, 0)?
                .ok_or_else(|| BtfError::NoField {
                    of: of.to_owned(),
                    field: path.join("."),
                })?;
            offset += inside;
            id = self.resolve(member)?;
        }
        Ok(offset)
    }

    /// Number of arguments of a tracepoint, without the data pointer that the
    /// kernel puts first. From the type of `btf_trace_NAME`.
    pub fn tracepoint_arguments(&self, name: &str) -> Result<usize, BtfError> {
        let missing = || BtfError::NoStruct(format!("btf_trace_{name}"));
        let id = self.find(&format!("btf_trace_{name}"), &[KIND_TYPEDEF])?;
        let pointer = self.header(self.resolve(id)?)?;
        if pointer.kind != KIND_PTR {
            return Err(missing());
        }
        let function = self.header(self.resolve(pointer.type_or_size)?)?;
        if function.kind != KIND_FUNC_PROTO || function.vlen == 0 {
            return Err(missing());
        }
        Ok(function.vlen - 1)
    }

    /// Number of arguments of a kernel function.
    pub fn function_arguments(&self, name: &str) -> Result<usize, BtfError> {
        let id = self.find(name, &[KIND_FUNC])?;
        let prototype = self.header(id)?.type_or_size;
        Ok(self.header(prototype)?.vlen)
    }

    /// The number of a function.
    pub fn function_id(&self, name: &str) -> Result<u32, BtfError> {
        self.find(name, &[KIND_FUNC])
    }

    /// The value of an enumerator, whichever enum it is in; `None`: there is
    /// none of that name.
    pub fn enumerator(&self, name: &str) -> Result<Option<u32>, BtfError> {
        for id in self.ids() {
            let header = self.header(id)?;
            if header.kind != KIND_ENUM {
                continue;
            }
            for i in 0..header.vlen {
                let at = header.body + i * 8;
                if self.is(header.word(at)?, name)? {
                    return header.word(at + 4).map(Some);
                }
            }
        }
        match &self.base {
            Some(base) => base.enumerator(name),
            None => Ok(None),
        }
    }

    /// The numbers that the kernel proper has for a function and for a
    /// structure, by which programs name them; `None`: it lacks one of them.
    pub fn kernel_ids(&self, function: &str, structure: &str) -> Option<(u32, u32)> {
        let kernel = self.base.as_deref().unwrap_or(self);
        let function = kernel.find(function, &[KIND_FUNC]).ok()?;
        let structure = kernel.find(structure, &[KIND_STRUCT]).ok()?;
        Some((function, structure))
    }

    fn find(&self, name: &str, kinds: &[u32]) -> Result<u32, BtfError> {
        for id in self.ids() {
            let header = self.header(id)?;
            if kinds.contains(&header.kind) && self.is(header.name, name)? {
                return Ok(id);
            }
        }
        match &self.base {
            Some(base) => base.find(name, kinds),
            None => Err(match self.lacks {
                Some(module) => BtfError::NoModuleTypes {
                    of: name.to_owned(),
                    module,
                },
                None => BtfError::NoStruct(name.to_owned()),
            }),
        }
    }

    /// Types of the base, with void.
    fn first_id(&self) -> u32 {
        self.base
            .as_ref()
            .map_or(1, |base| base.first_id() + base.types.len() as u32 - 1)
    }

    /// The ids of this file's own types.
    fn ids(&self) -> std::ops::Range<u32> {
        let first = self.first_id();
        first..first + self.types.len() as u32 - 1
    }

    /// Byte offset and type of a member, looking through anonymous ones.
    fn member(&self, id: u32, name: &str, depth: u8) -> Result<Option<(u64, u32)>, BtfError> {
        let header = self.header(id)?;
        // Real kernels nest anonymous members two or three deep.
        if ![KIND_STRUCT, KIND_UNION].contains(&header.kind) || depth > 8 {
            return Ok(None);
        }
        for i in 0..header.vlen {
            let at = header.body + i * 12;
            let member_name = header.word(at)?;
            let member_type = header.word(at + 4)?;
            let packed = header.word(at + 8)?;
            let (bits, bitfield) = if header.flag {
                (packed & 0x00ff_ffff, packed >> 24 != 0)
            } else {
                (packed, false)
            };
            let bytes = u64::from(bits / 8);
            if self.is(member_name, name)? {
                return Ok((!bitfield && bits % 8 == 0).then_some((bytes, member_type)));
            }
            if self.is(member_name, "")? {
                let inner = self.resolve(member_type)?;
                if let Some((offset, id)) = self.member(inner, name, depth + 1)? {
                    return Ok(Some((bytes + offset, id)));
                }
            }
        }
        Ok(None)
    }

    /// Follows typedefs and qualifiers to the type itself.
    fn resolve(&self, mut id: u32) -> Result<u32, BtfError> {
        for _ in 0..32 {
            if id == 0 {
                return Ok(0);
            }
            let header = self.header(id)?;
            if !TRANSPARENT.contains(&header.kind) {
                return Ok(id);
            }
            id = header.type_or_size;
        }
        Err(BtfError::Malformed(id as usize))
    }

    fn header(&self, id: u32) -> Result<Header<'_>, BtfError> {
        let first = self.first_id();
        if let Some(base) = &self.base
            && id < first
        {
            return base.header(id);
        }
        let at = match self.types.get((id.wrapping_sub(first) + 1) as usize) {
            Some(&at) if id != 0 => at as usize,
            _ => return Err(BtfError::Malformed(id as usize)),
        };
        let info = read_u32(&self.bytes, at + 4)?;
        Ok(Header {
            bytes: &self.bytes,
            name: read_u32(&self.bytes, at)?,
            kind: info >> 24 & 0x1f,
            vlen: (info & 0xffff) as usize,
            flag: info >> 31 == 1,
            type_or_size: read_u32(&self.bytes, at + 8)?,
            body: at + 12,
        })
    }

    fn body_length(&self, at: usize) -> Result<usize, BtfError> {
        let info = read_u32(&self.bytes, at + 4)?;
        let vlen = (info & 0xffff) as usize;
        Ok(match info >> 24 & 0x1f {
            // int, var and decl_tag carry one word more.
            1 | 14 | 17 => 4,
            KIND_ARRAY => 12,
            KIND_STRUCT | KIND_UNION | 15 | 19 => vlen * 12,
            KIND_ENUM | KIND_FUNC_PROTO => vlen * 8,
            KIND_PTR | 7..=12 | 16 | 18 => 0,
            _ => return Err(BtfError::Malformed(at)),
        })
    }

    /// Whether the string at an offset is this one: no further than they are
    /// alike, as thousands are asked for each that is looked for.
    fn is(&self, offset: u32, text: &str) -> Result<bool, BtfError> {
        let mut offset = offset;
        if let Some(base) = &self.base {
            if offset < base.strings_length {
                return base.is(offset, text);
            }
            offset -= base.strings_length;
        }
        let start = self.strings + offset as usize;
        let rest = self.bytes.get(start..).ok_or(BtfError::Malformed(start))?;
        let rest = rest.strip_prefix(text.as_bytes());
        Ok(rest.is_some_and(|rest| rest.first() == Some(&0)))
    }
}

fn read_u32(bytes: &[u8], at: usize) -> Result<u32, BtfError> {
    let word = at.checked_add(4).and_then(|end| bytes.get(at..end));
    match word {
        Some(word) => Ok(u32::from_le_bytes([word[0], word[1], word[2], word[3]])),
        None => Err(BtfError::Malformed(at)),
    }
}
