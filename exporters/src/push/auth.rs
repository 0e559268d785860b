//! Who we are to a receiver: names here, secrets in files.

use std::{fmt, fs::File, io::Read as _, path::Path, path::PathBuf};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::HeaderValue;

/// Longest secret that is read, in bytes.
const LONGEST: u64 = 16 << 10;

/// How we say who we are. Files are read for each push, so that a new secret
/// is taken at once; blanks and line ends around it are no part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// Not at all, or by a certificate alone.
    #[default]
    None,
    /// By name and password.
    Basic {
        /// The name; without a colon.
        user: String,
        /// Holds the password.
        password_file: PathBuf,
    },
    /// By a token.
    Bearer {
        /// Holds the token.
        token_file: PathBuf,
    },
}

/// What goes into the header, and what must not be shown.
pub(crate) struct Credentials {
    pub(crate) header: HeaderValue,
    pub(crate) secrets: [String; 2],
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

impl Auth {
    /// Whether there is no colon, which would end it, and no control character
    /// in the user's name.
    pub(crate) fn has_sound_name(&self) -> bool {
        match self {
            Self::Basic { user, .. } => !user.contains(|c: char| c == ':' || c.is_control()),
            Self::None | Self::Bearer { .. } => true,
        }
    }

    /// Reads the secret. Errors are words without it.
    pub(crate) fn read(&self) -> Result<Option<Credentials>, String> {
        let (path, scheme) = match self {
            Self::None => return Ok(None),
            Self::Basic { password_file, .. } => (password_file, "Basic"),
            Self::Bearer { token_file } => (token_file, "Bearer"),
        };
        let secret = secret(path).map_err(|why| format!("{}: {why}", path.display()))?;
        let sent = match self {
            Self::Basic { user, .. } => BASE64_STANDARD.encode(format!("{user}:{secret}")),
            _ => secret.clone(),
        };
        let mut header = HeaderValue::try_from(format!("{scheme} {sent}")).map_err(|_| {
            let path = path.display();
            format!("{path}: it has a character that no header may have")
        })?;
        header.set_sensitive(true);
        Ok(Some(Credentials {
            header,
            secrets: [sent, secret],
        }))
    }
}

fn secret(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    file.take(LONGEST + 1)
        .read_to_string(&mut text)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if text.len() as u64 > LONGEST {
        return Err(format!("longer than {LONGEST} bytes: not a secret"));
    }
    let text = text.trim();
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let basic = Auth::Basic {
            user: "Aladdin".to_owned(),
            password_file: path.clone(),
        };
        assert!(basic.read().unwrap_err().contains("cannot be read"));
        std::fs::write(&path, " \n").unwrap();
        assert!(basic.read().unwrap_err().ends_with("it is empty"));
        std::fs::write(&path, "open sesame\n").unwrap();
        let read = basic.read().unwrap().unwrap();
        // RFC 7617's own example.
        assert_eq!(read.header, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(
            format!("{read:?} {:?}", read.header),
            "Credentials Sensitive"
        );
        let bearer = Auth::Bearer {
            token_file: path.clone(),
        };
        std::fs::write(&path, "open\0sesame").unwrap();
        let said = bearer.read().unwrap_err();
        assert!(
            said.contains("no header") && !said.contains("sesame"),
            "{said}"
        );
        std::fs::write(&path, "x".repeat(20_000)).unwrap();
        assert!(bearer.read().unwrap_err().contains("longer than"));
    }
}
