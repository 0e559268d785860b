//! Runs `nft`.

use std::{
    io::{self, Read as _},
    process::{Child, Command, Stdio},
    thread,
};

/// Most that nft may print (128 MiB).
const MOST: u64 = 128 << 20;

/// What `nft` prints of this network namespace: numbers in place of names,
/// without counters.
///
/// # Errors
/// Why it could not be asked, for people.
pub fn list() -> Result<Vec<u8>, String> {
    let child = Command::new("nft")
        .args(["-j", "-n", "-s", "list", "ruleset"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "nft is not installed".to_owned(),
        _ => format!("nft cannot be run: {error}"),
    })?;
    let read = read(&mut child);
    let status = child.wait().map_err(|error| format!("nft: {error}"))?;
    let (out, said) = read.map_err(|error| format!("nft: {error}"))?;
    if !status.success() {
        let first = said.lines().next().unwrap_or_default();
        let clean = |c: &char| !c.is_control();
        let first: String = first.chars().filter(clean).take(200).collect();
        return Err(format!("nft: {first} ({status})"));
    }
    Ok(out)
}

/// What it prints and what it says. One that prints too much is stopped.
fn read(child: &mut Child) -> io::Result<(Vec<u8>, String)> {
    let (Some(out), Some(said)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(io::Error::other("no pipes"));
    };
    thread::scope(|scope| {
        let said = scope.spawn(|| {
            let mut text = Vec::new();
            // What is behind is of no interest.
            let _ = said.take(1 << 16).read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let mut bytes = Vec::new();
        let read = out.take(MOST + 1).read_to_end(&mut bytes);
        if bytes.len() as u64 > MOST || read.is_err() {
            child.kill()?;
        }
        read?;
        if bytes.len() as u64 > MOST {
            return Err(io::Error::other("prints more than 128 MiB"));
        }
        Ok((bytes, said.join().unwrap_or_default()))
    })
}
