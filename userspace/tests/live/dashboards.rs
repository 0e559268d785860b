//! Every query of every dashboard, asked of a real Prometheus that has scraped
//! a real daemon under a load. What this kernel does not serve comes from a
//! node that is made up, and that is said.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    net::{TcpListener, TcpStream},
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use super::{
    common::{Daemon, free_port, installed, kldtrace},
    disk::{Loop, SlowFile, read, write},
    end::End,
    prometheus::Prometheus,
    synthetic::Synthetic,
};

/// How long the queries are tried: rates want several scrapes.
const LIMIT: Duration = Duration::from_mins(5);
/// What a panel shows.
const RANGE: u64 = 60;
/// Where the answers go, for pictures of the panels.
const ANSWERS: &str = "KLDTRACE_DASHBOARD_ANSWERS";
/// Nodes, by the label of their targets.
const LIVE: &str = "n-1";
const MADE_UP: &str = "made-up";

/// Quotes, braces, line ends, what is Grafana's and what is a template's, and
/// 4 KB of it. A backtick is in none of the values that Grafana offers.
fn hostile() -> String {
    "\"'}{[]()\n\r\t\\^$*+?.|/${node:regex}$__range{{x}}%s#:é".to_owned() + &"x".repeat(4096)
}

/// A query for Prometheus, or the values of a variable.
struct Query {
    /// `kldtrace-zfs.json/7/A`.
    place: String,
    title: String,
    text: String,
    instant: bool,
    /// The panel says what it means when there is nothing.
    may_be_empty: bool,
}

/// The exported dashboards, by file.
fn models() -> BTreeMap<String, Value> {
    let folder = tempfile::tempdir().unwrap();
    let mut export = kldtrace();
    export.args(["export", "dashboards"]).arg(folder.path());
    assert!(export.stdout(Stdio::null()).status().unwrap().success());
    let mut models = BTreeMap::new();
    for file in fs::read_dir(folder.path()).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        models.insert(
            name,
            serde_json::from_slice(&fs::read(&path).unwrap()).unwrap(),
        );
    }
    models
}

fn panels(model: &Value) -> Vec<&Value> {
    let rows = model["panels"].as_array().unwrap();
    let below = rows.iter().filter_map(|row| row["panels"].as_array());
    rows.iter().chain(below.flatten()).collect()
}

/// As Grafana escapes a value for the format `regex`: @grafana/data's
/// escapeRegex.
fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        if "\\^$*+?.()|[]{}/".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// Fills in variables as Grafana does: once, from left to right, so that what
/// is put in is not read again.
fn interpolate(text: &str, model: &Value, histograms: &str, chosen: &[(&str, &[&str])]) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        filled.push_str(before);
        let (name, after) = match after.strip_prefix('{') {
            Some(braced) => braced.split_once('}').unwrap(),
            None => {
                let end = after
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .unwrap_or(after.len());
                after.split_at(end)
            }
        };
        rest = after;
        let value = match name {
            "__rate_interval" => "10s".to_owned(),
            "__range" => format!("{RANGE}s"),
            "histograms" => histograms.to_owned(),
            _ => value_of(name.strip_suffix(":regex").unwrap(), model, chosen),
        };
        filled.push_str(&value);
    }
    filled + rest
}

fn value_of(name: &str, model: &Value, chosen: &[(&str, &[&str])]) -> String {
    let variables = model["templating"]["list"].as_array().unwrap();
    let variable = variables.iter().find(|one| one["name"] == name).unwrap();
    match chosen.iter().find(|(one, _)| *one == name) {
        Some((_, [value])) => escape(value),
        Some((_, values)) => {
            let values: Vec<_> = values.iter().map(|value| escape(value)).collect();
            format!("({})", values.join("|"))
        }
        // A value of All that was given stands as it is.
        None => variable["allValue"].as_str().unwrap().to_owned(),
    }
}

/// All queries of the panels.
fn queries(
    models: &BTreeMap<String, Value>,
    histograms: &str,
    chosen: &[(&str, &[&str])],
) -> Vec<Query> {
    let mut queries = Vec::new();
    for (name, model) in models {
        for panel in panels(model) {
            for target in panel["targets"].as_array().into_iter().flatten() {
                if target["datasource"]["type"] != "prometheus" {
                    continue;
                }
                let text = target["expr"].as_str().unwrap();
                queries.push(Query {
                    place: format!(
                        "{name}/{}/{}",
                        panel["id"],
                        target["refId"].as_str().unwrap()
                    ),
                    title: panel["title"].as_str().unwrap().to_owned(),
                    text: interpolate(text, model, histograms, chosen),
                    instant: target["instant"] == true,
                    may_be_empty: panel["fieldConfig"]["defaults"]["noValue"].is_string(),
                });
            }
        }
    }
    queries
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// The answer; whatever is no success fails the test.
fn ask(prometheus: &Prometheus, query: &Query) -> Value {
    let path = if query.instant {
        "/api/v1/query?query=".to_owned()
    } else {
        let end = now();
        let start = end - RANGE;
        format!("/api/v1/query_range?start={start}&end={end}&step=2&query=")
    };
    let answer = prometheus.ask(&path, &query.text);
    let words: String = query.text.chars().take(400).collect();
    assert_eq!(
        answer["status"], "success",
        "{} ({}): {}\n{words}",
        query.place, query.title, answer["error"]
    );
    answer
}

fn is_empty(answer: &Value) -> bool {
    answer["data"]["result"]
        .as_array()
        .is_none_or(Vec::is_empty)
}

/// Asks until everything that has to has an answer; places that stay without
/// one although they may.
fn ask_all(prometheus: &Prometheus, queries: &[Query]) -> Vec<String> {
    let until = Instant::now() + LIMIT;
    let mut waiting: Vec<_> = queries.iter().collect();
    loop {
        waiting.retain(|query| is_empty(&ask(prometheus, query)));
        let places = |may: bool| {
            let those = waiting.iter().filter(|one| one.may_be_empty == may);
            those
                .map(|one| format!("{} ({})", one.place, one.title))
                .collect::<Vec<_>>()
        };
        let wanted = places(false);
        if wanted.is_empty() {
            return places(true);
        }
        assert!(
            Instant::now() < until,
            "no data in five minutes:\n{}",
            wanted.join("\n")
        );
        thread::sleep(Duration::from_secs(1));
    }
}

/// Each query variable has values.
fn ask_variables(prometheus: &Prometheus, models: &BTreeMap<String, Value>, form: &str) {
    let nodes: &[&str] = &[LIVE, MADE_UP];
    for (name, model) in models {
        for variable in model["templating"]["list"].as_array().unwrap() {
            if variable["type"] != "query" {
                continue;
            }
            let text = variable["query"]["query"].as_str().unwrap();
            let inside = text.strip_prefix("label_values(").unwrap();
            let (selector, label) = inside.strip_suffix(')').unwrap().rsplit_once(", ").unwrap();
            let selector = interpolate(selector, model, form, &[("node", nodes)]);
            let path = format!("/api/v1/label/{label}/values?match[]=");
            let answer = prometheus.ask(&path, &selector);
            let values = answer["data"].as_array().unwrap();
            assert!(!values.is_empty(), "{name}: {variable}: {answer}");
            if label == "__name__" {
                // What is left of it by the variable's expression.
                let name = format!("kldtrace_scrape_duration_{form}");
                assert!(values.contains(&json!(name)), "{values:?}");
            }
        }
    }
}

/// Connections, requests of a disk and busy CPUs, until told to stop.
fn load(goes_on: &AtomicBool) {
    let slow = SlowFile::mount();
    let device = Loop::on(&slow.path);
    let disk = device.open(0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let closed = ("127.0.0.1", free_port());
    thread::scope(|scope| {
        for _ in 0..2 * thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while goes_on.load(SeqCst) {
                    let until = Instant::now() + Duration::from_millis(5);
                    while Instant::now() < until {
                        std::hint::spin_loop();
                    }
                    thread::sleep(Duration::from_millis(5));
                }
            });
        }
        while goes_on.load(SeqCst) {
            slow.does.delay.store(3, SeqCst);
            for block in 0..4 {
                read(&disk, block).unwrap();
                write(&disk, block).unwrap();
            }
            let client = TcpStream::connect(address).unwrap();
            let server = listener.accept().unwrap();
            drop((client, server));
            TcpStream::connect(closed).unwrap_err();
            thread::sleep(Duration::from_millis(50));
        }
    });
}

/// A Prometheus with the rules and both nodes.
fn prometheus(daemon: &Daemon, made_up: &Synthetic, options: &[&str]) -> Prometheus {
    let folder = tempfile::tempdir().unwrap();
    let mut export = kldtrace();
    export
        .args(["export", "alerts"])
        .arg(folder.path().join("rules"));
    assert!(export.stdout(Stdio::null()).status().unwrap().success());
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
         rule_files: ['rules/*.yml']\n\
         scrape_configs: [{{job_name: kldtrace, static_configs: [\
         {{targets: ['127.0.0.1:{}'], labels: {{node: {LIVE}}}}}, \
         {{targets: ['127.0.0.1:{}'], labels: {{node: {MADE_UP}}}}}]}}]\n",
        daemon.port, made_up.port
    );
    fs::write(folder.path().join("prometheus.yml"), config).unwrap();
    let prometheus = Prometheus::run(folder, options);
    prometheus.wait_for_news("up");
    prometheus
}

/// What the daemon serves: exported names of families with series.
fn served(daemon: &Daemon) -> BTreeSet<String> {
    // How long a scrape took is told by the one after it.
    daemon.get("/metrics", "");
    let (_, body) = daemon.get("/metrics", "");
    let text = String::from_utf8(body).unwrap();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect()
}

#[test]
fn every_panel_shows_something() {
    if !installed("prometheus") {
        return;
    }
    let spool = tempfile::tempdir().unwrap();
    // Pushes go to a port on which nobody listens.
    let Some(daemon) = Daemon::start(&format!(
        "[spool]\ndirectory = \"{}\"\n[loki]\nurl = \"http://127.0.0.1:{}\"",
        spool.path().display(),
        free_port()
    )) else {
        return;
    };
    let goes_on = AtomicBool::new(true);
    thread::scope(|scope| {
        let _end = End(&goes_on);
        scope.spawn(|| load(&goes_on));
        thread::sleep(Duration::from_secs(1));
        ask_both(&daemon);
    });
}

fn ask_both(daemon: &Daemon) {
    let pictures = env::var_os(ANSWERS);
    let hostile = match pictures {
        Some(_) => "rpool/pg".to_owned(),
        None => hostile(),
    };
    let made_up = Synthetic::without(&served(daemon), &hostile);
    println!(
        "from a node that is made up, as this one does not have them: {}",
        made_up
            .metrics
            .iter()
            .cloned()
            .collect::<Vec<_>>()
            .join(", ")
    );
    let models = models();
    let nodes: &[&str] = &[LIVE, MADE_UP];
    let native = prometheus(daemon, &made_up, &["--enable-feature=native-histograms"]);
    let classic = prometheus(daemon, &made_up, &[]);
    for (form, prometheus) in [("seconds", &native), ("seconds_bucket", &classic)] {
        let all = queries(&models, form, &[("node", nodes)]);
        let empty = ask_all(prometheus, &all);
        println!(
            "{form}: {} queries, without an answer and marked so: {}",
            all.len(),
            empty.join(", ")
        );
        ask_variables(prometheus, &models, form);
        if let Some(file) = &pictures {
            // All of what the panels show is under the load.
            thread::sleep(Duration::from_secs(RANGE));
            let answers = all.iter().map(|one| (&one.place, ask(prometheus, one)));
            let answers: BTreeMap<_, _> = answers.collect();
            fs::write(file, json!(answers).to_string()).unwrap();
            return;
        }
        // With names that somebody chose to do harm: alone, and beside others.
        for chosen in [&[hostile.as_str()][..], &["dataset-0", &hostile]] {
            let all = queries(
                &models,
                form,
                &[
                    ("node", nodes),
                    ("dataset", chosen),
                    ("unit", chosen),
                    ("plane", chosen),
                ],
            );
            for query in &all {
                let answer = ask(prometheus, query);
                // Those that ask for the dataset of the made-up node find it.
                let of_dataset = query.text.contains("dataset=~") && !query.may_be_empty;
                assert!(
                    !of_dataset || !is_empty(&answer),
                    "{} ({}) does not find it",
                    query.place,
                    query.title
                );
            }
        }
    }
}
