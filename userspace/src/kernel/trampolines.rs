//! Programs at functions of a module by BPF trampolines, which aya can attach
//! in the kernel proper only.
//!
//! They cost a third of what probes at entry and return do
//! (docs/src/journal/2026-11-30-zfs-trampolines.md), and a program keeps its
//! module from being unloaded (kernel/bpf/verifier.c: `check_attach_btf_id`).
//! So they are attached only while somebody else keeps it as well.

use std::{
    collections::{HashMap, HashSet},
    ffi::{CString, c_char},
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use anyhow::{Context as _, anyhow, bail};
use aya::{Ebpf, maps::Map, util::KernelVersion};
use aya_obj::{
    Function, Object,
    generated::{bpf_attach_type, bpf_btf_info, bpf_cmd, bpf_prog_type},
};

use super::{
    attach::refused,
    btf::{Btf, BtfError},
    cost,
    sys::{self, bpf, owned, raw, zeroed},
};
use crate::catalogue::{Attach, Hook};

/// Why there are none on older kernels: see [`are_safe`].
pub(super) const UNSAFE: &str = "Linux before 6.12 may crash where it takes a probe's place";

/// Whether this kernel lets trampolines and probes at one function take turns. 6.1 jumped
/// to address 0 once, in a read that was under way; 6.12 and 7.2 never did.
#[must_use]
pub fn are_safe() -> bool {
    KernelVersion::current().is_ok_and(|running| running >= KernelVersion::new(6, 12, 0))
}

/// Room for what the verifier says of a program that it refuses.
const LOG: usize = 1 << 20;

/// The two programs of a function.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    function: &'static str,
    /// The function's number in the types of its module.
    number: u32,
    /// At its entry.
    enter: &'static str,
    /// At its return.
    leave: &'static str,
}

impl Pair {
    /// Those among these hooks.
    ///
    /// # Errors
    /// When the module has no types, or no such function.
    pub(super) fn all(hooks: &[&'static [Hook]], types: &Btf) -> Result<Vec<Self>, BtfError> {
        let hooks = || hooks.iter().copied().flatten();
        let entries = hooks().filter_map(|hook| match hook.attach {
            Attach::Fentry(function) => Some((hook.program, function)),
            _ => None,
        });
        let pairs = entries.filter_map(|(enter, function)| {
            let leave = hooks().find(|hook| hook.attach == Attach::Fexit(function))?;
            let number = types.function_id(function);
            Some(number.map(|number| Self {
                function,
                number,
                enter,
                leave: leave.program,
            }))
        });
        pairs.collect()
    }
}

/// A program at a function. Dropping it detaches.
#[derive(Debug)]
struct Attached {
    program: OwnedFd,
    _link: OwnedFd,
}

/// Both programs of a function, in the order in which they go: no entry is
/// without its return.
#[derive(Debug)]
struct Both {
    enter: Attached,
    leave: Attached,
}

/// Programs for trampolines of a module, attached or not.
pub(super) struct Trampolines {
    code: Code,
    /// What is attached, by function.
    attached: Vec<(Pair, Both)>,
}

impl Trampolines {
    /// Makes these of an object ready, with the maps that `ebpf` has made of the
    /// same object.
    ///
    /// # Errors
    /// When the kernel has no types of the module, or refuses ours.
    pub(super) fn new(
        elf: &[u8],
        ebpf: &Ebpf,
        pairs: &[Pair],
        module: &str,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            code: Code::new(elf, ebpf, pairs, module)?,
            attached: Vec::new(),
        })
    }

    /// Attaches both programs of a function, unless they are.
    ///
    /// # Errors
    /// What the kernel says; then neither is attached.
    pub(super) fn attach(&mut self, function: &str) -> anyhow::Result<()> {
        let mut attached = self.attached.iter();
        if attached.any(|(pair, _)| pair.function == function) {
            return Ok(());
        }
        let pair = self.code.pair(function)?;
        // The return comes first, as it goes last.
        let leave = self.code.attach(pair.leave, pair.number, EXIT)?;
        let enter = self.code.attach(pair.enter, pair.number, ENTRY)?;
        self.attached.push((pair, Both { enter, leave }));
        Ok(())
    }

    /// Detaches all programs, one after the other: at the same time takes no less.
    pub(super) fn detach(&mut self) {
        self.attached.clear();
    }

    /// The kernel's account of a program that is attached.
    pub(super) fn account(&self, program: &str) -> Option<cost::Account> {
        let one = self.attached.iter().find_map(|(pair, both)| {
            if pair.enter == program {
                return Some(&both.enter);
            }
            (pair.leave == program).then_some(&both.leave)
        })?;
        cost::account(&one.program).ok()
    }
}

const ENTRY: bpf_attach_type = bpf_attach_type::BPF_TRACE_FENTRY;
const EXIT: bpf_attach_type = bpf_attach_type::BPF_TRACE_FEXIT;

/// Programs ready to be loaded, which aya keeps to itself.
struct Code {
    pairs: Vec<Pair>,
    functions: HashMap<String, Function>,
    license: CString,
    /// Types of the programs.
    own_types: Option<OwnedFd>,
    /// Types of the module.
    module_types: OwnedFd,
    /// The maps that are named in the instructions, by these descriptors.
    _maps: Vec<OwnedFd>,
}

impl Code {
    fn new(elf: &[u8], ebpf: &Ebpf, pairs: &[Pair], module: &str) -> anyhow::Result<Self> {
        let module_types = types_of(module)?;
        let mut object = Object::parse(elf)?;
        let features = aya::features();
        let own_types = match features.btf() {
            Some(features) => object.fixup_and_sanitize_btf(features)?,
            None => None,
        };
        let own_types = own_types
            .map(|types| load_types(&types.to_bytes()))
            .transpose()
            .context("the types of the programs")?;
        let maps = relocate(&mut object, ebpf)?;
        object.sanitize_functions(features);
        let mut functions = HashMap::new();
        let mut license = CString::default();
        for name in pairs.iter().flat_map(|pair| [pair.enter, pair.leave]) {
            let program = object.programs.get(name);
            let program = program.with_context(|| format!("no program {name}"))?;
            let function = object.functions.get(&program.function_key());
            let function = function.with_context(|| format!("no program {name}"))?;
            functions.insert(name.to_owned(), function.clone());
            license.clone_from(&program.license);
        }
        Ok(Self {
            pairs: pairs.to_vec(),
            functions,
            license,
            own_types,
            module_types,
            _maps: maps,
        })
    }

    fn pair(&self, function: &str) -> anyhow::Result<Pair> {
        let pair = self.pairs.iter().find(|pair| pair.function == function);
        pair.copied()
            .with_context(|| format!("no programs for {function}"))
    }

    fn attach(
        &self,
        program: &'static str,
        number: u32,
        kind: bpf_attach_type,
    ) -> anyhow::Result<Attached> {
        let program = self.load(program, number, kind)?;
        let mut attr = zeroed();
        // Without a name it is for a program that knows where it belongs.
        attr.raw_tracepoint.prog_fd = raw(&program);
        let link = bpf(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attr)?;
        Ok(Attached {
            program,
            _link: owned(link),
        })
    }

    fn load(&self, name: &str, number: u32, kind: bpf_attach_type) -> anyhow::Result<OwnedFd> {
        let code = self.functions.get(name).context("no such program")?;
        let lines = code.line_info.line_info_bytes();
        let functions = code.func_info.func_info_bytes();
        let load = |log: Option<&mut [u8]>| {
            let mut attr = zeroed();
            // SAFETY: this command's part of the union.
            let program = unsafe { &mut attr.__bindgen_anon_3 };
            program.prog_type = bpf_prog_type::BPF_PROG_TYPE_TRACING as u32;
            program.expected_attach_type = kind as u32;
            program.insns = code.instructions.as_ptr() as u64;
            program.insn_cnt = code.instructions.len() as u32;
            program.license = self.license.as_ptr() as u64;
            program.attach_btf_id = number;
            program.__bindgen_anon_1.attach_btf_obj_fd = raw(&self.module_types);
            // BPF_OBJ_NAME_LEN, with its end.
            let room = program.prog_name.len() - 1;
            for (to, from) in program.prog_name.iter_mut().zip(name.bytes().take(room)) {
                *to = c_char::from_ne_bytes([from]);
            }
            if let Some(types) = &self.own_types {
                program.prog_btf_fd = raw(types);
                program.line_info = lines.as_ptr() as u64;
                program.line_info_cnt = code.line_info.len() as u32;
                program.line_info_rec_size = code.line_info_rec_size as u32;
                program.func_info = functions.as_ptr() as u64;
                program.func_info_cnt = code.func_info.len() as u32;
                program.func_info_rec_size = code.func_info_rec_size as u32;
            }
            if let Some(log) = log {
                program.log_level = 1;
                program.log_buf = log.as_mut_ptr() as u64;
                program.log_size = log.len() as u32;
            }
            bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr).map(owned)
        };
        // The log makes loading slower: it is asked for when something is wrong.
        load(None).or_else(|_| {
            let mut log = vec![0_u8; LOG];
            load(Some(&mut log)).map_err(|error| {
                let log = String::from_utf8_lossy(&log);
                anyhow!(refused(&error, log.trim_end_matches('\0')))
            })
        })
    }
}

/// Puts the maps and the calls of each other into the programs. Returns the
/// maps.
fn relocate(object: &mut Object, ebpf: &Ebpf) -> anyhow::Result<Vec<OwnedFd>> {
    let defined = std::mem::take(&mut object.maps);
    let mut maps = Vec::new();
    let mut named = Vec::new();
    for (name, map) in &defined {
        // What this kernel does without is used by no program here.
        let Some(made) = ebpf.map(name) else { continue };
        let made = descriptor(made).try_clone_to_owned()?;
        named.push((name.as_str(), made.as_raw_fd(), map));
        maps.push(made);
    }
    let sections: HashSet<usize> = object
        .functions
        .keys()
        .map(|(section, _)| *section)
        .collect();
    object.relocate_maps(named.into_iter(), &sections)?;
    object.relocate_calls(&sections)?;
    Ok(maps)
}

/// A map's descriptor: aya lends it to those who know its kind.
fn descriptor(map: &Map) -> BorrowedFd<'_> {
    let data = match map {
        Map::Array(data)
        | Map::ArrayOfMaps(data)
        | Map::BloomFilter(data)
        | Map::CgroupArray(data)
        | Map::CgroupStorage(data)
        | Map::CgrpStorage(data)
        | Map::CpuMap(data)
        | Map::DevMap(data)
        | Map::DevMapHash(data)
        | Map::HashMap(data)
        | Map::HashOfMaps(data)
        | Map::InodeStorage(data)
        | Map::LpmTrie(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuCgroupStorage(data)
        | Map::PerCpuHashMap(data)
        | Map::PerCpuLruHashMap(data)
        | Map::PerfEventArray(data)
        | Map::ProgramArray(data)
        | Map::Queue(data)
        | Map::ReusePortSockArray(data)
        | Map::RingBuf(data)
        | Map::SockHash(data)
        | Map::SockMap(data)
        | Map::SkStorage(data)
        | Map::Stack(data)
        | Map::StackTraceMap(data)
        | Map::Unsupported(data)
        | Map::XskMap(data) => data,
    };
    data.fd().as_fd()
}

fn load_types(types: &[u8]) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    // SAFETY: this command's part of the union.
    let load = unsafe { &mut attr.__bindgen_anon_7 };
    load.btf = types.as_ptr() as u64;
    load.btf_size = types.len() as u32;
    bpf(bpf_cmd::BPF_BTF_LOAD, &mut attr).map(owned)
}

/// A module's types, as the kernel has them. Files in /sys/kernel/btf are not
/// what it wants.
fn types_of(module: &str) -> anyhow::Result<OwnedFd> {
    let mut id = 0;
    loop {
        let mut attr = zeroed();
        attr.__bindgen_anon_6.__bindgen_anon_1.start_id = id;
        match bpf(bpf_cmd::BPF_BTF_GET_NEXT_ID, &mut attr) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                bail!("no types of {module}")
            }
            Err(error) => return Err(error).context("BPF_BTF_GET_NEXT_ID"),
        }
        // SAFETY: an integer that the kernel wrote.
        id = unsafe { attr.__bindgen_anon_6.next_id };
        attr = zeroed();
        attr.__bindgen_anon_6.__bindgen_anon_1.btf_id = id;
        let types = match bpf(bpf_cmd::BPF_BTF_GET_FD_BY_ID, &mut attr) {
            Ok(types) => owned(types),
            // Gone meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
            Err(error) => return Err(error).context("BPF_BTF_GET_FD_BY_ID"),
        };
        // MODULE_NAME_LEN of include/linux/module.h is 56 at most.
        let mut name = [0_u8; 64];
        // SAFETY: integers.
        let mut info: bpf_btf_info = unsafe { std::mem::zeroed() };
        info.name = name.as_mut_ptr() as u64;
        info.name_len = name.len() as u32;
        sys::info(&types, &mut info)?;
        let length = name.iter().position(|&byte| byte == 0).unwrap_or(0);
        if info.kernel_btf != 0 && name[..length] == *module.as_bytes() {
            return Ok(types);
        }
    }
}
