//! Reading and checking what is about pushes and where they wait.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use hyper::{
    Uri,
    header::{HeaderName, HeaderValue},
    http::uri::Scheme,
};

use super::{
    read::{Fault, Input, fault, file, named, shown, size, text},
    units,
};

/// A time from `LEAST` to `MOST` milliseconds.
pub(super) fn time<const LEAST: u64, const MOST: u64>(
    input: &Input<'_>,
) -> Result<Duration, Fault> {
    let (least, most) = (Duration::from_millis(LEAST), Duration::from_millis(MOST));
    let text = text(input.value, "a time such as \"5s\"")?;
    let time = units::duration(text).map_err(|message| fault(input.value, message))?;
    if (least..=most).contains(&time) {
        return Ok(time);
    }
    let (least, most) = (units::format_duration(least), units::format_duration(most));
    let message = format!("must be a time from {least} to {most}, not {text:?}");
    Err(fault(input.value, message))
}

/// A size from `LEAST` to `MOST` bytes.
pub(super) fn bytes<const LEAST: u64, const MOST: u64>(input: &Input<'_>) -> Result<u64, Fault> {
    size(input, LEAST, MOST)
}

/// How long something may be in memory alone; `None` for "off".
pub(super) fn sync(input: &Input<'_>) -> Result<Option<Duration>, Fault> {
    match text(input.value, "a time such as \"1s\", or \"off\"")? {
        "off" => Ok(None),
        "0s" => Ok(Some(Duration::ZERO)),
        _ => time::<10, 3_600_000>(input).map(Some),
    }
}

/// An absolute path of a directory.
pub(super) fn directory(input: &Input<'_>) -> Result<PathBuf, Fault> {
    file(input)?.ok_or_else(|| fault(input.value, "must be an absolute path".to_owned()))
}

/// The address of a receiver; `None` if empty.
pub(super) fn url(input: &Input<'_>) -> Result<Option<String>, Fault> {
    let wanted = "an address such as \"https://loki.example:3100\"";
    let address = text(input.value, wanted)?;
    if address.is_empty() {
        return Ok(None);
    }
    // Addresses with a user are not shown: they have a password, too.
    if address.contains('@') {
        let message = "must have no user and password: they have keys and files of their own";
        return Err(fault(input.value, message.to_owned()));
    }
    let known = |uri: &Uri| {
        let scheme = uri.scheme();
        scheme == Some(&Scheme::HTTP) || scheme == Some(&Scheme::HTTPS)
    };
    match address.parse::<Uri>() {
        Ok(uri) if known(&uri) && uri.query().is_none() => Ok(Some(address.to_owned())),
        _ => {
            let found = shown(input.value.get_ref());
            Err(fault(input.value, format!("must be {wanted}, not {found}")))
        }
    }
}

/// Headers of requests. Values may be secrets: messages do not show them.
pub(super) fn headers(input: &Input<'_>) -> Result<BTreeMap<String, String>, Fault> {
    let entries = named(input, r#"{ x-tenant = "one" }"#)?;
    let headers = entries.into_iter().map(|(name, value)| {
        let text = value.get_ref().as_str();
        match text {
            Some(text) if HeaderValue::from_str(text).is_ok() => {
                if HeaderName::from_bytes(name.as_bytes()).is_err() {
                    return Err(fault(value, format!("{name:?} is no name of a header")));
                }
                Ok((name.to_ascii_lowercase(), text.to_owned()))
            }
            _ => Err(fault(
                value,
                format!("the value of {name:?} must be text on one line"),
            )),
        }
    });
    headers.collect()
}
