//! Reading and checking one value, by the type that its key has.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use toml::{Spanned, de::DeValue};

use super::{
    kinds::{MapMemory, Word},
    units,
};
use crate::{
    signals::wireguard::names::{PublicKey, from_base64},
    words::{did_you_mean, matches},
};

/// A value as it stands in the file.
pub(super) struct Input<'a> {
    pub(super) value: &'a Spanned<DeValue<'a>>,
    /// Names in the catalogue; `None` while reading a default.
    pub(super) signals: Option<&'a [&'a str]>,
}

/// What is wrong with a value, and the byte of the file where.
pub(super) struct Fault {
    pub(super) offset: usize,
    pub(super) message: String,
}

/// A value as a message quotes it, short whatever the file holds.
pub(super) fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.len() <= 80 => format!("{text:?}"),
        DeValue::String(_) => "a long text".to_owned(),
        DeValue::Integer(number) if number.as_str().len() <= 80 => number.to_string(),
        DeValue::Integer(_) => "a long number".to_owned(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Float(_) => "a fraction".to_owned(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

pub(super) fn fault(value: &Spanned<DeValue<'_>>, message: String) -> Fault {
    Fault {
        offset: value.span().start,
        message,
    }
}

pub(super) fn text<'a>(value: &'a Spanned<DeValue<'_>>, wanted: &str) -> Result<&'a str, Fault> {
    value.get_ref().as_str().ok_or_else(|| {
        let found = shown(value.get_ref());
        fault(value, format!("must be {wanted}, not {found}"))
    })
}

/// The strings of an array, each with its place.
pub(super) fn texts<'a>(
    input: &'a Input<'_>,
) -> Result<Vec<(&'a Spanned<DeValue<'a>>, &'a str)>, Fault> {
    let Some(array) = input.value.get_ref().as_array() else {
        let found = shown(input.value.get_ref());
        let hint = if input.value.get_ref().is_str() {
            format!(": write [{found}]")
        } else {
            format!(", not {found}")
        };
        return Err(fault(input.value, format!("must be a list{hint}")));
    };
    array
        .iter()
        .map(|value| Ok((value, text(value, "a list of strings")?)))
        .collect()
}

/// Text that becomes a label: at most 253 bytes, no control characters; `None`
/// if empty.
pub(super) fn label(input: &Input<'_>) -> Result<Option<String>, Fault> {
    let label = text(input.value, "a string")?;
    if label.len() > 253 || label.chars().any(char::is_control) {
        let message = "must be at most 253 bytes, without control characters".to_owned();
        return Err(fault(input.value, message));
    }
    Ok((!label.is_empty()).then(|| label.to_owned()))
}

/// Signal names and globs, each of which must match something.
pub(super) fn signals(input: &Input<'_>) -> Result<Vec<String>, Fault> {
    let patterns = texts(input)?;
    for (place, pattern) in &patterns {
        let Some(known) = input.signals else { break };
        if known.iter().any(|name| matches(pattern, name)) {
            continue;
        }
        let message = if pattern.contains('*') {
            format!("{pattern:?} matches no signal; `kldtrace doctor` lists them")
        } else {
            let hint = did_you_mean(pattern, known.iter().copied());
            format!("unknown signal {pattern:?}{hint}")
        };
        return Err(fault(place, message));
    }
    Ok(patterns.iter().map(|(_, text)| (*text).into()).collect())
}

/// An IP address with port; `None` for "" and "off".
pub(super) fn address(input: &Input<'_>) -> Result<Option<SocketAddr>, Fault> {
    let wanted = r#"an IP address and port such as "127.0.0.1:9750", or "off""#;
    match text(input.value, wanted)? {
        "" | "off" => Ok(None),
        address => address.parse().map(Some).map_err(|_| {
            let found = shown(input.value.get_ref());
            fault(input.value, format!("must be {wanted}, not {found}"))
        }),
    }
}

/// An absolute path that fits into a Unix socket's address.
pub(super) fn socket(input: &Input<'_>) -> Result<PathBuf, Fault> {
    let path = text(input.value, "an absolute path")?;
    // sun_path holds 108 bytes with the NUL at its end: unix(7).
    if !Path::new(path).is_absolute() || path.len() > 107 || path.contains('\0') {
        let message = format!(
            "must be an absolute path of at most 107 bytes, not {}",
            shown(input.value.get_ref())
        );
        return Err(fault(input.value, message));
    }
    Ok(path.into())
}

/// An absolute path; `None` if empty.
pub(super) fn file(input: &Input<'_>) -> Result<Option<PathBuf>, Fault> {
    let path = text(input.value, "an absolute path")?;
    if path.is_empty() {
        return Ok(None);
    }
    // Longer paths are refused by the kernel: PATH_MAX in linux/limits.h.
    if !Path::new(path).is_absolute() || path.len() > 4095 || path.contains('\0') {
        let found = shown(input.value.get_ref());
        let message = format!("must be an absolute path, not {found}");
        return Err(fault(input.value, message));
    }
    Ok(Some(path.into()))
}

/// Names as they stand in certificates.
pub(super) fn names(input: &Input<'_>) -> Result<Vec<String>, Fault> {
    let names = texts(input)?;
    for (place, name) in &names {
        let odd = |c: char| c.is_whitespace() || c.is_control() || !c.is_ascii();
        if name.is_empty() || name.len() > 2048 || name.contains(odd) {
            let found = shown(place.get_ref());
            let message = format!("must have names such as \"prometheus.example\", not {found}");
            return Err(fault(place, message));
        }
    }
    Ok(names.iter().map(|(_, name)| (*name).to_owned()).collect())
}

/// The name of a group; `None` if empty.
pub(super) fn group(input: &Input<'_>) -> Result<Option<String>, Fault> {
    let name = text(input.value, "the name of a group")?;
    if name.len() > 32 || name.chars().any(|c| c.is_whitespace() || ":,/".contains(c)) {
        let found = shown(input.value.get_ref());
        let message = format!("must be the name of a group, not {found}");
        return Err(fault(input.value, message));
    }
    Ok((!name.is_empty()).then(|| name.to_owned()))
}

/// `true` or `false`.
pub(super) fn boolean(input: &Input<'_>) -> Result<bool, Fault> {
    input.value.get_ref().as_bool().ok_or_else(|| {
        let found = shown(input.value.get_ref());
        fault(input.value, format!("must be true or false, not {found}"))
    })
}

/// A whole number from `LEAST` to `MOST`.
pub(super) fn integer<const LEAST: u64, const MOST: u64>(input: &Input<'_>) -> Result<u64, Fault> {
    let number = input.value.get_ref().as_integer();
    number
        .and_then(|number| u64::from_str_radix(number.as_str(), number.radix()).ok())
        .filter(|number| (LEAST..=MOST).contains(number))
        .ok_or_else(|| {
            let found = shown(input.value.get_ref());
            let message = format!("must be a whole number from {LEAST} to {MOST}, not {found}");
            fault(input.value, message)
        })
}

/// The entries of a table whose keys are names that become labels, in the
/// order of the file.
pub(super) fn named<'a>(
    input: &'a Input<'_>,
    wanted: &str,
) -> Result<Vec<(&'a str, &'a Spanned<DeValue<'a>>)>, Fault> {
    let Some(table) = input.value.get_ref().as_table() else {
        let found = shown(input.value.get_ref());
        let message = format!("must be a table such as {wanted}, not {found}");
        return Err(fault(input.value, message));
    };
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    let entries = entries.into_iter().map(|(name, value)| {
        let text: &str = name.get_ref();
        if text.is_empty() || text.len() > 253 || text.chars().any(char::is_control) {
            return Err(Fault {
                offset: name.span().start,
                message: "a name must be 1 to 253 bytes, without control characters".to_owned(),
            });
        }
        Ok((text, value))
    });
    entries.collect()
}

/// Nodes and where they answer.
pub(super) fn nodes(input: &Input<'_>) -> Result<BTreeMap<String, String>, Fault> {
    let wanted = r#"a host and port such as "10.0.0.1:9750""#;
    let entries = named(input, r#"{ node-1 = "10.0.0.1:9750" }"#)?;
    let nodes = entries.into_iter().map(|(name, value)| {
        let address = text(value, wanted)?;
        let (host, port) = address.rsplit_once(':').unwrap_or_default();
        // IPv6 addresses stand in brackets: their colons are no port's.
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host_is_sound = match bare {
            Some(bare) => bare.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                let sound = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
                !host.is_empty() && host.len() <= 253 && host.chars().all(sound)
            }
        };
        if !host_is_sound || !port.parse::<u16>().is_ok_and(|port| port != 0) {
            let found = shown(value.get_ref());
            return Err(fault(value, format!("must have {wanted}, not {found}")));
        }
        Ok((name.to_owned(), address.to_owned()))
    });
    nodes.collect()
}

/// Planes and the patterns of their interfaces.
pub(super) fn planes(input: &Input<'_>) -> Result<Vec<(String, Vec<String>)>, Fault> {
    let entries = named(input, r#"{ storage = "wg-storage" }"#)?;
    let planes = entries.into_iter().map(|(name, value)| {
        let one = Input {
            value,
            signals: input.signals,
        };
        let patterns = match value.get_ref().as_str() {
            Some(pattern) => vec![(value, pattern)],
            None => texts(&one)?,
        };
        for (place, pattern) in &patterns {
            // IFNAMSIZ with its zero: include/uapi/linux/if.h.
            let free = |c: char| c.is_whitespace() || c == '/' || c.is_control();
            if pattern.is_empty() || pattern.len() > 15 || pattern.contains(free) {
                let found = shown(place.get_ref());
                let message = format!("must have names of interfaces, not {found}");
                return Err(fault(place, message));
            }
        }
        let patterns = patterns.iter().map(|(_, text)| (*text).to_owned());
        Ok((name.to_owned(), patterns.collect()))
    });
    planes.collect()
}

/// Peers' names by key.
pub(super) fn peers(input: &Input<'_>) -> Result<BTreeMap<PublicKey, String>, Fault> {
    let mut peers = BTreeMap::new();
    for (name, value) in named(input, r#"{ alice = "PUBLIC KEY" }"#)? {
        let wanted = "public keys as wg shows them: 44 characters";
        let text = text(value, wanted)?;
        // The text is not shown: it may be another key than was meant.
        let key = from_base64(text).ok_or_else(|| {
            let message = format!("must be {wanted}; that of {name:?} is none");
            fault(value, message)
        })?;
        if let Some(other) = peers.insert(key, name.to_owned()) {
            let message = format!("{other:?} and {name:?} have the same key");
            return Err(fault(value, message));
        }
    }
    Ok(peers)
}

/// A size from `least` to `most` bytes.
pub(super) fn size(input: &Input<'_>, least: u64, most: u64) -> Result<u64, Fault> {
    if let DeValue::Integer(number) = input.value.get_ref() {
        let examples = units::examples(&number.to_string(), ["MiB", "KiB"]);
        let message = format!("{number} has no unit: write {examples}");
        return Err(fault(input.value, message));
    }
    let text = text(input.value, r#"a size such as "64MiB""#)?;
    let bytes = units::size(text).map_err(|message| fault(input.value, message))?;
    if (least..=most).contains(&bytes) {
        return Ok(bytes);
    }
    let (least, most) = (units::format_size(least), units::format_size(most));
    let message = format!("must be a size from {least} to {most}, not {text:?}");
    Err(fault(input.value, message))
}

/// The threshold of slow operations: a time, or none.
pub(super) fn slow(input: &Input<'_>) -> Result<Duration, Fault> {
    const LEAST: Duration = Duration::from_millis(1);
    const MOST: Duration = Duration::from_hours(1);
    let text = text(input.value, "a time such as \"100ms\"")?;
    let time = units::duration(text).map_err(|message| fault(input.value, message))?;
    if time.is_zero() || (LEAST..=MOST).contains(&time) {
        return Ok(time);
    }
    let message = format!("must be \"0s\" or a time from 1ms to 1h, not {text:?}");
    Err(fault(input.value, message))
}

/// "auto" or a size.
pub(super) fn map_memory(input: &Input<'_>) -> Result<MapMemory, Fault> {
    if input.value.get_ref().as_str() == Some("auto") {
        return Ok(MapMemory::Auto);
    }
    size(input, 4 << 20, 4 << 30).map(MapMemory::Bytes)
}

/// A size that the kernel takes for a ring buffer: whole pages, also where a
/// page has 64KiB, and a power of two (`ringbuf_map_alloc` in
/// kernel/bpf/ringbuf.c).
pub(super) fn event_buffer(input: &Input<'_>) -> Result<u64, Fault> {
    let bytes = size(input, 64 << 10, 64 << 20)?;
    if bytes.is_power_of_two() {
        return Ok(bytes);
    }
    let next = units::format_size(bytes.next_power_of_two());
    let message = format!("must be a power of two: write \"{next}\"");
    Err(fault(input.value, message))
}

/// One word of a closed set.
pub(super) fn word<T: Word>(input: &Input<'_>) -> Result<T, Fault> {
    one_of(input.value, text(input.value, &choices::<T>())?)
}

/// A list of words of a closed set.
pub(super) fn words<T: Word>(input: &Input<'_>) -> Result<Vec<T>, Fault> {
    let texts = texts(input)?;
    texts
        .iter()
        .map(|(place, text)| one_of(place, text))
        .collect()
}

fn one_of<T: Word>(place: &Spanned<DeValue<'_>>, text: &str) -> Result<T, Fault> {
    let known = T::ALL.iter().find(|(word, _)| *word == text);
    known.map(|(_, value)| *value).ok_or_else(|| {
        let hint = did_you_mean(text, T::ALL.iter().map(|(word, _)| *word));
        let found = shown(place.get_ref());
        fault(
            place,
            format!("must be {}, not {found}{hint}", choices::<T>()),
        )
    })
}

/// The words of a closed set, for a message.
fn choices<T: Word>() -> String {
    let words: Vec<_> = T::ALL.iter().map(|(word, _)| format!("{word:?}")).collect();
    words.join(" or ")
}
