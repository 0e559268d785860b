//! Attaching one hook after another, and the reasons of those that fail.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
};

use anyhow::Context as _;
use aya::{
    Ebpf,
    programs::{
        BtfTracePoint, CgroupAttachMode, CgroupSockAddr, FExit, ProgramError, RawTracePoint,
    },
};

use super::{
    cgroup2,
    loader::{Attached, Options},
    plan::Offsets,
};
use crate::catalogue::{Attach, Hook};

/// One attempt at attaching everything.
pub(super) struct Turn<'a> {
    pub(super) ebpf: Ebpf,
    types: Result<&'a aya::Btf, &'a aya::BtfError>,
    offsets: &'a Offsets,
    switchable: BTreeSet<&'a str>,
    options: &'a Options,
    /// Programs tried, so that each is loaded and attached once.
    done: BTreeMap<&'static str, Result<(), String>>,
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
            done: BTreeMap::new(),
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
            let before = self.done.get(hook.program).cloned();
            let result = before.clone().unwrap_or_else(|| self.attach(hook));
            self.done.insert(hook.program, result.clone());
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
