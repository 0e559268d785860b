//! Both sides of a connection in this process, without a socket.

use std::{io::Cursor, sync::Arc};

use kldtrace_exporters::tls::{Client, Files, Pair, Server};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

/// Who the server believes to be `localhost`, with the files of a folder.
pub fn pair(folder: &std::path::Path, name: &str) -> Pair {
    Pair {
        certificate: folder.join(format!("{name}.pem")),
        key: folder.join(format!("{name}.key")),
    }
}

/// A server that demands a certificate of `ca.pem` with one of the names.
pub fn server(folder: &std::path::Path, names: &[&str]) -> Server {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    let ca = Some(folder.join("ca.pem"));
    Server::new(pair(folder, "server"), ca, names, &["http/1.1"]).unwrap()
}

/// A client that trusts `ca.pem` and shows a certificate, or none.
pub fn client(folder: &std::path::Path, shows: Option<&str>) -> Client {
    Client::new(Files {
        pair: shows.map(|name| pair(folder, name)),
        authorities: Some(folder.join("ca.pem")),
    })
    .unwrap()
}

/// Two sides that have met.
#[derive(Debug)]
pub struct Met {
    pub client: ClientConnection,
    pub server: ServerConnection,
}

/// Lets both sides meet under a name.
///
/// # Errors
/// What the side that refused says.
pub fn meet(
    client: ClientConfig,
    server: Arc<ServerConfig>,
    name: &'static str,
) -> Result<Met, String> {
    let name = name.try_into().unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    // The server's verdict on a client comes after the client is content.
    for _ in 0..10 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        take(&bytes, |from| server.read_tls(from));
        server
            .process_new_packets()
            .map_err(|error| format!("server: {error}"))?;
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        take(&bytes, |from| client.read_tls(from));
        client
            .process_new_packets()
            .map_err(|error| format!("client: {error}"))?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(Met { client, server })
}

fn take(bytes: &[u8], mut read: impl FnMut(&mut Cursor<&[u8]>) -> std::io::Result<usize>) {
    let mut from = Cursor::new(bytes);
    while from.position() < bytes.len() as u64 {
        read(&mut from).unwrap();
    }
}
