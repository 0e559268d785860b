//! A private view of Debian's archive: packages of other releases, unpacked
//! and never installed, with lists and settings of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use super::matrix::Release;
use crate::sh;

/// Lists younger than this are not fetched again.
const FRESH: Duration = Duration::from_hours(20);
/// The release of the machine, whose mirrors serve the others too.
const MACHINE: &str = "bookworm";
const COMPONENTS: &str = "main contrib";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The view.
pub struct View {
    folder: PathBuf,
}

impl View {
    /// Makes it below `cache`, a folder for each release, from where this
    /// machine gets its own packages.
    pub fn open(cache: &Path, release: Release) -> Result<Self> {
        let name = match release {
            Release::Bookworm => "apt".to_owned(),
            Release::Sid => format!("apt-{}", release.name()),
        };
        let view = Self {
            folder: cache.join(name),
        };
        let folder = &view.folder;
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))?;
        }
        // No package is installed in this view, whatever the machine has.
        fs::write(folder.join("status"), "")?;
        let sources = sources(&machine_sources()?, release)?;
        let file = folder.join("sources.list");
        let lists = folder.join("lists");
        let age = |path: &Path| {
            let changed = fs::metadata(path).ok()?.modified().ok()?;
            SystemTime::now().duration_since(changed).ok()
        };
        let same = fs::read_to_string(&file).is_ok_and(|old| old == sources);
        let stamp = folder.join("updated");
        if !same || age(&stamp).is_none_or(|age| age > FRESH) {
            fs::write(&file, sources)?;
            sh::output(view.apt("apt-get").arg("update"))
                .with_context(|| format!("cannot update {}", lists.display()))?;
            fs::write(stamp, "")?;
        }
        Ok(view)
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = sh::command(program);
        let set = |key: &str, value: String| ["-o".to_owned(), format!("{key}={value}")];
        let inside = |part: &str| self.folder.join(part).display().to_string();
        command
            .args(set("Dir::Etc::SourceList", inside("sources.list")))
            .args(set("Dir::Etc::SourceParts", "/dev/null".to_owned()))
            .args(set("Dir::State::Lists", inside("lists")))
            .args(set("Dir::State::status", inside("status")))
            .args(set("Dir::Cache", inside("cache")))
            // Images of Debian switch this cache off; every look-up would
            // read all lists again.
            .args(set("Dir::Cache::pkgcache", inside("cache/pkgcache.bin")))
            .args(set("APT::Sandbox::User", "root".to_owned()));
        command
    }

    /// The packages that a package depends on, first alternatives only.
    pub fn depends(&self, package: &str) -> Result<Vec<String>> {
        // Without the option it shows every version there is, newest first.
        let mut show = self.apt("apt-cache");
        let text = sh::output(show.args(["show", "--no-all-versions", package]))?;
        Ok(depends(&text))
    }

    /// The names and versions of packages as they would be downloaded, a line
    /// each.
    pub fn versions(&self, packages: &[String]) -> Result<String> {
        let mut show = self.apt("apt-cache");
        let text = sh::output(show.args(["show", "--no-all-versions"]).args(packages))?;
        Ok(versions(&text))
    }

    /// The names and versions of packages and of all that they depend on.
    pub fn closure(&self, packages: &[String]) -> Result<Vec<(String, String)>> {
        let mut simulate = self.apt("apt-get");
        simulate.args(["install", "--simulate", "--no-install-recommends"]);
        Ok(installs(&sh::output(simulate.args(packages))?))
    }

    /// Downloads packages and unpacks them into `root`.
    pub fn unpack(&self, packages: &[String], downloads: &Path, root: &Path) -> Result<()> {
        fs::create_dir_all(downloads)?;
        fs::create_dir_all(root)?;
        let mut get = self.apt("apt-get");
        get.arg("--quiet=2").arg("download").args(packages);
        sh::output(get.current_dir(downloads))?;
        for entry in fs::read_dir(downloads)? {
            let package = entry?.path();
            if package.extension().is_some_and(|end| end == "deb") {
                sh::output(sh::command("dpkg-deb").arg("-x").arg(&package).arg(root))?;
            }
        }
        Ok(())
    }
}

/// Names and versions in what apt-get says that it would install.
fn installs(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| {
            // `Inst NAME (VERSION SUITES [amd64])`
            let (name, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
            let version = rest.strip_prefix('(')?.split(' ').next()?;
            Some((name.to_owned(), version.to_owned()))
        })
        .collect()
}

/// `NAME VERSION` of each stanza.
fn versions(text: &str) -> String {
    let mut lines = String::new();
    let mut name = "";
    for line in text.lines() {
        if let Some(package) = line.strip_prefix("Package: ") {
            name = package;
        } else if let Some(version) = line.strip_prefix("Version: ") {
            lines.extend([name, " ", version, "\n"]);
        }
    }
    lines
}

/// First alternatives of the first `Depends:` line, without versions.
fn depends(text: &str) -> Vec<String> {
    text.lines()
        .find_map(|line| line.strip_prefix("Depends: "))
        .unwrap_or_default()
        .split(',')
        .filter_map(|one| one.split('|').next()?.split_whitespace().next())
        .map(|name| name.split(':').next().unwrap_or(name).to_owned())
        .collect()
}

/// The texts of the machine's own source files.
fn machine_sources() -> Result<String> {
    let mut text = fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
    if let Ok(folder) = fs::read_dir("/etc/apt/sources.list.d") {
        for entry in folder {
            text.push('\n');
            text.push_str(&fs::read_to_string(entry?.path()).unwrap_or_default());
            text.push('\n');
        }
    }
    if text.trim().is_empty() {
        bail!("no sources of packages in /etc/apt");
    }
    Ok(text)
}

/// A sources.list with the suites that guests come from, on the mirrors that
/// the machine uses itself.
fn sources(machine: &str, release: Release) -> Result<String> {
    let mirror = |suite: &str| {
        mirror(machine, suite).with_context(|| {
            format!("no mirror for {suite} in /etc/apt: guests are made of Debian's packages")
        })
    };
    let main = mirror(MACHINE)?;
    let name = release.name();
    let mut suites = vec![(main.clone(), name.to_owned())];
    if release == Release::Bookworm {
        suites.push((main, format!("{name}-backports")));
        suites.push((
            mirror(&format!("{MACHINE}-security"))?,
            format!("{name}-security"),
        ));
    }
    let lines = suites
        .iter()
        .map(|(uri, suite)| format!("deb [signed-by={KEYRING}] {uri} {suite} {COMPONENTS}\n"));
    Ok(lines.collect())
}

/// The address that the machine gets a suite from, in either format of
/// sources.list(5).
fn mirror(machine: &str, suite: &str) -> Option<String> {
    let one_line = machine.lines().find_map(|line| {
        let words = line.trim().strip_prefix("deb ")?;
        let words = match words.trim_start().strip_prefix('[') {
            Some(rest) => rest.split_once(']')?.1,
            None => words,
        };
        let mut words = words.split_whitespace();
        let uri = words.next()?;
        (words.next()? == suite).then(|| uri.to_owned())
    });
    let stanza = |text: &str| {
        let key = |name: &str| {
            text.lines()
                .find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
        };
        let suites = key("Suites")?;
        let uri = key("URIs")?.split_whitespace().next()?;
        suites
            .split_whitespace()
            .any(|one| one == suite)
            .then(|| uri.to_owned())
    };
    one_line.or_else(|| machine.split("\n\n").find_map(stanza))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_found_in_both_formats() {
        let deb822 = "Types: deb\n# a snapshot\nURIs: http://mirror.example/debian\n\
                      Suites: bookworm bookworm-updates\nComponents: main\n\n\
                      Types: deb\nURIs: http://mirror.example/security\nSuites: bookworm-security\n";
        assert_eq!(
            mirror(deb822, "bookworm").as_deref(),
            Some("http://mirror.example/debian")
        );
        assert_eq!(
            mirror(deb822, "bookworm-security").as_deref(),
            Some("http://mirror.example/security")
        );
        let lines = "# deb http://no.example/ bookworm main\n\
                     deb [signed-by=/k arch=amd64] http://yes.example/debian bookworm main\n";
        assert_eq!(
            mirror(lines, "bookworm").as_deref(),
            Some("http://yes.example/debian")
        );
        assert_eq!(mirror(lines, "sid"), None);
    }

    #[test]
    fn suites_of_each_release() {
        let machine = "deb http://a.example/debian bookworm main\n\
                       deb http://b.example/security bookworm-security main\n";
        let of = |release| {
            let sources = sources(machine, release).unwrap();
            let line = |line: &str| line.split_once("] ").unwrap().1.to_owned();
            sources.lines().map(line).collect::<Vec<_>>()
        };
        assert_eq!(
            of(Release::Sid),
            ["http://a.example/debian sid main contrib"]
        );
        assert_eq!(
            of(Release::Bookworm),
            [
                "http://a.example/debian bookworm main contrib",
                "http://a.example/debian bookworm-backports main contrib",
                "http://b.example/security bookworm-security main contrib",
            ]
        );
    }

    #[test]
    fn what_apt_would_install() {
        let text = "NOTE: only a simulation\nInst libc6 (2.43-7 Debian:unstable [amd64])\n\
                    Conf libc6 (2.43-7 Debian:unstable [amd64])\n";
        assert_eq!(installs(text), [("libc6".to_owned(), "2.43-7".to_owned())]);
    }

    #[test]
    fn names_with_their_versions() {
        let text = "Package: a\nVersion: 1\nDepends: b\n\nPackage: b\nVersion: 2~x\n";
        assert_eq!(versions(text), "a 1\nb 2~x\n");
    }

    #[test]
    fn dependencies_without_versions_and_alternatives() {
        let text = "Package: a\nDepends: linux-headers-6.1-common (= 1), gcc-12 | gcc, python3:any\n\
                    Description: b\n";
        assert_eq!(
            depends(text),
            ["linux-headers-6.1-common", "gcc-12", "python3"]
        );
        assert_eq!(depends(""), Vec::<String>::new());
    }
}
