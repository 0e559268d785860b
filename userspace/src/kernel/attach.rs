//! Attaching one hook after another, and the reasons of those that fail.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    os::fd::AsFd as _,
};

use anyhow::Context as _;
use aya::{
    Ebpf,
    programs::{
        BtfTracePoint, CgroupAttachMode, CgroupSockAddr, FExit, KProbe, ProgramError, RawTracePoint,
    },
};

use super::{
    cgroup2,
    loader::{Attached, Options},
    plan::Offsets,
    returns::ReturnProbe,
};
use crate::catalogue::{Attach, Hook};

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
    /// Return probes that are attached, by program.
    pub(super) returns: Vec<(&'static str, ReturnProbe)>,
}

impl<'a> Turn<'a> {
    pub(super) fn new(
        ebpf: Ebpf,
        types: Result<&'a aya::Btf, &'a aya::BtfError>,
        offsets: &'a Offsets,
        switchable: BTreeSet<&'a str>,
        options: &'a Options,
    ) -> Self {
        Self {
            ebpf,
            types,
            offsets,
            switchable,
            options,
            done: HashMap::new(),
            returns: Vec::new(),
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
            return Err("avoided by the configuration".to_owned());
        }
        if let Some(reason) = self.offsets.program_lacks(hook.program, &self.switchable) {
            return Err(reason);
        }
        self.attach_program(hook).map_err(|error| brief(&error))
    }

    fn attach_program(&mut self, hook: &Hook) -> anyhow::Result<()> {
        let types = self.types.map_err(|error| anyhow::anyhow!("{error}"));
        let program = self
            .ebpf
            .program_mut(hook.program)
            .with_context(|| format!("no program {} in the object file", hook.program))?;
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
            (Attach::Kprobe(name), program) => {
                let program: &mut KProbe = program.try_into()?;
                load_once(program)?;
                program
                    .attach(name, 0)
                    .map_err(|error| no_function(error, name))?;
            }
            (Attach::Kretprobe(name), program) => {
                let program: &mut KProbe = program.try_into()?;
                load_once(program)?;
                let probe = ReturnProbe::attach(program.fd()?.as_fd(), name)?;
                self.returns.push((hook.program, probe));
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
        }
        Ok(())
    }
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
        .filter_map(|e| e.downcast_ref::<std::io::Error>())
        .any(|e| e.raw_os_error() == Some(libc::ENOENT));
    if absent && std::path::Path::new(KPROBE_SOURCE).exists() {
        return anyhow::anyhow!("no function {name} in this kernel");
    }
    error.into()
}

/// The reason in one line: the verifier's log, pages of it, goes to the log.
fn brief(error: &anyhow::Error) -> String {
    if let Some(ProgramError::LoadError {
        io_error,
        verifier_log,
    }) = error.downcast_ref()
    {
        let log = verifier_log.to_string();
        tracing::debug!(%log, "the verifier refused a program");
        let last = log.lines().rev().find(|line| {
            !["processed ", "verification time", "stack depth"]
                .iter()
                .any(|statistics| line.starts_with(statistics))
                && !line.is_empty()
        });
        return match last {
            Some(line) => format!("load: {io_error}: {line}"),
            None => format!("load: {io_error}"),
        };
    }
    format!("{error:#}")
}
