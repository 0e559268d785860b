//! Loads and attaches what the signals asked for need, and remembers why
//! what is missing is missing.

use std::{
    borrow::Cow,
    collections::HashMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use aya::{Ebpf, EbpfLoader, programs::BtfTracePoint};
use aya_log::EbpfLogger;
use log::Log;

use super::{
    attach::{AVOIDED, Probes, Turn},
    btf::{Btf, BtfError},
    cast::Cast,
    constants::{self, Global},
    cost, modules,
    object::{NODE, ObjectFile, fields_by_program},
    plan::{self, Offsets},
    returns::{Profile, remove_left_behind},
    sizes::{map_sizes, number_of_sets},
    trampolines::{self, Pair, Trampolines},
};
use crate::catalogue::{Hook, Signal};

/// Where the running kernel keeps its own BTF.
pub const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";
/// Where it keeps that of its modules.
pub const MODULE_BTF: &str = "/sys/kernel/btf";

/// What to load and within which limits.
#[derive(Clone, Debug)]
pub struct Options {
    /// Kernel memory for the accounts, in bytes, over all CPUs.
    pub map_memory: u64,
    /// Size of the event ring buffer in bytes: a power of two of pages.
    pub event_buffer: u32,
    /// Kinds of hooks not to use ([`Attach::kind`]), for diagnosis.
    pub avoid: Vec<&'static str>,
    /// Whether probes tell of unusual paths through aya-log.
    pub diagnostics: bool,
    /// The BTF file to resolve fields from.
    pub btf: PathBuf,
    /// What the configuration tells the probes, by the name of the setting.
    pub settings: Vec<(&'static str, u64)>,
    /// The folder with a BTF file for each module.
    pub module_btf: PathBuf,
    /// Whether others keep the object's module from being unloaded, so that
    /// programs of ours that would are no loss ([`Loaded::hold`]).
    pub held: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            map_memory: 16 << 20,
            event_buffer: 1 << 20,
            avoid: Vec::new(),
            diagnostics: false,
            btf: VMLINUX_BTF.into(),
            settings: Vec::new(),
            module_btf: MODULE_BTF.into(),
            held: false,
        }
    }
}

/// One attached program.
#[derive(Clone, Debug)]
pub struct Attached {
    /// Where it is attached, and how.
    pub hook: Hook,
    /// Candidates that were preferred but failed, with the reason.
    pub refused: Vec<(Hook, String)>,
}

/// What came of a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Availability {
    /// It is measured.
    Available,
    /// It is not, because.
    Absent(String),
    /// It will be when its module is loaded.
    Waiting(String),
    /// It will be when somebody asks for what it measures, and until then
    /// nothing is missing: a node needs no planes.
    Unused(String),
}

impl Availability {
    /// Why it is not measured now.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Available => None,
            Self::Absent(reason) | Self::Waiting(reason) | Self::Unused(reason) => Some(reason),
        }
    }
}

/// The loaded probes. Dropping it detaches them.
pub struct Loaded {
    /// aya's handle: maps and programs.
    pub ebpf: Ebpf,
    /// What the probes tell, where diagnostics are on.
    diagnostics: Option<EbpfLogger<&'static dyn Log>>,
    /// Probes at functions that are attached.
    pub(super) probes: Probes,
    /// As in [`Turn`].
    pub(super) trampolines: Option<Result<Trampolines, String>>,
    /// As in [`Options`], now.
    pub(super) held: bool,
    /// Probes at returns whose trampolines have come, and since when.
    pub(super) leaving: Vec<(Hook, Instant)>,
    /// What is attached.
    pub attached: Vec<Attached>,
    /// What came of each signal that was asked for, in catalogue order.
    pub signals: Vec<(&'static Signal, Availability)>,
    /// How long all of it took.
    pub took: Duration,
}

impl Loaded {
    /// Passes on to the log what the probes have told.
    pub fn flush_diagnostics(&mut self) {
        if let Some(diagnostics) = &mut self.diagnostics {
            diagnostics.flush();
        }
    }

    /// Runs of an attached program that the kernel left out.
    pub fn program_misses(&self, program: &str, profile: &Profile) -> Option<u64> {
        Some(self.account(program)?.misses + self.probes.missed(program, profile))
    }

    /// The attached programs, each once: one may sit at several hooks.
    pub fn programs(&self) -> Vec<&'static str> {
        let mut programs: Vec<_> = self.attached.iter().map(|one| one.hook.program).collect();
        programs.sort_unstable();
        programs.dedup();
        programs
    }

    /// The kernel's account of an attached program.
    pub fn account(&self, program: &str) -> Option<cost::Account> {
        if let Some(Ok(trampolines)) = &self.trampolines
            && let Some(account) = trampolines.account(program)
        {
            return Some(account);
        }
        cost::account(self.ebpf.program(program)?.fd().ok()?).ok()
    }
}

/// Loads and attaches; signals that the kernel cannot serve are absent, with
/// the reason, and cost nothing. `prepare` fills and takes the maps before the
/// first program is attached, and may be called again on fresh ones.
///
/// # Errors
/// Only what concerns all signals: the object file is refused, or the process
/// lacks the privilege for BPF; and what `prepare` says.
pub fn load<M>(
    object: &'static ObjectFile,
    wanted: &[&'static Signal],
    options: &Options,
    prepare: impl Fn(&mut Ebpf) -> anyhow::Result<M>,
) -> anyhow::Result<(Loaded, M)> {
    let started = Instant::now();
    remove_left_behind();
    let btf = modules::types(object, options);
    let offsets = Offsets::resolve(fields_by_program(object.elf)?, &btf);
    let numbers = Numbers::new(object, &btf);
    let cast = btf.as_ref().ok().and_then(Cast::of);
    let pairs = trampolines(object, wanted, &btf, options);
    drop(btf);
    // aya needs the kernel's types for typed programs; they are dropped when
    // all is attached.
    let types = aya::Btf::parse_file(&options.btf, aya::Endianness::default());
    let mut absent: HashMap<&'static str, String> = wanted
        .iter()
        .filter_map(|signal| Some((signal.name, offsets.signal_lacks(signal)?)))
        .collect();
    // A signal whose hook turns out to be missing must not leave its switch
    // on in another program: then all is loaded again without it. Each turn
    // takes at least one signal away.
    loop {
        let enabled: Vec<&'static Signal> = wanted
            .iter()
            .filter(|signal| !absent.contains_key(signal.name))
            .copied()
            .collect();
        let (ebpf, elf) = load_object(
            object,
            &enabled,
            &offsets,
            &numbers,
            cast,
            types.as_ref().ok(),
            options,
        )?;
        let pairs = pairs.as_ref().map(|pairs| {
            let (pairs, module) = pairs.as_ref().map_err(Clone::clone)?;
            Trampolines::new(&elf, &ebpf, pairs, module).map_err(|error| format!("{error:#}"))
        });
        let mut turn = Turn::new(
            ebpf,
            types.as_ref(),
            &offsets,
            plan::switchable_fields(wanted),
            options,
            pairs,
        );
        let maps = prepare(&mut turn.ebpf)?;
        let mut attached = Vec::new();
        let mut failed = Vec::new();
        for candidates in plan::hooks(&enabled) {
            match turn.attach_first(candidates) {
                Ok(Some(one)) => attached.push(one),
                Ok(None) => {}
                Err(reason) => failed.push((candidates, reason)),
            }
        }
        let mut again = false;
        for signal in &enabled {
            let missing = failed.iter().find(|(hook, _)| signal.hooks.contains(hook));
            if let Some((_, reason)) = missing {
                // Of a pair of hooks, one must not go on without the other.
                again |= signal.switch.is_some() || signal.hooks.len() > 1;
                absent.insert(signal.name, reason.clone());
            }
        }
        if !again {
            let signals = wanted
                .iter()
                .map(|signal| match absent.get(signal.name) {
                    Some(reason) => (*signal, Availability::Absent(reason.clone())),
                    None => (*signal, Availability::Available),
                })
                .collect();
            let diagnostics = options
                .diagnostics
                .then(|| EbpfLogger::init(&mut turn.ebpf))
                .transpose()
                .context("no diagnostics from the probes")?;
            let loaded = Loaded {
                ebpf: turn.ebpf,
                diagnostics,
                probes: turn.probes,
                trampolines: turn.trampolines,
                held: options.held,
                leaving: Vec::new(),
                attached,
                signals,
                took: started.elapsed(),
            };
            return Ok((loaded, maps));
        }
    }
}

/// The programs for trampolines of an object's module, and the module; `None`:
/// there are none.
fn trampolines(
    object: &ObjectFile,
    wanted: &[&'static Signal],
    btf: &Result<Btf, BtfError>,
    options: &Options,
) -> Option<Result<(Vec<Pair>, &'static str), String>> {
    let module = object.module?;
    // Both programs of a function or none.
    let mut avoided = options.avoid.iter();
    if avoided.any(|kind| ["fentry", "fexit"].contains(kind)) {
        return Some(Err(AVOIDED.to_owned()));
    }
    let pairs = match btf {
        Ok(btf) => Pair::all(&plan::hooks(wanted), btf).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match pairs {
        Ok(pairs) if pairs.is_empty() => None,
        Ok(_) if !trampolines::are_safe() => Some(Err(trampolines::UNSAFE.to_owned())),
        pairs => Some(pairs.map(|pairs| (pairs, module))),
    }
}

/// Numbers besides offsets that the probes are told before load.
struct Numbers(Vec<(&'static str, u64)>);

impl Numbers {
    fn new(object: &ObjectFile, btf: &Result<Btf, BtfError>) -> Self {
        if object.module.is_some() {
            return Self(Vec::new());
        }
        let arguments = |tracepoint| {
            btf.as_ref()
                .ok()
                .and_then(|btf| btf.tracepoint_arguments(tracepoint).ok())
        };
        let accept = btf
            .as_ref()
            .ok()
            .and_then(|btf| btf.function_arguments("inet_csk_accept").ok());
        Self(vec![
            (
                "SCHED_HAS_PREV_STATE",
                u64::from(arguments("sched_switch") >= Some(4)),
            ),
            (
                "RETRANSMIT_TELLS_ERROR",
                u64::from(arguments("tcp_retransmit_skb") >= Some(3)),
            ),
            ("ACCEPT_TAKES_TWO", u64::from(accept == Some(2))),
            ("REQUEST_FLUSH_SEQ", flush_seq(btf)),
            ("SYSCALL_ACCEPT", libc::SYS_accept.cast_unsigned()),
            ("SYSCALL_ACCEPT4", libc::SYS_accept4.cast_unsigned()),
        ])
    }
}

/// RQF_FLUSH_SEQ of include/linux/blk-mq.h: kernels that name their request
/// flags in an enum have the number of its bit there; where all flags are
/// macros, as in 5.14, it is bit 4.
fn flush_seq(btf: &Result<Btf, BtfError>) -> u64 {
    let bit = btf
        .as_ref()
        .ok()
        .and_then(|btf| btf.enumerator("__RQF_FLUSH_SEQ").ok().flatten());
    1_u64.checked_shl(bit.unwrap_or(4)).unwrap_or(0)
}

fn load_object(
    object: &ObjectFile,
    enabled: &[&'static Signal],
    offsets: &Offsets,
    numbers: &Numbers,
    cast: Option<Cast>,
    types: Option<&aya::Btf>,
    options: &Options,
) -> anyhow::Result<(Ebpf, Vec<u8>)> {
    let switches = enabled.iter().filter_map(|signal| signal.switch);
    let mut globals: Vec<Global> = offsets
        .globals()
        .chain(numbers.0.iter().copied())
        .chain(switches.map(|switch| (switch, 1)))
        .map(|(name, value)| Global::number(name, value))
        .collect();
    // Not every object has every setting, or reads pointers without types.
    let settings = options.settings.iter().copied();
    let cast_type = ("CAST_TYPE", cast.map_or(0, Cast::structure));
    globals.extend(
        settings
            .chain([cast_type])
            .map(|(name, value)| Global::number(name, value).where_it_is()),
    );
    globals.push(Global::log_level(if options.diagnostics {
        DIAGNOSTICS
    } else {
        0
    }));
    let sizes = map_sizes(enabled, options.map_memory, cpus()?);
    globals.extend(
        sizes
            .iter()
            .filter_map(|(map, sets)| Some((number_of_sets(map)?, *sets)))
            .map(|(name, sets)| Global::number(name, sets.into()).where_it_is()),
    );
    let mut loader = EbpfLoader::new();
    loader.btf(types).allow_unsupported_maps();
    for (name, entries) in &sizes {
        loader.map_max_entries(name, *entries);
    }
    loader.map_max_entries("EVENTS", options.event_buffer);
    if !options.diagnostics {
        loader.map_max_entries("AYA_LOGS", UNUSED_RING);
    }
    let elf = match cast {
        Some(cast) => Cow::Owned(cast.put_into(object.elf)?),
        None => Cow::Borrowed(object.elf),
    };
    let elf = constants::put_into(&elf, &globals)?;
    let ebpf = loader.load(&elf).map_err(explain_load)?;
    Ok((ebpf, elf))
}

/// The level of the probes' diagnostics, as aya-log counts: warnings.
const DIAGNOSTICS: u8 = 2;
/// A ring buffer that nobody writes to: one page.
pub(crate) const UNUSED_RING: u32 = 4096;

fn explain_load(error: aya::EbpfError) -> anyhow::Error {
    let denied = std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source())
        .filter_map(|e| e.downcast_ref::<std::io::Error>())
        .any(|e| e.raw_os_error() == Some(libc::EPERM));
    let error = anyhow::Error::new(error);
    if denied {
        error.context(
            "the kernel refuses BPF to this process: run as root, or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN",
        )
    } else {
        error.context("the probes' object file was refused")
    }
}

/// Possible CPUs: per-CPU maps have a value for each.
pub fn cpus() -> anyhow::Result<u64> {
    let cpus = aya::util::nr_cpus().map_err(|(path, error)| {
        anyhow::Error::new(error).context(format!("cannot count the CPUs in {path}"))
    })?;
    Ok(cpus as u64)
}

/// The empty program, attached: the benchmark's floor.
///
/// # Errors
/// When the kernel refuses it.
pub fn load_empty() -> anyhow::Result<Ebpf> {
    let types = aya::Btf::parse_file(VMLINUX_BTF, aya::Endianness::default())?;
    let mut loader = EbpfLoader::new();
    loader.btf(Some(&types)).allow_unsupported_maps();
    let mut ebpf = loader.load(NODE.elf).map_err(explain_load)?;
    let program = ebpf.program_mut("empty").context("no program empty")?;
    let program: &mut BtfTracePoint = program.try_into()?;
    program.load("sched_switch", &types)?;
    program.attach()?;
    Ok(ebpf)
}
