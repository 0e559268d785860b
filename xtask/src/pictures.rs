//! `cargo xtask pictures`: panels of the dashboards for the book, drawn by
//! Grafana's own components from what a real Prometheus answered.

use std::fs;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::dashboards::packages;
use crate::setup;
use crate::sh;

/// Where they go.
const PICTURES: &str = "docs/src/pictures";
/// The test that asks all queries; the variable has it keep the answers.
const TEST: &str = "dashboards::every_panel_shows_something";
const ANSWERS: &str = "KLDTRACE_DASHBOARD_ANSWERS";

/// Runs the subcommand.
pub fn main() -> Result<ExitCode> {
    setup::need("chromium", "chromium")?;
    setup::need("prometheus", "prometheus")?;
    let node = packages("dashboards/pictures")?;
    // How variables are filled in is the same for those who check.
    let shared = sh::repository().join("dashboards/checks/interpolate.mjs");
    fs::copy(&shared, node.join("interpolate.mjs"))
        .with_context(|| format!("cannot copy {}", shared.display()))?;
    let answers = sh::target_dir().join("dashboards/answers.json");
    sh::run(
        sh::cargo()
            .args(["test"])
            .args(sh::HOST)
            .args(["--test=live", "--", "--exact", TEST])
            .env(ANSWERS, &answers),
    )?;
    let pictures = sh::repository().join(PICTURES);
    fs::create_dir_all(&pictures).with_context(|| format!("cannot make {}", pictures.display()))?;
    sh::run(
        Command::new("node")
            .arg("draw.mjs")
            .arg(sh::repository().join("dashboards/json"))
            .arg(&answers)
            .arg(&pictures)
            .current_dir(&node),
    )?;
    Ok(ExitCode::SUCCESS)
}
