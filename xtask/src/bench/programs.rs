//! What the kernel accounts to the eBPF programs of one process.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::sh;

/// A loaded program's accounts, since load or over a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The function's name.
    pub name: String,
    /// Nanoseconds in the program.
    pub run_time: u64,
    /// How often it ran.
    pub runs: u64,
}

impl Program {
    /// Nanoseconds a run.
    pub fn average(&self) -> Option<f64> {
        (self.runs > 0).then(|| self.run_time as f64 / self.runs as f64)
    }
}

/// Programs by kernel id.
pub type Programs = BTreeMap<u64, Program>;

/// The programs that process `pid` holds, with their accounts up to now.
///
/// They are found by its file descriptors, so what others on this machine
/// load meanwhile is never counted in.
pub fn of_process(pid: u32) -> Result<Programs> {
    let ids = ids_of_process(pid)?;
    if ids.is_empty() {
        return Ok(Programs::new());
    }
    let list = sh::output(sh::command("bpftool").args(["--json", "prog", "show"]))?;
    let mut programs = parse(&list).context("bpftool --json prog show")?;
    programs.retain(|id, _| ids.contains(id));
    Ok(programs)
}

/// What `after` has more than `before`: the accounts of the time between.
pub fn between(before: &Programs, after: &Programs) -> Vec<Program> {
    let since = |id: &u64, now: &Program| {
        let then = before.get(id);
        Program {
            name: now.name.clone(),
            run_time: now
                .run_time
                .saturating_sub(then.map_or(0, |then| then.run_time)),
            runs: now.runs.saturating_sub(then.map_or(0, |then| then.runs)),
        }
    };
    after.iter().map(|(id, now)| since(id, now)).collect()
}

/// Average of the wake-up program plus average of the switch program: what
/// one wake-up and the switch that follows cost in runqlat's design.
pub fn wakeup_plus_switch(programs: &[Program]) -> Result<f64> {
    let average = |is_it: fn(&str) -> bool, what: &str| {
        let of_these: Vec<_> = programs
            .iter()
            .filter(|program| is_it(&program.name))
            .collect();
        let average = match of_these[..] {
            [program] => program.average(),
            _ => None,
        };
        average.with_context(|| format!("not one {what} program that ran among {}", list(programs)))
    };
    let wakeup = |name: &str| name.contains("sched_wakeup") && !name.contains("wakeup_new");
    let switch = |name: &str| name.contains("sched_switch");
    Ok(average(wakeup, "sched_wakeup")? + average(switch, "sched_switch")?)
}

/// All that these programs did, for each run of the one whose name contains
/// `event`: every program counts that ran at all, however seldom.
pub fn per_event(programs: &[Program], event: &str) -> Result<f64> {
    let total: u64 = programs.iter().map(|program| program.run_time).sum();
    Ok(total as f64 / events(programs, event)? as f64)
}

/// How often these programs ran, for each run of the one whose name contains
/// `event`.
pub fn runs_per_event(programs: &[Program], event: &str) -> Result<f64> {
    let runs: u64 = programs.iter().map(|program| program.runs).sum();
    Ok(runs as f64 / events(programs, event)? as f64)
}

fn events(programs: &[Program], event: &str) -> Result<u64> {
    let events: u64 = programs
        .iter()
        .filter(|program| program.name.contains(event))
        .map(|p| p.runs)
        .sum();
    if events == 0 {
        bail!("no run of a {event} program among {}", list(programs));
    }
    Ok(events)
}

fn list(programs: &[Program]) -> String {
    let each = programs
        .iter()
        .map(|Program { name, runs, .. }| format!("{name} ({runs} runs)"));
    let each: Vec<_> = each.collect();
    if each.is_empty() {
        "no programs".to_owned()
    } else {
        each.join(", ")
    }
}

/// Program ids in the file descriptors of a process: programs and links.
fn ids_of_process(pid: u32) -> Result<BTreeSet<u64>> {
    let dir = format!("/proc/{pid}/fdinfo");
    let files = fs::read_dir(&dir).with_context(|| format!("cannot read {dir}"))?;
    // A descriptor may be closed while we look.
    let texts = files
        .flatten()
        .filter_map(|file| fs::read_to_string(file.path()).ok());
    Ok(texts.filter_map(|text| id_in(&text)).collect())
}

/// `bpf_prog_show_fdinfo` and `bpf_link_show_fdinfo` in the kernel's
/// kernel/bpf/syscall.c both print this line.
fn id_in(fdinfo: &str) -> Option<u64> {
    fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok())
}

fn parse(json: &str) -> Result<Programs> {
    let list: Value = serde_json::from_str(json)?;
    let list = list.as_array().context("not a list of programs")?;
    let number = |program: &Value, key: &str| program.get(key).and_then(Value::as_u64);
    let program = |value: &Value| -> Option<(u64, Program)> {
        let name = value
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or("(no name)");
        Some((
            number(value, "id")?,
            Program {
                name: name.to_owned(),
                // Absent as long as the accounts never were switched on.
                run_time: number(value, "run_time_ns").unwrap_or(0),
                runs: number(value, "run_cnt").unwrap_or(0),
            },
        ))
    };
    list.iter()
        .map(|value| program(value).context("a program without an id"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(name: &str, run_time: u64, runs: u64) -> Program {
        Program {
            name: name.to_owned(),
            run_time,
            runs,
        }
    }

    /// As bpftool 7.1 prints runqlat's programs.
    const JSON: &str = r#"[
        {"id":173,"type":"tracing","name":"sched_wakeup","tag":"b205300bf137067c",
         "gpl_compatible":true,"run_time_ns":65808151,"run_cnt":674134,"map_ids":[156],"btf_id":148},
        {"id":175,"type":"tracing","name":"sched_wakeup_new","run_time_ns":14620,"run_cnt":17},
        {"id":176,"type":"tracing","name":"sched_switch","run_time_ns":194480854,"run_cnt":1169546},
        {"id":177,"type":"cgroup_skb","tag":"6deef7357e7b4530"}]"#;

    #[test]
    fn bpftool_json() {
        let programs = parse(JSON).expect("programs");
        assert_eq!(
            programs[&176],
            program("sched_switch", 194_480_854, 1_169_546)
        );
        assert_eq!(programs[&177], program("(no name)", 0, 0));
        assert!(parse("[{}]").is_err() && parse("{}").is_err() && parse("").is_err());
    }

    #[test]
    fn runqlat_pairs_wakeup_and_switch() {
        let programs: Vec<_> = parse(JSON).expect("programs").into_values().collect();
        let cost = wakeup_plus_switch(&programs).expect("a cost");
        assert!((cost - (65_808_151.0 / 674_134.0 + 194_480_854.0 / 1_169_546.0)).abs() < 1e-9);
        // As raw tracepoints the programs have other names.
        let raw = [
            program("handle_sched_wakeup", 300, 1),
            program("handle_sched_switch", 600, 1),
        ];
        assert!((wakeup_plus_switch(&raw).expect("a cost") - 900.0).abs() < 1e-9);
    }

    #[test]
    fn what_did_not_run_has_no_cost() {
        let error = wakeup_plus_switch(&[program("sched_wakeup", 0, 0)]).expect_err("no runs");
        assert!(
            format!("{error}").contains("sched_wakeup (0 runs)"),
            "{error}"
        );
        assert!(per_event(&[program("a", 5, 1)], "sched_switch").is_err());
        assert!(per_event(&[], "sched_switch").is_err());
    }

    #[test]
    fn seldom_programs_weigh_little() {
        let programs = [
            program("sched_switch", 9_000, 100),
            program("sched_migrate", 500, 1),
        ];
        assert!((per_event(&programs, "sched_switch").expect("a cost") - 95.0).abs() < 1e-9);
    }

    #[test]
    fn the_time_between_two_looks() {
        let before = Programs::from([(1, program("a", 100, 10))]);
        let after = Programs::from([(1, program("a", 150, 12)), (2, program("b", 7, 1))]);
        assert_eq!(
            between(&before, &after),
            [program("a", 50, 2), program("b", 7, 1)]
        );
    }

    #[test]
    fn ids_of_programs_and_links() {
        assert_eq!(
            id_in("pos:\t0\nflags:\t02000002\nprog_type:\t26\nprog_id:\t173\n"),
            Some(173)
        );
        assert_eq!(
            id_in("pos:\t0\nlink_type:\ttracing\nlink_id:\t3\nprog_id:\t9\n"),
            Some(9)
        );
        assert_eq!(id_in("pos:\t0\nmap_type:\t2\nmap_id:\t1\n"), None);
    }
}
