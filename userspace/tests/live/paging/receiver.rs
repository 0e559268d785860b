//! Who is told: stands in for PagerDuty, Slack and whoever watches.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// A message, as whoever it is for reads it.
#[derive(Debug)]
pub struct Message {
    /// When it had come.
    pub came: Instant,
    /// The channel, the key of the team that is paged, or "watchdog".
    pub to: String,
    /// Something is wrong; else all that it is about has ended.
    pub firing: bool,
    /// The title, and in the lines below it all the rest.
    pub text: String,
    /// What PagerDuty knows it by.
    pub key: Option<String>,
}

impl Message {
    fn read(path: &str, body: &str) -> Self {
        let body: Value = serde_json::from_str(body).unwrap();
        let text = |pointer: &str| {
            let value = body.pointer(pointer).and_then(Value::as_str);
            value.unwrap_or_else(|| panic!("{pointer}: {body}")).into()
        };
        let (to, firing, title, words): (_, _, String, _) = match path {
            "/slack" => {
                let title: String = text("/attachments/0/title");
                let words = text("/attachments/0/text");
                (
                    text("/channel"),
                    title.starts_with("[FIRING] "),
                    title,
                    words,
                )
            }
            "/pagerduty" => (
                text("/routing_key"),
                body["event_action"] == "trigger",
                text("/payload/summary"),
                text("/payload/custom_details/what"),
            ),
            _ => (
                "watchdog".to_owned(),
                body["status"] == "firing",
                text("/alerts/0/annotations/summary"),
                text("/alerts/0/annotations/runbook_url"),
            ),
        };
        Self {
            came: Instant::now(),
            to,
            firing,
            text: format!("{title}\n{words}"),
            key: body["dedup_key"].as_str().map(str::to_owned),
        }
    }

    /// Whether it leads to the runbook of an alert.
    pub fn is_about(&self, alert: &str) -> bool {
        self.text.contains(&format!("/{alert}.md"))
    }
}

/// Takes every POST; what came is kept.
pub struct Receiver {
    port: u16,
    /// All of it, in the order in which it came.
    pub told: Arc<Mutex<Vec<Message>>>,
}

impl Receiver {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let told = Arc::new(Mutex::new(Vec::new()));
        let shared = told.clone();
        // Ends with the test program: connects come until Alertmanager is gone.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let told = shared.clone();
                thread::spawn(move || while take(&stream, &told).is_some() {});
            }
        });
        Self { port, told }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// Waits for a message; returns when it came.
    pub fn wait(&self, what: &str, is: impl Fn(&Message) -> bool) -> Instant {
        let until = Instant::now() + Duration::from_mins(1);
        loop {
            let told = self.told.lock().unwrap();
            if let Some(message) = told.iter().find(|message| is(message)) {
                return message.came;
            }
            assert!(
                Instant::now() < until,
                "{what} was not told in 60 s: {told:#?}"
            );
            drop(told);
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// One request; `None`: the end of the connection.
fn take(stream: &TcpStream, told: &Mutex<Vec<Message>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let path = head.split(' ').nth(1)?.to_owned();
    let lower = head.to_ascii_lowercase();
    let length = lower.split("content-length: ").nth(1)?;
    let mut body = vec![0; length.split("\r\n").next()?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    let message = Message::read(&path, &String::from_utf8_lossy(&body));
    told.lock().unwrap().push(message);
    let reply = "HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok";
    (&*stream).write_all(reply.as_bytes()).ok()
}
