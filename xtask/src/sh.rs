//! Running other programs, with errors that name the program, the reason and
//! what it said.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::{env, fs};

use anyhow::{Context, Result, bail};

/// All packages but the probes, which are built for another machine. Who asks
/// for some of them alone has what they depend on built again, with features
/// of their own.
pub const HOST: &[&str] = &["--workspace", "--exclude", "kldtrace-probes"];

/// The folder of the workspace.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a folder of the workspace")
}

/// Where cargo puts what it builds.
pub fn target_dir() -> PathBuf {
    let dir = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    repository().join(dir)
}

/// Where `cargo install` puts programs.
fn cargo_bin() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    home.map(|home| home.join("bin"))
}

/// `program` as a full path, from `PATH`, cargo's folder and the system
/// folders that root's `PATH` may lack (`bpftool` is in /usr/sbin).
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(cargo_bin())
        .chain(extra)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// A command in the repository's folder.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let program = program.as_ref();
    let found = program.to_str().and_then(find);
    let mut command = Command::new(found.unwrap_or_else(|| program.into()));
    command.current_dir(repository());
    command
}

/// The cargo of the pinned toolchain.
pub fn cargo() -> Command {
    // Set by `cargo xtask`; rustup's wrapper obeys rust-toolchain.toml.
    command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The SHA-256 of a text, as hexadecimal digits.
pub fn sum(text: &str) -> Result<String> {
    let mut command = command("sha256sum");
    let mut sums = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start `sha256sum`")?;
    // Not as an argument, which may have 128 KiB: locks of packages are longer.
    let mut input = sums.stdin.take().context("sha256sum has no input")?;
    input
        .write_all(text.as_bytes())
        .context("sha256sum does not read")?;
    drop(input);
    let output = sums.wait_with_output().context("sha256sum")?;
    if !output.status.success() {
        bail!("`sha256sum` ended with {}", output.status);
    }
    String::from_utf8(output.stdout).context("sha256sum printed no text")
}

/// The command as one would type it, for messages.
pub fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(command.get_program());
    let words = command.get_args().map(OsStr::to_string_lossy);
    let words: Vec<_> = [program.to_string_lossy()]
        .into_iter()
        .chain(words)
        .collect();
    words.join(" ")
}

/// Runs a command whose output people see; its failure is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("`{}` ended with {status}", line(command));
    }
    Ok(())
}

/// Runs a command whose output people see, and returns how it ended.
pub fn status(command: &mut Command) -> Result<ExitStatus> {
    let line = line(command);
    command
        .status()
        .with_context(|| format!("cannot start `{line}`"))
}

/// Runs a command and returns what it printed; its failure is an error that
/// quotes its complaint.
pub fn output(command: &mut Command) -> Result<String> {
    let line = line(command);
    let output = command
        .output()
        .with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{line}` ended with {}: {}",
            output.status,
            complaint.trim()
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed what is not UTF-8"))
}

/// The text of a small file.
pub fn read(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-2, appendix B.3.
    #[test]
    fn long_texts_have_a_sum() {
        let sum = sum(&"a".repeat(1_000_000)).expect("a sum");
        let expected = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
        assert!(sum.starts_with(expected), "{sum}");
    }

    #[test]
    fn a_failure_quotes_the_complaint() {
        let error = output(command("sh").args(["-c", "echo no such pool >&2; exit 3"]));
        let text = format!("{:#}", error.expect_err("exit status 3"));
        assert!(
            text.contains("exit status: 3") && text.ends_with("no such pool"),
            "{text}"
        );
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run(&mut command("kldtrace-no-such-program"));
        let text = format!("{:#}", error.expect_err("there is no such program"));
        assert!(
            text.starts_with("cannot start `kldtrace-no-such-program`"),
            "{text}"
        );
    }
}
