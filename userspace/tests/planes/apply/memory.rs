//! An apply that gets no more memory at some point.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use kldtrace::planes::{
    pins::{Epoch, Pins},
    state::State,
};

use super::node::Node;

/// A cgroup with a limit on memory, which the kernel's own for its processes'
/// maps counts against.
struct Group {
    path: PathBuf,
    limit: &'static str,
}

impl Group {
    /// `None`, and a line that says so, where there is no memory controller.
    fn new() -> Option<Self> {
        for (root, limit) in [
            // Version 1, and 2.
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ] {
            let path = PathBuf::from(root).join(format!("kldtrace-test-{}", std::process::id()));
            if fs::create_dir(&path).is_err() {
                continue;
            }
            let group = Self { path, limit };
            if group.path.join(limit).exists() {
                return Some(group);
            }
        }
        println!("skipped: no cgroups with a limit on memory");
        None
    }

    /// Runs a command with at most so many bytes.
    fn run(&self, bytes: u64, command: &Command) -> Output {
        fs::write(self.path.join(self.limit), bytes.to_string()).unwrap();
        let mut limited = Command::new("sh");
        limited
            .args(["-c", "echo $$ > \"$0\"/cgroup.procs && exec \"$@\""])
            .arg(&self.path)
            .arg(command.get_program())
            .args(command.get_args())
            .env_remove("SSH_CONNECTION");
        limited.output().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}

/// Makes programs and maps an earlier version's, so that all of them have to be
/// made anew, the tables of flows among them.
fn earlier(pins: &Pins) {
    let epoch = pins.epochs().unwrap().pop().unwrap();
    for (number, map) in pins.shared(epoch.places).unwrap().iter().enumerate() {
        let other = map.path.with_file_name(format!("other{number}-00000001"));
        fs::rename(&map.path, other).unwrap();
    }
    let other = Epoch {
        hash: 1,
        ..epoch.clone()
    };
    fs::rename(pins.epoch(&epoch), pins.epoch(&other)).unwrap();
}

/// All that is pinned, by name.
fn pinned(pins: &Pins) -> BTreeSet<PathBuf> {
    let mut folders = vec![pins.maps()];
    folders.extend(["images", "epochs", "links"].map(|name| pins.maps().with_file_name(name)));
    let mut all = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path.clone());
            }
            all.insert(path);
        }
    }
    all
}

/// The limit rises until the policy is applied. Each time before, the policy
/// of before is enforced: whether the tool was refused memory and says so, or
/// was killed for it.
#[test]
fn without_memory_for_a_policy_nothing_has_changed() {
    let Some(node) = Node::new("mem") else { return };
    let Some(group) = Group::new() else { return };
    node.apply(&Node::policy("p", &[7001]));
    let pins = Pins::new(&node.roots);
    earlier(&pins);
    let before = State::load(&node.roots).unwrap().current;
    let mut there = pinned(&pins);
    let path = node.file(&Node::policy("p", &[7002]));
    let tool = node.tool(&["apply", path.to_str().unwrap()]);
    let (mut refused, mut killed) = (0, 0);
    let mut limit = 8 << 20;
    loop {
        let output = group.run(limit, &tool);
        let said = String::from_utf8_lossy(&output.stderr);
        println!("{} KiB: {}: {said}", limit >> 10, output.status);
        assert_eq!(
            node.reached([7001, 7002]),
            [!output.status.success(), output.status.success()]
        );
        match output.status.code() {
            Some(0) => break,
            Some(1) => {
                assert!(said.contains("nothing has changed"), "{said}");
                let state = State::load(&node.roots).unwrap();
                assert_eq!(state.next, None);
                assert_eq!(state.current, before);
                assert!(pinned(&pins).is_subset(&there), "{:?}", pinned(&pins));
                refused += 1;
            }
            None => {
                // Whoever comes next uses what is left over.
                there = pinned(&pins);
                killed += 1;
            }
            Some(_) => panic!("{output:?}"),
        }
        limit += limit / 8;
    }
    assert_eq!(node.report().problems, Vec::<String>::new());
    println!(
        "{refused} times refused, {killed} times killed, applied with {} KiB",
        limit >> 10
    );
    assert!(refused > 0);
}
