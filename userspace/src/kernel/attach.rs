//! Attaching one hook after another, and the reasons of those that fail.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io,
    os::fd::AsFd as _,
};

use anyhow::{Context as _, anyhow, bail, ensure};
use aya::{
    Ebpf,
    programs::{
        BtfTracePoint, CgroupAttachMode, CgroupSockAddr, FExit, KProbe, Program, ProgramError,
        RawTracePoint, kprobe::KProbeLinkId,
    },
};

use super::{
    cgroup2,
    hold::NOBODY_HOLDS,
    loader::{Attached, Options},
    plan::Offsets,
    returns::{Profile, ReturnProbe},
    trampolines::Trampolines,
};
use crate::catalogue::{Attach, Hook};

/// Why a kind of hooks is not used.
pub(super) const AVOIDED: &str = "avoided by the configuration";
/// There when the kernel has kprobes.
const KPROBE_SOURCE: &str = "/sys/bus/event_source/devices/kprobe/type";

/// One attempt at attaching everything.
pub(super) struct Turn<'a> {
    pub(super) ebpf: Ebpf,
    types: Result<&'a aya::Btf, &'a aya::BtfError>,
    offsets: &'a Offsets,
    switchable: BTreeSet<&'a str>,
    options: &'a Options,
    /// Hooks tried, so that each is attached once.
    done: HashMap<Hook, Result<(), String>>,
    /// Probes at functions that are attached.
    pub(super) probes: Probes,
    /// What trampolines of a module want, or why there can be none; `None`: the
    /// programs are the kernel's own.
    pub(super) trampolines: Option<Result<Trampolines, String>>,
}

impl<'a> Turn<'a> {
    pub(super) fn new(
        ebpf: Ebpf,
        types: Result<&'a aya::Btf, &'a aya::BtfError>,
        offsets: &'a Offsets,
        switchable: BTreeSet<&'a str>,
        options: &'a Options,
        trampolines: Option<Result<Trampolines, String>>,
    ) -> Self {
        Self {
            trampolines,
            ebpf,
            types,
            offsets,
            switchable,
            options,
            done: HashMap::new(),
            probes: Probes::default(),
        }
    }

    /// Attaches the first candidate that the kernel takes. `None`: another
    /// hook has attached that program already.
    pub(super) fn attach_first(
        &mut self,
        candidates: &'static [Hook],
    ) -> Result<Option<Attached>, String> {
        let mut refused = Vec::new();
        for hook in candidates {
            let before = self.done.get(hook).cloned();
            let result = before.clone().unwrap_or_else(|| self.attach(hook));
            self.done.insert(*hook, result.clone());
            match result {
                Ok(()) if before.is_some() => return Ok(None),
                Ok(()) => {
                    return Ok(Some(Attached {
                        hook: *hook,
                        refused,
                    }));
                }
                Err(reason) => refused.push((*hook, reason)),
            }
        }
        let reasons: Vec<String> = refused
            .into_iter()
            .map(|(hook, reason)| format!("{}: {reason}", hook.attach))
            .collect();
        Err(reasons.join("; "))
    }

    fn attach(&mut self, hook: &Hook) -> Result<(), String> {
        if self
            .options
            .avoid
            .iter()
            .any(|kind| *kind == hook.attach.kind())
        {
            return Err(AVOIDED.to_owned());
        }
        if let Some(reason) = self.offsets.program_lacks(hook.program, &self.switchable) {
            return Err(reason);
        }
        self.attach_program(hook).map_err(|error| brief(&error))
    }

    fn attach_program(&mut self, hook: &Hook) -> anyhow::Result<()> {
        if let (Attach::Fentry(function) | Attach::Fexit(function), Some(trampolines)) =
            (hook.attach, &mut self.trampolines)
        {
            let trampolines = trampolines.as_mut().map_err(|why| anyhow!("{why}"))?;
            ensure!(self.options.held, NOBODY_HOLDS);
            return trampolines.attach(function);
        }
        if let Attach::Kprobe(_) | Attach::Kretprobe(_) = hook.attach {
            return self.probes.attach(&mut self.ebpf, hook);
        }
        let types = self.types.map_err(|error| anyhow::anyhow!("{error}"));
        let program = program(&mut self.ebpf, hook)?;
        match (hook.attach, program) {
            (Attach::TpBtf(name), program) => {
                let program: &mut BtfTracePoint = program.try_into()?;
                program.load(name, types?)?;
                program.attach()?;
            }
            (Attach::RawTp(name), program) => {
                let program: &mut RawTracePoint = program.try_into()?;
                program.load()?;
                program.attach(name)?;
            }
            (Attach::Fexit(name), program) => {
                let program: &mut FExit = program.try_into()?;
                program.load(name, types?)?;
                program.attach()?;
            }
            (Attach::CgroupSockAddr(_), program) => {
                let root = cgroup2::root().context("no cgroup v2 hierarchy is mounted")?;
                let root = File::open(&root).with_context(|| root.display().to_string())?;
                let program: &mut CgroupSockAddr = program.try_into()?;
                program.load()?;
                // A link may always stand beside others; the flag that says so
                // is for attaching without a link, and refused with one.
                program.attach(root, CgroupAttachMode::Single)?;
            }
            (Attach::Fentry(_) | Attach::Kprobe(_) | Attach::Kretprobe(_), _) => {
                bail!("no way to attach this kind here")
            }
        }
        Ok(())
    }
}

/// Probes at entries and returns of functions.
#[derive(Debug, Default)]
pub(super) struct Probes {
    entries: Vec<(Hook, KProbeLinkId)>,
    returns: Vec<(Hook, ReturnProbe)>,
}

impl Probes {
    /// Attaches a program of an object.
    pub(super) fn attach(&mut self, ebpf: &mut Ebpf, hook: &Hook) -> anyhow::Result<()> {
        let program: &mut KProbe = program(ebpf, hook)?.try_into()?;
        load_once(program)?;
        let function = hook.attach.target();
        if let Attach::Kretprobe(_) = hook.attach {
            let probe = ReturnProbe::attach(program.fd()?.as_fd(), function)?;
            self.returns.push((*hook, probe));
        } else {
            let link = program
                .attach(function, 0)
                .map_err(|error| no_function(error, function))?;
            self.entries.push((*hook, link));
        }
        Ok(())
    }

    /// Detaches it again.
    pub(super) fn detach(&mut self, ebpf: &mut Ebpf, hook: &Hook) -> anyhow::Result<()> {
        self.returns.retain(|(one, _)| one != hook);
        let Some(at) = self.entries.iter().position(|(one, _)| one == hook) else {
            return Ok(());
        };
        let (_, link) = self.entries.swap_remove(at);
        let program: &mut KProbe = program(ebpf, hook)?.try_into()?;
        program.detach(link)?;
        Ok(())
    }

    /// Returns of a program's functions that were missed.
    pub(super) fn missed(&self, program: &str, profile: &Profile) -> u64 {
        let returns = self.returns.iter();
        let returns = returns.filter(|(hook, _)| hook.program == program);
        returns.map(|(_, probe)| probe.missed(profile)).sum()
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, hook: &Hook) -> anyhow::Result<&'a mut Program> {
    ebpf.program_mut(hook.program)
        .with_context(|| format!("no program {} in the object file", hook.program))
}

/// A probe may sit at several functions.
fn load_once(program: &mut KProbe) -> Result<(), ProgramError> {
    match program.fd() {
        Ok(_) => Ok(()),
        Err(_) => program.load(),
    }
}

/// What most often goes wrong with a kprobe, in plain words.
fn no_function(error: ProgramError, name: &str) -> anyhow::Error {
    let absent = std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source())
        .filter_map(|e| e.downcast_ref::<io::Error>())
        .any(|e| e.raw_os_error() == Some(libc::ENOENT));
    if absent && std::path::Path::new(KPROBE_SOURCE).exists() {
        return anyhow::anyhow!("no function {name} in this kernel");
    }
    error.into()
}

/// Why the verifier refused a program, in one line.
pub(super) fn refused(error: &io::Error, log: &str) -> String {
    tracing::debug!(%log, "the verifier refused a program");
    let last = log.lines().rev().find(|line| {
        !["processed ", "verification time", "stack depth"]
            .iter()
            .any(|statistics| line.starts_with(statistics))
            && !line.is_empty()
    });
    match last {
        Some(line) => format!("load: {error}: {line}"),
        None => format!("load: {error}"),
    }
}

/// The reason in one line: the verifier's log, pages of it, goes to the log.
pub(super) fn brief(error: &anyhow::Error) -> String {
    if let Some(ProgramError::LoadError {
        io_error,
        verifier_log,
    }) = error.downcast_ref()
    {
        return refused(io_error, &verifier_log.to_string());
    }
    format!("{error:#}")
}
