//! Every command as its `--help` has it: the book's page, and the man page.

use std::io::{self, Write};

use clap::{Command, CommandFactory as _};

use crate::cli::Cli;

/// Columns of what is generated, whatever terminal it is generated in.
const WIDTH: usize = 100;

const INTRODUCTION: &str = "\
# Command line

<!-- generated: kldtrace docs cli -->

What `--help` prints. `kldtrace docs man` writes the man page,
`kldtrace docs completions bash` (or elvish, fish, powershell, zsh) the completions for a
shell.

Exit status of every command: 0 when it did what was asked, 1 when it could not, 2 when the
arguments make no sense. Some commands say more: `doctor` ends with 1 when a signal that was
asked for is absent, `planes check` when a policy should not be applied, `planes explain` when the
packet does not pass, `planes diff` when there is a difference, and `latency` with 130 when a second
Ctrl-C cuts it off.

Durations need a unit: `ns`, `us`, `ms`, `s`, `m`, `h` or `d`, as in `1.5h`. `NO_COLOR`, set
and not empty, turns colours off. `RUST_LOG` overrides the level of the log, for those who
look for a fault in one module.
";

/// The page of the book.
pub(super) fn page(out: &mut dyn Write) -> io::Result<()> {
    out.write_all(INTRODUCTION.as_bytes())?;
    for (name, help) in all() {
        write!(out, "\n## {name}\n\n```text\n$ {name} --help\n{help}```\n")?;
    }
    Ok(())
}

/// One man page for the command and all below it.
pub(super) fn man(out: &mut dyn Write) -> io::Result<()> {
    let mut command = Cli::command();
    command.build();
    let page = clap_mangen::Man::new(command);
    page.render_title(out)?;
    page.render_name_section(out)?;
    page.render_synopsis_section(out)?;
    for (name, help) in all() {
        write!(
            out,
            ".SH {}\n.nf\n{}.fi\n",
            name.to_uppercase(),
            plain(&help)
        )?;
    }
    page.render_version_section(out)
}

/// Each command's name, and what its `--help` prints.
fn all() -> Vec<(String, String)> {
    fn add(command: &Command, all: &mut Vec<(String, String)>) {
        let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
        let help = command.clone().term_width(WIDTH).render_long_help();
        all.push((name.to_owned(), help.to_string()));
        let shown = |one: &&Command| !one.is_hide_set() && one.get_name() != "help";
        for below in command.get_subcommands().filter(shown) {
            add(below, all);
        }
    }
    let mut command = Cli::command().bin_name("kldtrace");
    command.build();
    let mut all_commands = Vec::new();
    add(&command, &mut all_commands);
    all_commands
}

/// Text that roff shows as it is (groff_char(7): what it takes for its own).
fn plain(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let lines = text.lines().map(|line| {
        let own = line.starts_with(['.', '\'']);
        format!("{}{line}\n", if own { "\\&" } else { "" })
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl Fn(&mut dyn Write) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_command_is_there_once_and_hidden_ones_are_not() {
        let (page, man) = (text(page), text(man));
        for name in ["kldtrace", "kldtrace latency", "kldtrace planes apply"] {
            let heading = format!("\n## {name}\n\n```text\n$ {name} --help\n");
            assert_eq!(page.matches(&heading).count(), 1, "{name}");
            let heading = format!("\n.SH {}\n", name.to_uppercase());
            assert_eq!(man.matches(&heading).count(), 1, "{name}");
        }
        assert!(
            page.contains("\nUsage: kldtrace planes apply [OPTIONS]"),
            "{page}"
        );
        for hidden in ["bench-empty", "kldtrace help"] {
            assert!(!page.contains(hidden) && !man.contains(hidden), "{hidden}");
        }
        assert!(page.lines().all(|line| line.chars().count() <= WIDTH));
    }

    #[test]
    fn nothing_is_roffs_own() {
        assert_eq!(plain(".SH x\n'a\\b --c\n"), "\\&.SH x\n\\&'a\\eb \\-\\-c\n");
    }
}
