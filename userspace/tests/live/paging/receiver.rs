//! Who is told: stands in for PagerDuty and Slack.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

/// What came: which path was asked for, and with which body.
pub type Told = (String, String);

/// Takes every POST; what came is kept.
pub struct Receiver {
    port: u16,
    pub told: Arc<Mutex<Vec<Told>>>,
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

    /// Waits until a message about an alert came by that path.
    pub fn wait(&self, path: &str, alert: &str, word: &str) {
        let since = Instant::now();
        let page = format!("/{alert}.md");
        let came = || {
            let told = self.told.lock().unwrap();
            told.iter()
                .any(|(to, body)| to == path && body.contains(&page) && body.contains(word))
        };
        while !came() {
            let waited = since.elapsed();
            assert!(
                waited < Duration::from_mins(1),
                "{alert} ({word}) did not come to {path} in 60 s: {:?}",
                self.told.lock().unwrap()
            );
            thread::sleep(Duration::from_millis(20));
        }
        let seconds = since.elapsed().as_secs_f64();
        println!("{alert} {word}: told {path} after {seconds:.1} s");
    }
}

/// One request; `None`: the end of the connection.
fn take(stream: &TcpStream, told: &Mutex<Vec<Told>>) -> Option<()> {
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
    let body = String::from_utf8_lossy(&body).into_owned();
    told.lock().unwrap().push((path, body));
    let reply = "HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok";
    (&*stream).write_all(reply.as_bytes()).ok()
}
