//! The machine that numbers were taken on.

use anyhow::Result;

use crate::sh;

/// What stands above the table, as name and value.
pub type Machine = Vec<(&'static str, String)>;

/// This machine, now, and how it was measured.
pub fn describe(rounds: u32, seconds: u64) -> Result<Machine> {
    let kernel = sh::read("/proc/sys/kernel/osrelease")?.trim().to_owned();
    let cores = std::thread::available_parallelism()?.to_string();
    let version = ["--show", "--showformat", "${Version}", "libbpf-tools"];
    Ok(vec![
        (
            "date",
            sh::output(sh::command("date").args(["-u", "+%Y-%m-%d"]))?
                .trim()
                .to_owned(),
        ),
        ("CPU", cpu_model(&sh::read("/proc/cpuinfo")?)),
        ("cores", cores),
        ("kernel", kernel),
        ("system", system(&sh::read("/etc/os-release")?)),
        (
            "libbpf-tools",
            sh::output(sh::command("dpkg-query").args(version))?,
        ),
        (
            "rounds",
            format!("{rounds} of {seconds} s of load for each side, medians shown"),
        ),
    ])
}

/// x86 calls it `model name`; arm64 has only numbers.
fn cpu_model(cpuinfo: &str) -> String {
    let model = cpuinfo.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name").then(|| value.trim().to_owned())
    });
    model.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

fn system(os_release: &str) -> String {
    let name = os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("unknown").trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_the_system_gives_them() {
        assert_eq!(
            cpu_model("processor\t: 0\nmodel name\t: Some(R) CPU\n"),
            "Some(R) CPU"
        );
        assert_eq!(
            cpu_model("CPU implementer : 0x41\n"),
            std::env::consts::ARCH
        );
        assert_eq!(
            system("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"),
            "Debian GNU/Linux 12"
        );
    }
}
