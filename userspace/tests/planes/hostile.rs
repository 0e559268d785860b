//! Policies from people who mean harm, or whose editor crashed.

use kldtrace::planes::{check, compile, explain::packet, read};
use proptest::prelude::*;

use super::agree::no_files;

const EXAMPLE: &str = include_str!("../../../docs/examples/planes.toml");

fn swallow(text: &str) -> Result<(), String> {
    let policy = read::parse(text, "p", &no_files).map_err(|error| error.to_string())?;
    compile::image(&policy, 1).map_err(|error| error.to_string())?;
    let found = check::check(&policy, &[], None).map_err(|error| error.to_string())?;
    drop(found);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_damaged_file_is_read_or_refused_with_a_line(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..6)
    ) {
        let mut bytes = EXAMPLE.as_bytes().to_vec();
        for (at, byte, how) in damage {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => { bytes.remove(at); }
            }
        }
        if let Err(error) = swallow(&String::from_utf8_lossy(&bytes)) {
            for line in error.lines() {
                prop_assert!(line.starts_with("p:"), "{error:?}");
            }
        }
    }

    #[test]
    fn text_is_no_packet_or_one(text in "[a-z0-9:.> /\\[\\]]{0,60}") {
        let _ = packet(&text);
    }
}

#[test]
fn random_text_never_panics() {
    let mut rng = fastrand::Rng::with_seed(3);
    let words = [
        "[[plane]]\n",
        "[[plane.rule]]\n",
        "[[cross]]\n",
        "[floor]\n",
        "[sets]\n",
        "name = ",
        "\"a\"\n",
        "interfaces = ",
        "[\"x\"]\n",
        "prefixes = ",
        "sources = ",
        "[\"::/0\", \"0.0.0.0/0\"]\n",
        "[]\n",
        "ports = ",
        "[\"0-65535\"]\n",
        "protocol = ",
        "\"tcp\"\n",
        "[0, 255]\n",
        "verdict = \"allow\"\n",
        "from = \"a\"\n",
        "rate = \"1/h\"\n",
        "burst = 1000000\n",
        "{ file = \"x\" }\n",
        "1e999\n",
        "-5\n",
        "fragments = \"later\"\n",
        "icmp = ",
        "1979-05-27\n",
        "at = \"both\"\n",
        "=",
        "\u{7f}",
    ];
    for _ in 0..20_000 {
        let text: String = (0..rng.usize(..24))
            .map(|_| words[rng.usize(..words.len())])
            .collect();
        let _ = read::parse(&text, "p", &no_files);
    }
}

/// What overlaps in too many ways is refused by name, and soon.
#[test]
fn a_policy_that_explodes_is_refused() {
    use std::fmt::Write as _;
    let mut text = String::from("[[plane]]\nname = \"a\"\ninterfaces = \"x\"\n");
    for n in 0..3000 {
        let _ = writeln!(
            text,
            "[[plane.rule]]\nname = \"r{n}\"\nverdict = \"allow\"\nprotocol = \"tcp\"\nports = [\"{n}-{}\"]\n\
             sources = [\"{}.0.0.0/{}\", \"10.{}.{}.0/24\"]",
            60_000 - n,
            64,
            3,
            n / 256,
            n % 256
        );
    }
    let error = swallow(&text).unwrap_err();
    assert!(error.contains("rule \"r"), "{error}");
}

/// The most that a policy may be is compiled.
#[test]
fn ten_thousand_rules_and_a_hundred_thousand_prefixes_fit() {
    let policy = super::large::policy(10_000, 100_000);
    let compiled = compile::image(&policy, 1).unwrap();
    assert!(
        compiled.cells.len() * 64 < 32 << 20,
        "{} cells",
        compiled.cells.len()
    );
}
