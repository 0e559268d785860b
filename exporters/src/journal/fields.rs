//! Which fields of the journal are read: a closed list, so that an entry has a
//! largest size and nothing secret comes by accident (no command line, no
//! environment, no core dump).

/// A field that is read.
#[derive(Debug)]
pub struct Field {
    /// As systemd.journal-fields(7) names it.
    pub name: &'static str,
    /// Bytes of it that are kept. Each field has its own room: a long one that
    /// a program chose leaves the journal's own untouched.
    pub room: usize,
    /// Where it goes.
    pub role: Role,
}

/// Where a field goes in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A place of its own.
    Own,
    /// An attribute, as text.
    Text,
    /// An attribute that is a whole number.
    Integer,
}

/// Longest line of a record in bytes that can be had: what Loki takes at most
/// by default.
pub const BODY: usize = 256 << 10;

/// Longest attribute in bytes; paths of files are no longer.
pub const TEXT: usize = 4 << 10;

/// More of a line is read than is kept: what redaction makes shorter, or finds
/// across the end.
const MESSAGE_ROOM: usize = BODY + (16 << 10);

const fn own(name: &'static str, room: usize) -> Field {
    Field {
        name,
        room,
        role: Role::Own,
    }
}

const fn text(name: &'static str) -> Field {
    Field {
        name,
        room: TEXT,
        role: Role::Text,
    }
}

const fn integer(name: &'static str) -> Field {
    Field {
        name,
        room: 20,
        role: Role::Integer,
    }
}

/// The cursor's place in [`FIELDS`], and its name.
pub const CURSOR: usize = 0;
/// See [`CURSOR`].
pub const CURSOR_NAME: &str = "__CURSOR";
/// The message's place in [`FIELDS`].
pub const MESSAGE: usize = 2;

/// All fields that are read.
pub const FIELDS: &[Field] = &[
    own(CURSOR_NAME, 1024),
    own("__REALTIME_TIMESTAMP", 20),
    own("MESSAGE", MESSAGE_ROOM),
    own("PRIORITY", 20),
    own("_SYSTEMD_UNIT", TEXT),
    own("_SYSTEMD_USER_UNIT", TEXT),
    own("_HOSTNAME", TEXT),
    text("SYSLOG_IDENTIFIER"),
    integer("SYSLOG_FACILITY"),
    text("_TRANSPORT"),
    integer("_PID"),
    integer("_UID"),
    text("_COMM"),
    text("_BOOT_ID"),
    text("_SYSTEMD_INVOCATION_ID"),
    text("MESSAGE_ID"),
    // What systemd itself says about a unit.
    text("UNIT"),
    text("USER_UNIT"),
    text("INVOCATION_ID"),
    text("CODE_FILE"),
    integer("CODE_LINE"),
    text("CODE_FUNC"),
    integer("ERRNO"),
    text("_KERNEL_SUBSYSTEM"),
    text("_KERNEL_DEVICE"),
    // Docker's and Podman's journald driver.
    text("CONTAINER_NAME"),
    text("CONTAINER_ID"),
    // The line is not whole: longer than journald takes from a pipe.
    text("_LINE_BREAK"),
];

/// A field's place in [`FIELDS`].
pub fn place(name: &[u8]) -> Option<usize> {
    FIELDS
        .iter()
        .position(|field| field.name.as_bytes() == name)
}

/// For journalctl's `--output-fields`; it writes cursor and times in any case.
pub fn output_fields() -> String {
    let wanted = FIELDS.iter().map(|field| field.name);
    let wanted: Vec<_> = wanted.filter(|name| !name.starts_with("__")).collect();
    wanted.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_there_once_and_those_with_a_name_are_where_it_is_said() {
        assert_eq!(FIELDS[CURSOR].name, CURSOR_NAME);
        assert_eq!(FIELDS[MESSAGE].name, "MESSAGE");
        for (index, field) in FIELDS.iter().enumerate() {
            assert_eq!(place(field.name.as_bytes()), Some(index), "{}", field.name);
        }
    }

    #[test]
    fn command_lines_are_not_among_them() {
        for name in ["_CMDLINE", "COREDUMP", "COREDUMP_ENVIRON", "OBJECT_CMDLINE"] {
            assert_eq!(place(name.as_bytes()), None);
        }
        assert!(output_fields().starts_with("MESSAGE,PRIORITY,"));
        assert!(!output_fields().contains("__"));
    }
}
