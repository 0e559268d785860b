//! `cargo xtask dashboards`: makes dashboards/json/ of dashboards/boards/, and
//! reads it as Grafana, Prometheus and Loki would.
//!
//! What that takes comes from PyPI and npm, pinned by hashes, and lies in
//! cargo's target folder under the sum of what pins it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::setup;
use crate::sh;

/// Pins the library that dashboards are written with.
const REQUIREMENTS: &str = "dashboards/requirements.txt";
/// The program that reads dashboards, and what pins its packages.
const CHECKS: &str = "dashboards/checks";
/// Of Debian's own pip: another Python may have none.
const PIP: &str = "/usr/lib/python3/dist-packages/pip/__init__.py";
/// Exists when an installation came to its end.
const DONE: &str = ".done";

/// Runs the subcommand.
pub fn main() -> Result<ExitCode> {
    let tools = Tools::install()?;
    tools.test()?;
    tools.generate(&[])?;
    tools.read()?;
    Ok(ExitCode::SUCCESS)
}

/// What dashboards are made and read with.
pub struct Tools {
    /// Folder of Python packages.
    python: PathBuf,
    /// Folder of Node packages, with the checks beside them.
    node: PathBuf,
}

impl Tools {
    /// Installs what is not there yet.
    ///
    /// # Errors
    /// When PyPI or npm cannot be reached, among others.
    pub fn install() -> Result<Self> {
        let pins = sh::read(sh::repository().join(REQUIREMENTS))?;
        let python = once("python", &pins, |folder| {
            setup::need(PIP, "python3-pip")?;
            sh::run(
                sh::command("/usr/bin/python3")
                    .args(["-m", "pip", "install", "--quiet", "--no-deps"])
                    .args(["--root-user-action=ignore", "--require-hashes"])
                    .args(["--requirement", REQUIREMENTS, "--target"])
                    .arg(folder),
            )
        })?;
        let node = packages(CHECKS)?;
        Ok(Self { python, node })
    }

    /// Writes dashboards/json/; with `--check` only compares.
    ///
    /// # Errors
    /// When a dashboard names what is not there, or one differs.
    pub fn generate(&self, arguments: &[&str]) -> Result<()> {
        sh::run(
            sh::command("/usr/bin/python3")
                .arg("dashboards/generate.py")
                .args(arguments)
                .env("PYTHONPATH", &self.python),
        )
        .context("dashboards/json/ comes from dashboards/boards/: run `cargo xtask dashboards`")
    }

    /// Runs the tests of what dashboards are written with.
    ///
    /// # Errors
    /// When one fails.
    pub fn test(&self) -> Result<()> {
        sh::run(
            sh::command("/usr/bin/python3")
                .args(["-B", "dashboards/test_boards.py", "--quiet"])
                .env("PYTHONPATH", &self.python),
        )
    }

    /// Parses all queries, and holds all dashboards against Grafana's types.
    ///
    /// # Errors
    /// When one is wrong, or one that is wrong on purpose passes.
    pub fn read(&self) -> Result<()> {
        sh::run(
            Command::new("node")
                .arg("check.mjs")
                .arg(sh::repository().join("dashboards/json"))
                .current_dir(&self.node),
        )
    }
}

/// A folder with the npm packages that a folder of the repository pins, and
/// the files of that folder as they are now.
pub fn packages(source: &str) -> Result<PathBuf> {
    let source = sh::repository().join(source);
    let lock = sh::read(source.join("package-lock.json"))?;
    let name = source.file_name().unwrap_or_default().to_string_lossy();
    let node = once(&name, &lock, |folder| {
        setup::need("npm", "npm")?;
        for file in ["package.json", "package-lock.json"] {
            copy(&source, folder, file)?;
        }
        // No package runs anything of its own here.
        sh::run(
            Command::new("npm")
                .args([
                    "ci",
                    "--ignore-scripts",
                    "--no-audit",
                    "--no-fund",
                    "--silent",
                ])
                .current_dir(folder),
        )
    })?;
    let cannot = || format!("cannot read {}", source.display());
    for entry in fs::read_dir(&source).with_context(cannot)? {
        let name = entry.with_context(cannot)?.file_name();
        copy(&source, &node, &name.to_string_lossy())?;
    }
    Ok(node)
}

/// A folder that `install` filled, once for each text of pins.
fn once(what: &str, pins: &str, install: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let sum = sh::sum(pins)?;
    let Some(sum) = sum.get(..16) else {
        bail!("sha256sum printed {sum:?}");
    };
    let folder = sh::target_dir().join(format!("dashboards/{what}-{sum}"));
    if folder.join(DONE).exists() {
        return Ok(folder);
    }
    // What is there is half of it.
    let _ = fs::remove_dir_all(&folder);
    let cannot = || format!("cannot write {}", folder.display());
    fs::create_dir_all(&folder).with_context(cannot)?;
    eprintln!("installing into {}", folder.display());
    install(&folder)?;
    fs::write(folder.join(DONE), "").with_context(cannot)?;
    Ok(folder)
}

fn copy(from: &Path, to: &Path, name: &str) -> Result<()> {
    let to = to.join(name);
    fs::copy(from.join(name), &to).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(())
}
