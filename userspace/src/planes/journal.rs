//! What the node's log is told: by the socket that journald and syslog
//! daemons both read (RFC 3164, without a time: the reader knows it).

use std::os::unix::net::UnixDatagram;

/// The facility `authpriv`, and the severity `warning`.
const PRIORITY: u8 = 10 << 3 | 4;

/// Tells the node's log, and this process's own. Where nobody listens, only
/// the latter.
pub fn tell(message: &str) {
    tracing::warn!("{message}");
    let line = format!("<{PRIORITY}>kldtrace[{}]: {message}", std::process::id());
    if let Ok(socket) = UnixDatagram::unbound() {
        // A full queue must not hold up whoever breaks the glass.
        let sent = socket
            .set_nonblocking(true)
            .and_then(|()| socket.send_to(line.as_bytes(), "/dev/log"));
        if let Err(error) = sent {
            tracing::debug!(%error, "/dev/log");
        }
    }
}
