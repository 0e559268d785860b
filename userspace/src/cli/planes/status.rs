//! The subcommands that only look.

use std::{fmt::Write as _, io::Write as _, path::Path, process::ExitCode};

use crate::planes::{
    diff,
    interfaces::Mode,
    roots::Roots,
    saved::{Files, Saved},
    state::{Act, State, Why},
    status::{self, Packets, Plane, Report},
};

pub(super) fn diff(roots: &Roots, file: &Path) -> anyhow::Result<ExitCode> {
    let (files, _) = Files::load(file)?;
    let state = State::load(roots)?;
    let current = state.current.as_ref().map(|one| one.generation);
    let applied = match current {
        Some(generation) => Some(Saved::load(roots, generation)?),
        None => None,
    };
    let old = current.map_or("nothing".to_owned(), |one| format!("generation {one}"));
    let new = file.display().to_string();
    let text = diff::diff(applied.as_ref(), &files, [&old, &new]);
    write!(std::io::stdout(), "{text}")?;
    Ok(if text.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

pub(super) fn status(roots: &Roots, json: bool) -> anyhow::Result<ExitCode> {
    let report = status::report(roots)?;
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", text(&report))?;
    }
    Ok(if report.problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn by(act: &Act) -> String {
    let at = i64::try_from(act.at).ok();
    let at = at.and_then(|at| jiff::Timestamp::from_second(at).ok());
    let mut text = format!(
        "{} by {}",
        at.map_or("at an unknown time".to_owned(), |at| at.to_string()),
        act.user
    );
    if let Some(user) = &act.sudo_user {
        let _ = write!(text, ", sudo of {user}");
    }
    if let Some(ssh) = &act.ssh_connection {
        let _ = write!(text, ", ssh {ssh}");
    }
    text
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |words: String| text += &(words + "\n");
    match (report.generation, &report.applied_by) {
        (Some(generation), Some(act)) => {
            line(format!("generation {generation}, applied {}", by(act)));
        }
        _ => line("no policy is applied".to_owned()),
    }
    if let Some(left) = report.confirm_within_seconds {
        line(format!(
            "taken back in {left} s, unless `kldtrace planes confirm` comes"
        ));
    }
    if let Some(generation) = report.previous_generation {
        line(format!(
            "`kldtrace planes rollback` goes to generation {generation}"
        ));
    }
    if let Some(taken) = &report.taken_back {
        let why = match taken.why {
            Why::Asked => "",
            Why::NotConfirmed => ": not confirmed in time",
        };
        line(format!(
            "generation {} was taken back {}{why}",
            taken.generation,
            by(&taken.by)
        ));
    }
    if let Some(act) = &report.opened_by {
        line(format!("opened {}", by(act)));
    }
    for plane in &report.planes {
        text += &of_plane(plane);
    }
    for (loss, count) in &report.losses {
        let _ = writeln!(text, "lost: {loss} {count}");
    }
    for problem in &report.problems {
        let _ = writeln!(text, "PROBLEM: {problem}");
    }
    text
}

fn of_plane(plane: &Plane) -> String {
    let mut text = format!("\n{} ({})\n", plane.name, plane.mode);
    for interface in &plane.interfaces {
        let _ = writeln!(
            text,
            "  {}: XDP {}, tcx {}",
            interface.name,
            interface.xdp.map_or("off", Mode::as_str),
            if interface.tcx { "on" } else { "off" }
        );
    }
    if plane.interfaces.is_empty() {
        text += "  no interface here\n";
    }
    let _ = writeln!(
        text,
        "  {:<40} {:<10} {:>12} {:>16}",
        "", "verdict", "packets", "bytes"
    );
    let mut row = |what: &str, verdict: &str, packets: u64, bytes: u64| {
        let _ = writeln!(text, "  {what:<40} {verdict:<10} {packets:>12} {bytes:>16}");
    };
    for one in &plane.verdicts {
        row(one.reason, one.verdict, one.packets, one.bytes);
    }
    for one in &plane.rules {
        let name = match &*one.rule.kind {
            "default" | "floor" => format!("{} of {}", one.rule.kind, one.rule.place),
            "blocked" => format!("@{} of {}", one.rule.name, one.rule.place),
            _ => format!("{} of {}", one.rule.name, one.rule.place),
        };
        let all = [
            ("pass", one.passed),
            ("drop", one.dropped),
            ("would drop", one.would_drop),
            ("over rate", one.over_rate),
        ];
        let seen = all.iter().filter(|(_, count)| *count != Packets::default());
        for (verdict, count) in seen {
            row(&name, verdict, count.packets, count.bytes);
        }
    }
    text
}
