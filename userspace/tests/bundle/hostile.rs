//! Names that somebody chose to do harm: quotes, braces, line ends, templates,
//! 4 KB of them.

use std::fs;

use serde_json::Value;

use super::{
    files::{Exported, installed, subjects, yaml},
    promtool::test_rules,
};

/// Labels whose values people choose.
const CHOSEN: &[&str] = &[
    "dataset",
    "vdev",
    "peer",
    "unit",
    "device",
    "interface",
    "node",
];

fn hostile() -> String {
    let start = "\"'`}{\n\r\t\\{{ .Labels.job }}${match}<!channel>%s\u{0}\u{202e}é #: ";
    start.to_owned() + &"x".repeat(4096)
}

/// Every case that fires does so with hostile names, and its annotations have
/// them as they are.
#[test]
fn hostile_names_break_no_alert() {
    if !installed("promtool") {
        return;
    }
    let exported = Exported::new(&[]);
    let hostile = hostile();
    for subject in subjects() {
        let mut tests: Value = yaml(&exported.test_file(&subject));
        let cases = tests["tests"].as_array_mut().unwrap();
        cases.retain(|case| case["name"].as_str().unwrap().ends_with(" fires"));
        for case in cases {
            poison(case, &hostile);
        }
        fs::write(exported.test_file(&subject), tests.to_string()).unwrap();
        let (passed, said) = test_rules(&exported.test_file(&subject));
        assert!(passed, "{said}");
    }
}

/// Puts the hostile name into a case, where it goes in and where it comes out.
fn poison(case: &mut Value, hostile: &str) {
    let expected = case["alert_rule_test"][0]["exp_alerts"][0].clone();
    let label = |name: &str| expected["exp_labels"][name].as_str().map(str::to_owned);
    let quoted = Value::from(hostile).to_string();
    // A vdev may have the name of its pool, which is not poisoned.
    let keep = |name: &str, value: &str| name == "vdev" && label("pool").as_deref() == Some(value);
    for series in case["input_series"].as_array_mut().unwrap() {
        let mut text = series["series"].as_str().unwrap().to_owned();
        for name in CHOSEN {
            let Some((before, rest)) = text.split_once(&format!("{name}=\"")) else {
                continue;
            };
            let (value, after) = rest.split_once('"').unwrap();
            // Of two vdevs only the one that the alert is about.
            let meant = label(name).is_none_or(|label| label == value);
            if meant && !keep(name, value) && !value.is_empty() {
                text = format!("{before}{name}={quoted}{after}");
            }
        }
        series["series"] = text.into();
    }
    let alert = &mut case["alert_rule_test"][0]["exp_alerts"][0];
    for name in CHOSEN {
        let Some(value) = label(name).filter(|value| !keep(name, value) && !value.is_empty())
        else {
            continue;
        };
        alert["exp_labels"][*name] = hostile.into();
        for text in alert["exp_annotations"]
            .as_object_mut()
            .unwrap()
            .values_mut()
        {
            // All are put in before the first is written out: one name may be
            // a part of another's harm.
            *text = text.as_str().unwrap().replace(&value, "\u{1}").into();
        }
    }
    if let Some(annotations) = alert["exp_annotations"].as_object_mut() {
        for text in annotations.values_mut() {
            *text = text.as_str().unwrap().replace('\u{1}', hostile).into();
        }
    }
}
