//! The daemon's listeners: TCP for scrapes, a Unix socket for the tool.

use std::{
    ffi::CString,
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use kldtrace_exporters::tls;
use tokio::net::{TcpListener, UnixListener};

use crate::config::Config;

/// Listens for scrapes; `None`: the configuration wants none.
pub async fn metrics(config: &Config) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = config.listen.address else {
        return Ok(None);
    };
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address} (is another kldtrace running? see [listen] address)")
    })?;
    let tls = config.listen.tls_certificate.is_some();
    if !tls && !address.ip().is_loopback() {
        tracing::warn!(%address, "/metrics is there for everybody who reaches this address (see tls_certificate in [listen])");
    }
    tracing::info!(%address, tls, "serving /metrics and /healthz");
    Ok(Some(listener))
}

/// TLS for the same; `None`: the configuration wants none.
pub fn tls(config: &Config) -> anyhow::Result<Option<tls::Server>> {
    let listen = &config.listen;
    let (Some(certificate), Some(key)) = (&listen.tls_certificate, &listen.tls_key) else {
        return Ok(None);
    };
    let pair = tls::Pair {
        certificate: certificate.clone(),
        key: key.clone(),
    };
    let names = listen.tls_client_names.clone();
    let server = tls::Server::new(pair, listen.tls_client_ca.clone(), names, &["http/1.1"])
        .context("no TLS for [listen] address")?;
    let open = fs::metadata(key).is_ok_and(|key| key.permissions().mode() & 0o007 != 0);
    if open {
        tracing::warn!(key = %key.display(), "every user of this node may use the key (chmod 640)");
    }
    tracing::info!(
        provider = tls::PROVIDER,
        clients = listen.tls_client_ca.is_some(),
        "TLS 1.3"
    );
    Ok(Some(server))
}

/// The listening socket; its path is removed when dropped.
pub struct Socket {
    /// The listener.
    pub listener: UnixListener,
    /// The path.
    pub path: SocketPath,
}

/// A path that is removed when dropped.
pub struct SocketPath(PathBuf);

impl Drop for SocketPath {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = fs::remove_file(&self.0);
    }
}

/// Listens for the tool: root and the configured group only.
pub fn socket(config: &Config) -> anyhow::Result<Socket> {
    let path = &config.listen.socket;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    remove_stale(path)?;
    // Nobody may connect between bind and chmod: the mask closes it at once.
    // SAFETY: umask has no preconditions; no other thread makes files here.
    let mask = unsafe { libc::umask(0o117) };
    let bound = UnixListener::bind(path);
    // SAFETY: as above.
    unsafe { libc::umask(mask) };
    let listener = bound.with_context(|| format!("cannot listen on {}", path.display()))?;
    let path_guard = SocketPath(path.clone());
    if let Some(group) = &config.listen.socket_group {
        give_to_group(path, group);
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(Socket {
        listener,
        path: path_guard,
    })
}

/// Removes the socket of a daemon that was killed. A living one answers, and
/// what is not a socket is not ours to remove.
fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        bail!("{} is there and is not a socket", path.display());
    }
    if UnixStream::connect(path).is_ok() {
        bail!("{}: a daemon is running already", path.display());
    }
    fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))
}

fn give_to_group(path: &Path, group: &str) {
    let Some(gid) = group_id(group) else {
        tracing::info!(group, "no such group: the socket is root's alone");
        return;
    };
    let Ok(c_path) = CString::new(path.as_os_str().as_bytes()) else {
        return;
    };
    // SAFETY: a C string that lives through the call.
    if unsafe { libc::chown(c_path.as_ptr(), u32::MAX, gid) } != 0 {
        let error = std::io::Error::last_os_error();
        tracing::warn!(group, %error, "the socket stays root's alone");
    }
}

/// A group's number from /etc/group.
fn group_id(name: &str) -> Option<u32> {
    let text = fs::read_to_string("/etc/group").ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}
