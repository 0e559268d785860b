//! Dashboards: whether they are what their source makes, and whether those who
//! read them can.

use super::report::Report;
use crate::dashboards::Tools;

/// The steps, or why there are none.
pub fn run(report: &mut Report) {
    match Tools::install() {
        Ok(tools) => {
            report.check("what dashboards are written with", || tools.test());
            report.check("dashboards are as their source says", || {
                tools.generate(&["--check"])
            });
            report.check(
                "dashboards as Grafana, Prometheus and Loki read them",
                || tools.read(),
            );
        }
        Err(error) => report.skip(
            "dashboards",
            &format!("what reads them is not there, and cannot be had: {error:#}"),
        ),
    }
}
