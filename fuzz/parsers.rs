//! All targets in one program, of which `KLDTRACE_FUZZ` names one: built once
//! in place of a dozen times.
#![no_main]

use std::{env, sync::LazyLock};

use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = env::var("KLDTRACE_FUZZ").expect("KLDTRACE_FUZZ names a target");
    let all = kldtrace_exporters::fuzz::TARGETS.into_iter();
    let mut all = all.chain(kldtrace::fuzz::TARGETS);
    let (_, run) = all
        .find(|(target, _)| *target == name)
        .expect("a target of that name");
    run
});

fuzz_target!(|data: &[u8]| TARGET(data));
