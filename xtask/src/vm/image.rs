//! The kernel inside a Debian image: `vmlinuz` is a small program with the
//! kernel compressed inside it.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// How compressed data begins, and what unpacks it.
const FORMATS: &[(&[u8], &str, &[&str])] = &[
    (
        &[0xfd, b'7', b'z', b'X', b'Z', 0],
        "xz",
        &["-dc", "--single-stream"],
    ),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd", &["-dc"]),
    // The legacy frame, which is what the kernel's build makes.
    (&[0x02, 0x21, 0x4c, 0x18], "lz4", &["-dc"]),
    (&[0x1f, 0x8b, 8], "gzip", &["-dc"]),
];

/// The ELF file inside an image.
///
/// # Errors
/// When nothing inside unpacks to one.
pub fn uncompressed(image: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(image).with_context(|| image.display().to_string())?;
    for (begins, program, arguments) in FORMATS {
        let places = bytes.windows(begins.len()).enumerate();
        for (at, _) in places.filter(|(_, window)| window == begins) {
            // What follows the data makes the program complain at its end.
            let kernel = unpack(program, arguments, &bytes[at..])?;
            if kernel.starts_with(b"\x7fELF") {
                return Ok(kernel);
            }
        }
    }
    bail!("no kernel found in {}", image.display())
}

fn unpack(program: &str, arguments: &[&str], data: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    std::thread::scope(|scope| {
        // It stops reading where the data ends.
        scope.spawn(move || {
            let _ = stdin.write_all(data);
        });
        Ok(child.wait_with_output()?.stdout)
    })
}
