//! All targets in one program, of which `KLDTRACE_FUZZ` names one: built once
//! in place of a dozen times.
#![no_main]

use std::{env, sync::LazyLock};

use kldtrace_exporters::fuzz;
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<String> =
    LazyLock::new(|| env::var("KLDTRACE_FUZZ").expect("KLDTRACE_FUZZ names a target"));

fuzz_target!(|data: &[u8]| fuzz::run(&TARGET, data));
