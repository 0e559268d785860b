//! The pinned toolchain, and programs that come from crates.io.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::{Goal, installing, say};
use crate::sh;

/// What rust-toolchain.toml lists: rust-src is the core library that the
/// probes are built from.
const COMPONENTS: &[&str] = &["rust-src", "rustfmt", "clippy"];

/// A program from crates.io.
struct Program {
    goal: Goal,
    name: &'static str,
    version: &'static str,
    /// What it is for and how long it took on two cores.
    why: &'static str,
    arguments: &'static [&'static str],
    environment: &'static [(&'static str, &'static str)],
}

const PROGRAMS: &[Program] = &[
    Program {
        goal: Goal::Build,
        name: "bpf-linker",
        version: "0.13.0",
        why: "links the probes; about 1 minute",
        arguments: &["--no-default-features", "--features", "llvm-22"],
        environment: &[("LLVM_PREFIX", "/usr/lib/llvm-22")],
    },
    Program {
        goal: Goal::Test,
        name: "cargo-deny",
        version: "0.20.2",
        why: "checks licences and sources; about 2 minutes",
        arguments: &[],
        environment: &[],
    },
    Program {
        goal: Goal::Test,
        name: "mdbook",
        version: "0.5.4",
        why: "builds the book; about 1 minute",
        arguments: &["--no-default-features", "--features", "search"],
        environment: &[],
    },
];

/// The channel that rust-toolchain.toml pins, with its components.
pub fn toolchain() -> Result<()> {
    let start = Instant::now();
    let channel = channel(&sh::read(sh::repository().join("rust-toolchain.toml"))?)?;
    if sh::find("rustup").is_none() {
        bail!(
            "setup: Rust {channel}: rustup is not there, and the probes are built from rust-src of \
             that very release: install rustup from https://rustup.rs, then repeat"
        );
    }
    if !is_installed(&channel)? {
        let install = ["toolchain", "install", &channel, "--profile", "minimal"];
        installing(&format!("Rust {channel}"), "installing with rustup", || {
            rustup(&install).context("rust-toolchain.toml pins this release and no other will do")
        })?;
    }
    let list = ["component", "list", "--installed", "--toolchain", &channel];
    let missing = missing_components(&sh::output(sh::command("rustup").args(list))?);
    if missing.is_empty() {
        say(
            &format!("Rust {channel}"),
            &format!("there, with {}", COMPONENTS.join(", ")),
            start,
        );
        return Ok(());
    }
    let plan = format!("adding {}", missing.join(" "));
    installing(&format!("Rust {channel}"), &plan, || {
        rustup(&[&["component", "add", "--toolchain", &channel], &missing[..]].concat())
    })
}

/// What `goal` needs from crates.io.
pub fn programs(goal: Goal) -> Result<()> {
    for program in PROGRAMS.iter().filter(|program| program.goal <= goal) {
        let start = Instant::now();
        let step = format!("{} {}", program.name, program.version);
        match installed_version(program.name) {
            Some(version) if version == program.version => say(&step, "there", start),
            other => {
                let before =
                    other.map_or(String::new(), |version| format!(", replacing {version}"));
                let plan = format!("installing with cargo{before}; it {}", program.why);
                installing(&step, &plan, || sh::run(&mut install_command(program)))?;
            }
        }
    }
    Ok(())
}

fn install_command(program: &Program) -> Command {
    let mut command = sh::cargo();
    command
        .args([
            "install",
            "--quiet",
            "--locked",
            "--force",
            "--version",
            program.version,
        ])
        .args(program.arguments)
        .arg(program.name)
        .envs(program.environment.iter().copied())
        // Not among the artefacts of this workspace, which it would outweigh.
        .env_remove("CARGO_TARGET_DIR");
    command
}

fn rustup(arguments: &[&str]) -> Result<()> {
    sh::run(
        sh::command("rustup")
            .args(arguments)
            .stdout(std::io::stderr()),
    )
}

fn is_installed(channel: &str) -> Result<bool> {
    let toolchains = sh::output(sh::command("rustup").args(["toolchain", "list", "--quiet"]))?;
    Ok(toolchains
        .lines()
        .any(|line| line.starts_with(&format!("{channel}-"))))
}

/// `channel = "1.95.0"` in rust-toolchain.toml.
fn channel(toolchain_file: &str) -> Result<String> {
    toolchain_file
        .lines()
        .find_map(|line| line.trim().strip_prefix("channel"))
        .and_then(|rest| rest.split('"').nth(1))
        .map(str::to_owned)
        .context("rust-toolchain.toml: no line `channel = \"…\"`")
}

/// rustup lists `clippy-x86_64-unknown-linux-gnu`, but plain `rust-src`.
fn missing_components(installed: &str) -> Vec<&'static str> {
    let is_there = |name: &str| {
        installed
            .lines()
            .filter_map(|line| line.strip_prefix(name))
            .any(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    COMPONENTS
        .iter()
        .copied()
        .filter(|name| !is_there(name))
        .collect()
}

/// What `NAME --version` says, or `None` where there is no such program.
fn installed_version(name: &str) -> Option<String> {
    sh::find(name)?;
    version(&sh::output(sh::command(name).arg("--version")).ok()?)
}

/// The version in `bpf-linker 0.13.0` or `mdbook v0.5.4`.
fn version(line: &str) -> Option<String> {
    let word = line.split_whitespace().nth(1)?;
    Some(word.trim_start_matches('v').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_the_programs_print_them() {
        assert_eq!(version("bpf-linker 0.13.0\n").as_deref(), Some("0.13.0"));
        assert_eq!(version("mdbook v0.5.4").as_deref(), Some("0.5.4"));
        assert_eq!(
            version("cargo-deny 0.20.2 (abc)").as_deref(),
            Some("0.20.2")
        );
        assert_eq!(version(""), None);
    }

    #[test]
    fn the_channel_is_read_from_the_file() {
        let file = "[toolchain]\nchannel = \"1.95.0\"\nprofile = \"minimal\"\n";
        assert_eq!(channel(file).expect("a channel"), "1.95.0");
        assert!(channel("[toolchain]\n").is_err());
    }

    #[test]
    fn components_with_and_without_a_target() {
        let installed =
            "cargo-x86_64-unknown-linux-gnu\nclippy-x86_64-unknown-linux-gnu\nrust-src\n";
        assert_eq!(missing_components(installed), ["rustfmt"]);
        assert_eq!(
            missing_components("rust-srcs\nrustfmt-x\nclippy-x\n"),
            ["rust-src"]
        );
    }
}
