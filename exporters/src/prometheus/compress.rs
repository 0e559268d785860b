//! Compression of a scrape: the HTTP `Accept-Encoding` header, and the bodies.
//!
//! The negotiation is our own because the body is: it is compressed where it
//! is written, off the event loop, which middleware would do on it.

use std::io::{self, Write as _};

use flate2::{Compression, write::GzEncoder};

/// Bodies below are sent as they are: a packet is sent anyhow.
pub const WORTHWHILE: usize = 1000;
/// zstd's level, as docs/src/journal/2026-11-27-scrape-compression.md has
/// measured it; gzip has its fastest for the same reason.
const LEVEL: i32 = 1;

/// A content coding, the least preferred first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Encoding {
    /// As it is.
    Identity,
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
}

impl Encoding {
    /// The value of the `Content-Encoding` header; `None`: it has none.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }

    /// Chooses for a request with this `Accept-Encoding` header.
    ///
    /// The highest `q` wins; among equals it is zstd, then gzip. `*` means
    /// gzip, which everybody has. What is not asked for is not sent, nor is
    /// what cannot be understood; a body as it is serves better than status
    /// 406, even where it is refused.
    pub fn negotiate(accept: Option<&str>) -> Self {
        accept
            .unwrap_or_default()
            .split(',')
            .filter_map(coding)
            .max_by(|(a, a_quality), (b, b_quality)| a_quality.total_cmp(b_quality).then(a.cmp(b)))
            .map_or(Self::Identity, |(encoding, _)| encoding)
    }
}

/// Compresses what it takes into memory.
pub enum Compressor {
    /// Nothing is compressed.
    Identity(Vec<u8>),
    /// See [`Encoding::Gzip`].
    Gzip(GzEncoder<Vec<u8>>),
    /// See [`Encoding::Zstd`].
    Zstd(zstd::Encoder<'static, Vec<u8>>),
}

impl Compressor {
    /// # Errors
    /// Without memory for it.
    pub fn new(encoding: Encoding) -> io::Result<Self> {
        Ok(match encoding {
            Encoding::Identity => Self::Identity(Vec::new()),
            Encoding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), Compression::fast())),
            Encoding::Zstd => Self::Zstd(zstd::Encoder::new(Vec::new(), LEVEL)?),
        })
    }

    /// Compresses the next bytes.
    ///
    /// # Errors
    /// Those of the library, which has none for good arguments.
    pub fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Identity(out) => out.write_all(bytes),
            Self::Gzip(encoder) => encoder.write_all(bytes),
            Self::Zstd(encoder) => encoder.write_all(bytes),
        }
    }

    /// All of it, compressed.
    ///
    /// # Errors
    /// As of [`Self::take`].
    pub fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Identity(out) => Ok(out),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

/// A coding and its quality; `None` if it is not one of ours, is refused
/// (`q=0`) or is not to be understood.
fn coding(text: &str) -> Option<(Encoding, f32)> {
    let mut parts = text.split(';').map(str::trim);
    let encoding = match parts.next()?.to_ascii_lowercase().as_str() {
        "identity" => Encoding::Identity,
        "gzip" | "x-gzip" | "*" => Encoding::Gzip,
        "zstd" => Encoding::Zstd,
        _ => return None,
    };
    let mut quality: f32 = 1.0;
    for parameter in parts {
        if let Some((name, value)) = parameter.split_once('=')
            && name.trim().eq_ignore_ascii_case("q")
        {
            quality = value.trim().parse().ok()?;
        }
    }
    // Not a number is in no range.
    (quality != 0.0 && (0.0..=1.0).contains(&quality)).then_some((encoding, quality))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn who_asks_gets_the_best_that_they_take() {
        for (accept, expected) in [
            // Prometheus 2.42, curl, a browser.
            ("gzip", Encoding::Gzip),
            ("deflate, gzip, br, zstd", Encoding::Zstd),
            ("gzip, deflate, br", Encoding::Gzip),
            ("zstd;q=0.5, gzip", Encoding::Gzip),
            ("gzip;q=0.5, identity", Encoding::Identity),
            ("gzip;q=0, *", Encoding::Gzip),
            ("*", Encoding::Gzip),
            ("*;q=0", Encoding::Identity),
            ("X-GZIP ; Q = 0.3", Encoding::Gzip),
            ("zstd;q=0, gzip;q=0.000", Encoding::Identity),
            ("identity;q=0", Encoding::Identity),
            ("", Encoding::Identity),
            ("br", Encoding::Identity),
            (
                "gzip;q=nan, zstd;q=inf, gzip;q=-1, gzip;q=2, zstd;q=",
                Encoding::Identity,
            ),
            (";;;===,,,", Encoding::Identity),
        ] {
            assert_eq!(Encoding::negotiate(Some(accept)), expected, "{accept:?}");
        }
        assert_eq!(Encoding::negotiate(None), Encoding::Identity);
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(header in r"[a-z*;,=.q0-9 +-]{0,80}|.*") {
            Encoding::negotiate(Some(&header));
        }

        #[test]
        fn what_is_refused_is_not_sent(others in r"(br|deflate|\*;q=0)?", q in 1..=1000_u32) {
            let refused = format!("zstd;q=0, gzip;q=0,{others}");
            prop_assert_eq!(Encoding::negotiate(Some(&refused)), Encoding::Identity);
            let asked = format!("{others},zstd;q={}", f64::from(q) / 1000.0);
            prop_assert_eq!(Encoding::negotiate(Some(&asked)), Encoding::Zstd);
        }
    }
}
