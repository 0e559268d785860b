//! Dashboards for Grafana, as dashboards/json/ has them, with the operator's
//! selector and data sources.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{
    grafana,
    template::{Bundle, Source},
    values::Values,
};

/// All dashboards: every file of dashboards/json/. build.rs lists them.
pub const ALL: &[Source] = include!(concat!(env!("OUT_DIR"), "/dashboards.rs"));

/// What stands in their selectors in the repository: `MATCH` of
/// dashboards/promql.py.
const MATCH: &str = "job=\"kldtrace\"";
/// Each variable of data sources, and the setting that says which is first.
const SOURCES: [(&str, &str); 3] = [
    ("prometheus", "prometheus_uid"),
    ("loki", "loki_uid"),
    ("tempo", "tempo_uid"),
];

/// Name and text of each dashboard, with the values filled in.
///
/// # Errors
/// When the selector has a `$`, which would be Grafana's, or a value is none of
/// its setting's unit.
pub fn fill(values: &Values) -> Result<Vec<(&'static str, String)>> {
    let selector = values.selector().unwrap_or(MATCH);
    if selector.contains('$') {
        bail!("--match has a $, which begins a variable in Grafana: {selector:?}");
    }
    let settings = Bundle::parse(grafana::FILES)?;
    let spelled = settings.spell(values)?;
    let fill_one = |source: &Source| {
        let mut model = serde_json::from_str(source.text)
            .with_context(|| format!("{} is wrong", source.name))?;
        choose_sources(&mut model, |setting| spelled.get(setting).cloned());
        replace(&mut model, selector);
        Ok((source.name, serde_json::to_string_pretty(&model)? + "\n"))
    };
    ALL.iter().map(fill_one).collect()
}

/// Has the variables of data sources begin with these.
fn choose_sources(model: &mut Value, uid: impl Fn(&str) -> Option<String>) {
    let variables = model["templating"]["list"].as_array_mut();
    for variable in variables.into_iter().flatten() {
        let source = SOURCES
            .iter()
            .find(|(name, _)| variable["type"] == "datasource" && variable["name"] == *name);
        if let Some(uid) = source.and_then(|(_, setting)| uid(setting)) {
            variable["current"]["text"] = uid.clone().into();
            variable["current"]["value"] = uid.into();
        }
    }
}

/// Puts the selector into every text.
fn replace(value: &mut Value, selector: &str) {
    match value {
        Value::String(text) if text.contains(MATCH) => *text = text.replace(MATCH, selector),
        Value::Array(list) => list.iter_mut().for_each(|one| replace(one, selector)),
        Value::Object(map) => map.values_mut().for_each(|one| replace(one, selector)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(selector: &str, set: &[&str]) -> Values {
        let set: Vec<_> = set.iter().map(|&one| one.to_owned()).collect();
        Values::new(&set).unwrap().with_selector(selector).unwrap()
    }

    #[test]
    fn defaults_are_what_the_repository_has() {
        for ((name, text), source) in fill(&values(MATCH, &[])).unwrap().iter().zip(ALL) {
            assert_eq!(*name, source.name);
            assert!(text == source.text, "{name}: keys are not sorted?");
        }
    }

    #[test]
    fn what_is_chosen_is_everywhere() {
        let strange = "job=~\"a\\\\.b|c}\", cluster=\"it's `here`\"";
        for (name, text) in fill(&values(strange, &["loki_uid=lines"])).unwrap() {
            assert!(!text.contains("job=\\\"kldtrace\\\""), "{name}");
            let model: Value = serde_json::from_str(&text).unwrap();
            let variables = model["templating"]["list"].as_array().unwrap();
            let loki = variables.iter().find(|one| one["name"] == "loki").unwrap();
            assert_eq!(loki["current"]["value"], "lines", "{name}");
        }
    }

    #[test]
    fn grafanas_variables_are_refused() {
        fill(&values("job=\"$node\"", &[])).unwrap_err();
        fill(&values(MATCH, &["tempo_uid=a b"])).unwrap_err();
    }
}
