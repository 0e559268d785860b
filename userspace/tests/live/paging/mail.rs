//! Who takes mail: as much of SMTP (RFC 5321) as Alertmanager speaks.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// A mail as it came: to whom, and all of it.
pub type Mail = (String, String);

/// Takes every mail; what came is kept.
pub struct Mailbox {
    /// Where it listens.
    pub port: u16,
    /// All of it.
    pub mails: Arc<Mutex<Vec<Mail>>>,
}

impl Mailbox {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mails = Arc::new(Mutex::new(Vec::new()));
        let shared = mails.clone();
        // Ends with the test program.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mails = shared.clone();
                thread::spawn(move || take(&stream, &mails));
            }
        });
        Self { port, mails }
    }

    /// The subjects of the mails that somebody has, as they came: of a long one
    /// the first line.
    pub fn subjects(&self, of: &str) -> Vec<String> {
        let mails = self.mails.lock().unwrap();
        let mails = mails.iter().filter(|(to, _)| to == of);
        let lines = mails.flat_map(|(_, mail)| mail.lines());
        let subjects = lines.filter_map(|line| line.strip_prefix("Subject: "));
        subjects.map(str::to_owned).collect()
    }
}

/// One connection; `None`: it broke.
fn take(stream: &TcpStream, mails: &Mutex<Vec<Mail>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let say = |words: &str| {
        let mut stream = stream;
        stream.write_all(format!("{words}\r\n").as_bytes()).ok()
    };
    say("220 here")?;
    let mut to = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(address) = line.strip_prefix("RCPT TO:<") {
            address.split('>').next()?.clone_into(&mut to);
        }
        match line.trim_end() {
            "DATA" => {}
            "QUIT" => return say("221 bye"),
            _ => {
                say("250 yes")?;
                continue;
            }
        }
        say("354 go on")?;
        let mut mail = String::new();
        while !mail.ends_with("\r\n.\r\n") {
            if reader.read_line(&mut mail).ok()? == 0 {
                return None;
            }
        }
        mails.lock().unwrap().push((to.clone(), mail));
        say("250 taken")?;
    }
}
