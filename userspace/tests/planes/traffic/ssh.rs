//! SSH: an operator comes in where the policy says, and nowhere else.

use std::{
    collections::BTreeMap,
    fs,
    process::{Output, Stdio},
};

use super::{
    super::apply::node::wait_for,
    net::{EXTERNAL, MANAGEMENT, Net, PARTNERS, STORAGE, WORKLOAD, without},
    program::{Program, installed},
    seen::{At, seen, watch},
};

/// Bytes of what is sent as a snapshot.
const STREAM: usize = 20_000_000;

/// The server of a node, with a key of its own and one that may come in.
struct Server<'a> {
    net: &'a Net,
    program: Program,
}

impl<'a> Server<'a> {
    fn start(net: &'a Net) -> Self {
        for key in ["host", "user"] {
            net.ok(
                &net.peer,
                &format!("ssh-keygen -q -t ed25519 -N '' -f {key}"),
            );
        }
        let host = fs::read_to_string(net.path("host.pub")).unwrap();
        fs::write(net.path("known"), format!("* {host}")).unwrap();
        let config = format!(
            "Port 22\nListenAddress 0.0.0.0\nListenAddress ::\nHostKey {}\n\
             AuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
             PermitRootLogin prohibit-password\nPidFile none\n",
            net.path("host"),
            net.path("user.pub")
        );
        fs::write(net.path("sshd.conf"), config).unwrap();
        let script = format!(
            "mount -t tmpfs tmpfs /run && mkdir /run/sshd && exec $(command -v sshd) -D -e -f {}",
            net.path("sshd.conf")
        );
        let program = Program::start(net, &net.node, "sshd", &script);
        let server = Self { net, program };
        wait_for("the server", || {
            let said = server.program.said();
            (said.matches("Server listening").count() == 2).then_some(())
        });
        server
    }

    /// A command by SSH, from an address of the neighbour.
    fn ssh(&self, from: &str, to: &str, command: &str, stdin: Stdio) -> Output {
        let mut ssh = self.net.command(&self.net.peer, "ssh");
        ssh.args(["-F", "none", "-i", "user", "-o", "UserKnownHostsFile=known"])
            .args(["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"])
            .args(["-o", "ConnectTimeout=2", "-b", from])
            .args([&format!("root@{to}"), command])
            .stdin(stdin);
        ssh.output().unwrap()
    }

    /// Whether a command's output arrives. What fails must do so as the node
    /// is silent, and for no other reason.
    fn answers(&self, from: &str, to: &str) -> bool {
        let output = self.ssh(from, to, "echo $SSH_CONNECTION", Stdio::null());
        let said = String::from_utf8_lossy(&output.stdout);
        if output.status.success() {
            let words: Vec<_> = said.split_whitespace().collect();
            assert!(
                matches!(words[..], [source, _, node, "22"] if source == from && node == to),
                "{said}"
            );
            return true;
        }
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("timed out"), "{from} > {to}: {error}");
        false
    }
}

#[test]
fn ssh_comes_in_where_the_policy_says() {
    if !installed(&["sshd", "ssh", "ssh-keygen", "nft"]) {
        return;
    }
    let Some(net) = Net::new("ssh") else { return };
    let server = Server::start(&net);
    watch(&net, &net.peer, At::Leaving);
    let before = net.counts();
    // Through which plane, from which and to which one's address, and which
    // rule says so.
    let mut refused = BTreeMap::new();
    for family in 0..2 {
        for (through, from, to, rule) in [
            (
                MANAGEMENT,
                MANAGEMENT,
                MANAGEMENT,
                Ok("management pass floor"),
            ),
            (STORAGE, STORAGE, STORAGE, Ok("storage pass zfs-send")),
            (
                MANAGEMENT,
                MANAGEMENT,
                STORAGE,
                Ok("management pass management > storage: operators-to-storage"),
            ),
            (
                MANAGEMENT,
                MANAGEMENT,
                WORKLOAD,
                Ok("management pass management > workload: operators-to-workload"),
            ),
            (WORKLOAD, WORKLOAD, WORKLOAD, Err("workload drop (default)")),
            (EXTERNAL, EXTERNAL, EXTERNAL, Err("external drop (default)")),
            (PARTNERS, PARTNERS, PARTNERS, Err("external drop (default)")),
            (WORKLOAD, WORKLOAD, MANAGEMENT, Err("workload drop cross")),
            (
                WORKLOAD,
                WORKLOAD,
                STORAGE,
                Err("workload drop workload > storage: (default)"),
            ),
            (STORAGE, STORAGE, MANAGEMENT, Err("storage drop cross")),
            (EXTERNAL, EXTERNAL, MANAGEMENT, Err("external drop cross")),
            // Forged: an address of the management plane on another.
            (STORAGE, MANAGEMENT, MANAGEMENT, Err("storage drop cross")),
        ] {
            let (from, to) = (from.peer(family), to.node(family));
            let asked = net.counts();
            let is = net.through(&through, &to, || server.answers(&from, &to));
            let came = net.counts().since(&asked);
            println!("{} {from} > {to}: {is} {came:?}", through.interface);
            match rule {
                Ok(rule) => assert!(is && came.of(rule) == 1, "{rule}: {came:?}"),
                Err(rule) => {
                    assert!(!is, "{from} > {to}");
                    *refused.entry(rule).or_insert(0) += came.refused().values().sum::<u64>();
                    assert!(came.of(rule) > 0, "{rule}: {came:?}");
                }
            }
        }
    }
    // As many SYNs as ssh has sent again and again, by nftables.
    let all = net.counts().since(&before);
    let sent: u64 = seen(&net, &net.peer).values().sum();
    let dropped: u64 = all.refused().values().sum();
    assert_eq!(sent, 8 + dropped, "{all:?}");
    assert_eq!(dropped, refused.values().sum::<u64>());

    // A snapshot, as `zfs send` pipes it.
    let bytes: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..))
        .take(STREAM)
        .collect();
    fs::write(net.path("snapshot"), bytes).unwrap();
    let stdin = fs::File::open(net.path("snapshot")).unwrap();
    let (from, to) = (STORAGE.peer(0), STORAGE.node(0));
    let arrived = server.ssh(&from, &to, "sha256sum", stdin.into());
    let expected = net.ok(&net.peer, "sha256sum < snapshot");
    assert_eq!(String::from_utf8(arrived.stdout).unwrap(), expected);

    // It is the rule that lets it in.
    net.apply(&without("zfs-send"));
    assert!(!server.answers(&from, &to));
    assert!(server.answers(&MANAGEMENT.peer(0), &MANAGEMENT.node(0)));
}
