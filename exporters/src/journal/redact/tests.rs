use proptest::prelude::*;

use super::*;

fn redacted(settings: &Settings, text: &str) -> (String, bool) {
    let redactor = Redactor::new(settings).unwrap();
    let mut text = Cow::Borrowed(text);
    let any = redactor.apply(&mut text);
    (text.into_owned(), any)
}

/// The rule, a line with the word `s3cr3t` or another secret, what becomes of it.
const SECRETS: &[(&str, &str, &str)] = &[
    (
        "private_key",
        "key:\n-----BEGIN EC PRIVATE KEY-----\nMHcCAQ\nEEIBk=\n-----END EC PRIVATE KEY-----\nend",
        "key:\n[redacted private key]\nend",
    ),
    (
        "private_key",
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2",
        "[redacted private key]",
    ),
    (
        "wireguard",
        "PrivateKey = QDlQ2IxTbMWbVpLYmqjJdDT2WJtN0ZQy1ftdmDzPtXQ= # wg0",
        "PrivateKey = [redacted] # wg0",
    ),
    (
        "wireguard",
        "peer x preshared-key: 'QDlQ2IxTbMWbVpLYmqjJdDT2WJtN0ZQy1ftdmDzPtXQ='",
        "peer x preshared-key: '[redacted]'",
    ),
    (
        "authorization",
        "> Authorization: Basic dXNlcjpwYXNz (200)",
        "> Authorization: Basic [redacted] (200)",
    ),
    (
        "authorization",
        "sent bearer 0123456789abcdef.x=, again",
        "sent bearer [redacted], again",
    ),
    (
        "token",
        "got eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3 for x",
        "got [redacted token] for x",
    ),
    (
        "token",
        "VAULT hvs.CAESIJ0123456789abcdefghij",
        "VAULT [redacted token]",
    ),
    (
        "aws",
        "id AKIAIOSFODNN7EXAMPLE used",
        "id [redacted AWS key] used",
    ),
    (
        "aws",
        "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "AWS_SECRET_ACCESS_KEY=[redacted]",
    ),
    (
        "url_password",
        "pushing to https://loki:s3cr3t@loki.example:3100/push",
        "pushing to https://loki:[redacted]@loki.example:3100/push",
    ),
    (
        "password",
        "db password=s3cr3t; host=x",
        "db password=[redacted]; host=x",
    ),
    (
        "password",
        r#"{"user":"a","password": "s3c \" r3t","b":1}"#,
        r#"{"user":"a","password": [redacted],"b":1}"#,
    ),
    ("password", "API_KEY='s3 cr3t' x", "API_KEY=[redacted] x"),
    ("password", "PGPASSWORD=\"s3cr3t", "PGPASSWORD=[redacted]"),
];

#[test]
fn what_is_secret_goes_and_the_rest_stays() {
    for (_, line, expected) in SECRETS {
        let (text, any) = redacted(&Settings::default(), line);
        assert_eq!((&*text, any), (*expected, true));
        // What is redacted has nothing more to redact.
        assert_eq!(redacted(&Settings::default(), expected).0, *expected);
    }
}

#[test]
fn what_is_no_secret_stays() {
    for line in [
        "Failed password for root from 10.0.0.1 port 22 ssh2",
        "peer QDlQ2IxTbMWbVpLYmqjJdDT2WJtN0ZQy1ftdmDzPtXQ= public key: known",
        "-----BEGIN CERTIFICATE-----",
        "the bearer of bad news",
        "GET https://example.org:8080/a@b",
        "basic authentication failed",
    ] {
        assert_eq!(
            redacted(&Settings::default(), line),
            (line.to_owned(), false)
        );
    }
}

#[test]
fn each_built_in_rule_can_be_turned_off() {
    for (name, line, _) in SECRETS {
        // Two rules know this one.
        let off = names().filter(|other| other == name || *name == "authorization");
        let off = off.map(str::to_owned).collect();
        let settings = Settings {
            off,
            rules: Vec::new(),
        };
        assert_eq!(redacted(&settings, line), ((*line).to_owned(), false));
    }
    let settings = Settings {
        off: vec!["passwords".to_owned()],
        rules: Vec::new(),
    };
    let error = Redactor::new(&settings).unwrap_err().to_string();
    assert!(
        error.contains("\"passwords\"") && error.contains("url_password"),
        "{error}"
    );
}

fn rules(rules: &[(&str, &str)]) -> Settings {
    let rule = |(pattern, replacement): &(&str, &str)| Rule {
        pattern: (*pattern).to_owned(),
        replacement: (*replacement).to_owned(),
    };
    Settings {
        off: Vec::new(),
        rules: rules.iter().map(rule).collect(),
    }
}

#[test]
fn rules_of_the_configuration_go_in_their_order() {
    let settings = rules(&[(r"customer (\d)\d*", "customer ${1}…"), ("…", "...")]);
    let (text, any) = redacted(&settings, "customer 12345 and customer 9");
    assert_eq!((&*text, any), ("customer 1... and customer 9...", true));
}

#[test]
fn a_rule_that_is_none_is_named_by_its_number() {
    for (bad, why) in [
        ("(", "unclosed group"),
        (r"\w{1000}{1000}", "size limit"),
        ("(?=x)", "look-around"),
        ("x*", "the empty text matches"),
        ("", "the empty text matches"),
    ] {
        let error = Redactor::new(&rules(&[("fine", ""), (bad, "")])).unwrap_err();
        let words = error.to_string();
        assert!(words.starts_with("redaction rule 2: "), "{words}");
        assert!(words.contains(why) && !words.contains('\n'), "{words}");
    }
    let many = vec![("x", "y"); RULES + 1];
    assert!(matches!(
        Redactor::new(&rules(&many)),
        Err(Error::TooMany(65))
    ));
}

proptest! {
    #[test]
    fn a_password_goes_wherever_it_stands(
        before in "[ -~\n]{0,40}", after in "([ ;,&\n][ -~]{0,40})?",
    ) {
        let line = format!("{before} password=s3cr3t{after}");
        let (text, any) = redacted(&Settings::default(), &line);
        prop_assert!(any && !text.contains("s3cr3t"), "{}", text);
    }
}
