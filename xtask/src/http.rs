//! As much of an HTTP client as asking the daemon takes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

const PATIENCE: Duration = Duration::from_secs(10);

/// What a server answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// `Content-Type`, or nothing.
    pub content_type: String,
    /// The body, with chunks put together.
    pub body: Vec<u8>,
}

/// One GET over a connection of its own.
pub fn get(address: SocketAddr, path: &str, accept: &str) -> Result<Response> {
    let ask = || -> Result<Response> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        parse(&answer)
    };
    ask().with_context(|| format!("http://{address}{path}"))
}

fn parse(answer: &[u8]) -> Result<Response> {
    let end = find(answer, b"\r\n\r\n").context("the answer ends within its header")?;
    let head = std::str::from_utf8(&answer[..end]).context("the header is not UTF-8")?;
    let body = &answer[end + 4..];
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let status = status
        .and_then(|code| code.parse().ok())
        .context("no status line")?;
    let header = |name: &str| {
        head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let chunked = header("transfer-encoding").is_some_and(|value| value.contains("chunked"));
    let body = if chunked {
        join_chunks(body)?
    } else {
        body.to_vec()
    };
    if let Some(length) = header("content-length").and_then(|value| value.parse::<usize>().ok())
        && length != body.len()
    {
        bail!("the body has {} bytes and should have {length}", body.len());
    }
    Ok(Response {
        status,
        content_type: header("content-type").unwrap_or_default().into(),
        body,
    })
}

fn join_chunks(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = find(rest, b"\r\n").context("a chunk without its length")?;
        let length = std::str::from_utf8(&rest[..line])?
            .split(';')
            .next()
            .unwrap_or_default();
        let length = usize::from_str_radix(length.trim(), 16).context("a chunk's length")?;
        if length == 0 {
            return Ok(body);
        }
        let start = line + 2;
        let chunk = rest
            .get(start..start + length)
            .context("a chunk is cut short")?;
        body.extend_from_slice(chunk);
        rest = rest
            .get(start + length + 2..)
            .context("a chunk is cut short")?;
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_answer() {
        let answer =
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\ncontent-length: 3\r\n\r\nok\n";
        let response = parse(answer).expect("an answer");
        assert_eq!(
            (response.status, response.body.as_slice()),
            (200, b"ok\n".as_slice())
        );
        assert_eq!(response.content_type, "text/plain");
    }

    #[test]
    fn chunks_are_put_together() {
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                       3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n";
        assert_eq!(parse(answer).expect("an answer").body, b"abc0123456789");
    }

    #[test]
    fn what_is_cut_short_is_an_error() {
        let whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        for length in 0..whole.len() - 4 {
            assert!(parse(&whole[..length]).is_err(), "{length} bytes");
        }
        assert!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc").is_err());
    }
}
