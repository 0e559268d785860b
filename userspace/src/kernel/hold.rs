//! Whether others keep a module from being unloaded, and what follows for its
//! programs: trampolines while they do, and probes, which go with the module,
//! from the moment when they no longer do.

use std::time::{Duration, Instant};

use anyhow::anyhow;

use super::{
    attach::brief,
    loader::{Attached, Loaded},
    plan,
};
use crate::catalogue::{Attach, Hook};

/// Why there is no trampoline, and may be one later.
pub(super) const NOBODY_HOLDS: &str =
    "would keep the module from being unloaded, and nobody else does now";

/// How long calls may take that a probe at returns still sees the end of: longer
/// than `LONG_AGO` of probes/src/zfs/frames.rs.
const CALLS_END: Duration = Duration::from_secs(2);

fn is_trampoline(hook: &Hook) -> bool {
    matches!(hook.attach, Attach::Fentry(_) | Attach::Fexit(_))
}

/// The trampoline that a probe stands in for until others hold the module.
fn postponed(attached: &Attached) -> Option<Hook> {
    let refused = attached.refused.iter();
    let mut refused = refused.filter(|(_, reason)| reason == NOBODY_HOLDS);
    refused.next().map(|(hook, _)| *hook)
}

impl Loaded {
    /// Puts trampolines in the place of probes if others hold the module now,
    /// and probes in that of trampolines if they no longer do.
    ///
    /// For a moment both are attached, and the programs count a call once
    /// (probes/src/zfs/frames.rs: `SAME_CALL`). Probes at returns stay longer, for
    /// calls that were under way. But where `idle` says that nobody can call the
    /// functions any more, trampolines go first: whoever wants to unload the module
    /// waits for that alone. To be called again and again.
    ///
    /// # Errors
    /// When probes cannot be attached any more.
    pub fn hold(&mut self, held: bool, idle: impl FnOnce() -> bool) -> anyhow::Result<()> {
        self.let_returns_go()?;
        if held == self.held {
            return Ok(());
        }
        self.held = held;
        if held {
            self.take_trampolines();
            return Ok(());
        }
        if !self.attached.iter().any(|one| self.by_trampoline(one)) {
            return Ok(());
        }
        if idle() {
            self.release();
        }
        self.take_probes()?;
        self.release();
        Ok(())
    }

    /// Not so of the kernel's own functions, whose programs keep no module.
    fn by_trampoline(&self, attached: &Attached) -> bool {
        self.trampolines.is_some() && is_trampoline(&attached.hook)
    }

    fn let_returns_go(&mut self) -> anyhow::Result<()> {
        let late = |(_, since): &mut (_, Instant)| since.elapsed() > CALLS_END;
        for (probe, _) in self.leaving.extract_if(.., late) {
            self.probes.detach(&mut self.ebpf, &probe)?;
        }
        Ok(())
    }

    fn release(&mut self) {
        if let Some(Ok(trampolines)) = &mut self.trampolines {
            trampolines.detach();
        }
    }

    fn take_trampolines(&mut self) {
        let Some(Ok(trampolines)) = &mut self.trampolines else {
            return;
        };
        for attached in &mut self.attached {
            let Some(trampoline) = postponed(attached) else {
                continue;
            };
            let probe = attached.hook;
            let mut result = trampolines.attach(trampoline.attach.target());
            if result.is_ok() {
                if let Attach::Kretprobe(_) = probe.attach {
                    self.leaving.push((probe, Instant::now()));
                } else {
                    result = self.probes.detach(&mut self.ebpf, &probe);
                }
            }
            attached.refused.retain(|(hook, _)| *hook != trampoline);
            match result {
                Ok(()) => attached.hook = trampoline,
                Err(error) => {
                    let error = brief(&error);
                    let hook = trampoline.attach.to_string();
                    tracing::warn!(hook, error, "no trampoline");
                    attached.refused.push((trampoline, error));
                }
            }
        }
    }

    fn take_probes(&mut self) -> anyhow::Result<()> {
        let hooks = plan::hooks(self.signals.iter().map(|(signal, _)| signal));
        // Returns first: no entry is without its return.
        for at in (0..self.attached.len()).rev() {
            if !self.by_trampoline(&self.attached[at]) {
                continue;
            }
            let attached = &mut self.attached[at];
            let trampoline = attached.hook;
            let candidates = hooks.iter().find(|hooks| hooks.contains(&trampoline));
            let probes = candidates.into_iter().copied().flatten();
            let mut probes = probes.filter(|hook| !is_trampoline(hook));
            let mut why = anyhow!("no probe in place of {}", trampoline.attach);
            attached.hook = loop {
                let hook = probes.next().ok_or(why)?;
                if let Some(at) = self.leaving.iter().position(|(probe, _)| probe == hook) {
                    self.leaving.swap_remove(at);
                    break *hook;
                }
                match self.probes.attach(&mut self.ebpf, hook) {
                    Ok(()) => break *hook,
                    Err(error) => why = error.context(hook.attach.to_string()),
                }
            };
            attached.refused = vec![(trampoline, NOBODY_HOLDS.to_owned())];
        }
        Ok(())
    }
}
