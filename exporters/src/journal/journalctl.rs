//! journalctl as a child: how it is called, and what it says.
//!
//! It is called with `--merge` because `--follow` alone shows this boot's
//! entries and no others: `parse_argv` in systemd's src/journal/journalctl.c.
//! That takes in other machines' journals, too, which a match leaves out.

use std::{fs, io, path::PathBuf, process::Stdio};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, ChildStderr, ChildStdout, Command},
};

use super::{
    cursor::Cursor,
    export::Parser,
    fields::{CURSOR, output_fields},
};
use crate::push::answer::words;

/// Most bytes of its complaints that are kept: the last ones.
const COMPLAINTS: usize = 4096;

/// How it is called.
#[derive(Clone, Debug)]
pub(super) struct Journalctl {
    /// The program.
    pub(super) program: PathBuf,
    /// Where the journal is; `None`: where this node's is.
    pub(super) directory: Option<PathBuf>,
}

/// Where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// With the oldest entry.
    Oldest,
    /// With the first entry of this boot, and only those.
    Boot,
    /// With this entry, or the next that there is.
    Cursor(Cursor),
    /// With the first entry of this time or later, in microseconds since 1970.
    Time(u64),
}

/// What went wrong with it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// There is none.
    #[error("there is no {}, which comes with systemd", .0.display())]
    Missing(PathBuf),
    /// It could not be started.
    #[error("{} cannot be started: {error}", .program.display())]
    Start { program: PathBuf, error: io::Error },
    /// It ended when it should not.
    #[error("journalctl: {0}")]
    Ended(String),
    /// Its output cannot be read.
    #[error("journalctl cannot be read: {0}")]
    Read(#[from] io::Error),
}

impl Journalctl {
    /// Follows the journal.
    pub(super) fn follow(&self, from: &Begin) -> Result<Following, Error> {
        let mut command = self.command(&output_fields());
        command.args(["--follow", "--no-tail"]);
        match from {
            Begin::Oldest => {}
            Begin::Boot => {
                let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id");
                let boot = boot?.trim().replace('-', "");
                command.arg(format!("_BOOT_ID={boot}"));
            }
            Begin::Cursor(cursor) => {
                command.arg(format!("--cursor={}", cursor.as_str()));
            }
            Begin::Time(us) => {
                let (seconds, us) = (us / 1_000_000, us % 1_000_000);
                command.arg(format!("--since=@{seconds}.{us:06}"));
            }
        }
        self.start(command)
    }

    /// The cursor of the newest entry; `None`: there is no entry.
    pub(super) async fn newest(&self) -> Result<Option<Cursor>, Error> {
        self.one(None).await
    }

    /// The cursor of this entry or, if it is gone, of the next.
    pub(super) async fn at(&self, cursor: &Cursor) -> Result<Option<Cursor>, Error> {
        self.one(Some(cursor)).await
    }

    async fn one(&self, at: Option<&Cursor>) -> Result<Option<Cursor>, Error> {
        // The shortest that it can show: cursor and times come in any case.
        let mut command = self.command("PRIORITY");
        command.arg("--lines=1");
        if let Some(cursor) = at {
            command.arg(format!("--cursor={}", cursor.as_str()));
        }
        let mut running = self.start(command)?;
        let mut parser = Parser::new();
        let mut buffer = [0; 4096];
        let mut found = None;
        loop {
            let read = running.read(&mut buffer).await?;
            if read == 0 {
                return running.end().await.map(|()| found);
            }
            if let Some(entry) = parser.next(&mut &buffer[..read]) {
                found = found.or_else(|| Cursor::new(entry.at(CURSOR)?));
            }
        }
    }

    fn command(&self, fields: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--output=export", "--quiet", "--no-pager", "--merge"]);
        command.arg(format!("--output-fields={fields}"));
        match &self.directory {
            Some(directory) => command.arg("--directory").arg(directory),
            None => command.args(this_machine()),
        };
        command
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // If we are killed, it ends by itself: nobody reads its output.
            .kill_on_drop(true);
        command
    }

    fn start(&self, mut command: Command) -> Result<Following, Error> {
        let mut child = command.spawn().map_err(|error| {
            let program = self.program.clone();
            match error.kind() {
                io::ErrorKind::NotFound => Error::Missing(program),
                _ => Error::Start { program, error },
            }
        })?;
        let piped = "both are piped";
        Ok(Following {
            output: child.stdout.take().expect(piped),
            errors: Some(child.stderr.take().expect(piped)),
            complaints: Vec::new(),
            child,
        })
    }
}

/// The match of this machine's entries; none where it has no identity.
fn this_machine() -> Option<String> {
    let id = fs::read_to_string("/etc/machine-id").ok()?;
    let id = id.trim();
    let good = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    good.then(|| format!("_MACHINE_ID={id}"))
}

/// A journalctl that runs.
pub(super) struct Following {
    child: Child,
    output: ChildStdout,
    /// `None`: it says no more.
    errors: Option<ChildStderr>,
    complaints: Vec<u8>,
}

impl Following {
    /// Reads some of what it writes; 0: that was all. May be dropped while it
    /// waits.
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            tokio::select! {
                read = self.output.read(buffer) => return read,
                read = complain(&mut self.errors, &mut self.complaints), if self.errors.is_some() => {
                    if read? == 0 {
                        self.errors = None;
                    }
                }
            }
        }
    }

    /// Waits for its end, after it has written all. It is an error if it is one
    /// for journalctl.
    pub(super) async fn end(mut self) -> Result<(), Error> {
        while complain(&mut self.errors, &mut self.complaints).await? > 0 {}
        let status = self.child.wait().await?;
        if status.success() {
            return Ok(());
        }
        let complaints = words(&String::from_utf8_lossy(&self.complaints));
        Err(Error::Ended(if complaints.is_empty() {
            status.to_string()
        } else {
            complaints
        }))
    }

    /// Ends it.
    pub(super) async fn kill(mut self) {
        if let Err(error) = self.child.kill().await {
            tracing::warn!(%error, "journalctl does not end");
        }
    }
}

async fn complain(
    errors: &mut Option<impl AsyncRead + Unpin>,
    complaints: &mut Vec<u8>,
) -> io::Result<usize> {
    let Some(errors) = errors else { return Ok(0) };
    let mut buffer = [0; 1024];
    let read = errors.read(&mut buffer).await?;
    complaints.extend_from_slice(&buffer[..read]);
    let over = complaints.len().saturating_sub(COMPLAINTS);
    complaints.drain(..over);
    Ok(read)
}
