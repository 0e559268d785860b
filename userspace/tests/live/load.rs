//! Loads that do exactly what they are told: processes that rest between
//! tasks, in cgroups of their own, and what the kernel says of them.

use std::{
    fs::{self, File},
    io::{PipeReader, PipeWriter, Read as _, Write as _, pipe},
    ops::{Add, Sub},
    os::fd::{AsRawFd as _, RawFd},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    time::{Duration, Instant},
};

use kldtrace::kernel::cgroup2;

use crate::common::in_status;

pub const MILLISECOND: u64 = 1_000_000;

/// A cgroup at the top of the hierarchy: its unit is its name, and whatever
/// counts there is ours. Removed, with what runs in it, when dropped.
pub struct Cgroup {
    pub path: PathBuf,
    pub unit: String,
}

impl Cgroup {
    pub fn new(what: &str) -> Self {
        let unit = format!("kldtrace-test-{}-{what}", std::process::id());
        let root = cgroup2::root().expect("cgroup v2 is mounted");
        let path = root.join(&unit);
        fs::create_dir(&path).unwrap();
        Self { path, unit }
    }

    /// Moves a process into it.
    pub fn add(&self, pid: i32) {
        fs::write(self.path.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let until = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&self.path).is_err() && Instant::now() < until {
            let pids = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
            for pid in pids.lines().filter_map(|line| line.parse().ok()) {
                // SAFETY: a system call on numbers; they are in our cgroup.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// All cgroups that there are.
pub fn hierarchy() -> Vec<PathBuf> {
    let mut all = vec![cgroup2::root().expect("cgroup v2 is mounted")];
    let mut next = 0;
    while let Some(cgroup) = all.get(next) {
        // One that is gone meanwhile has nothing below it.
        let below = fs::read_dir(cgroup).into_iter().flatten().flatten();
        let below: Vec<_> = below.map(|entry| entry.path()).collect();
        all.extend(below.into_iter().filter(|path| path.is_dir()));
        next += 1;
    }
    all
}

/// What the kernel has counted for a process of one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Account {
    /// /proc/PID/schedstat: nanoseconds on a CPU.
    pub ran: u64,
    /// Nanoseconds on a run queue.
    pub waited: u64,
    /// Times that it came onto a CPU.
    pub slices: u64,
    /// /proc/PID/status: `voluntary_ctxt_switches`.
    pub voluntary: u64,
    /// `nonvoluntary_ctxt_switches`.
    pub preempted: u64,
}

impl Account {
    fn read(pid: i32) -> Self {
        let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
        let numbers: Vec<u64> = text
            .split_whitespace()
            .map(|number| number.parse().unwrap())
            .collect();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let switches = |key| in_status(&status, key).unwrap();
        Self {
            ran: numbers[0],
            waited: numbers[1],
            slices: numbers[2],
            voluntary: switches("voluntary_ctxt_switches"),
            preempted: switches("nonvoluntary_ctxt_switches"),
        }
    }

    fn zip(self, other: Self, with: fn(u64, u64) -> u64) -> Self {
        Self {
            ran: with(self.ran, other.ran),
            waited: with(self.waited, other.waited),
            slices: with(self.slices, other.slices),
            voluntary: with(self.voluntary, other.voluntary),
            preempted: with(self.preempted, other.preempted),
        }
    }
}

impl Add for Account {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
}

impl Sub for Account {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
}

/// Waits until a process is off its CPU, or dead and switched away from for
/// the last time. Only then are the kernel's counts and ours at rest: a task
/// is seen asleep before it has left. /proc/PID/syscall says `running` until
/// then (lib/syscall.c: `task_current_syscall`, `wait_task_inactive`).
pub fn rest(pid: i32) {
    let until = Instant::now() + Duration::from_mins(1);
    let path = format!("/proc/{pid}/syscall");
    while fs::read_to_string(&path).unwrap().starts_with("running") {
        assert!(Instant::now() < until, "{pid} does not come to rest");
        std::thread::yield_now();
    }
}

/// The same for one that waits for its next task: in read(2).
fn rest_in_read(pid: i32) {
    let until = Instant::now() + Duration::from_mins(1);
    let path = format!("/proc/{pid}/syscall");
    let read = format!("{} ", libc::SYS_read);
    while !fs::read_to_string(&path).unwrap().starts_with(&read) {
        assert!(Instant::now() < until, "{pid} does not come to rest");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A process that sleeps until it gets a number, works, answers with a number
/// and sleeps again. While it sleeps nothing is counted for it: a window from
/// one sleep to the next has no edges, and its counts must agree exactly.
///
/// It has pipes, whose ends nobody wakes but who writes. A socket's are woken too
/// when the memory of what was sent is free again, which since Linux 7 is later.
pub struct Worker {
    pub pid: i32,
    tasks: PipeWriter,
    answers: PipeReader,
}

impl Worker {
    /// Forks it. `work` must not allocate much and must not print: it runs in
    /// a copy of a process that may have had threads.
    pub fn start(work: impl FnMut(u64) -> u64) -> Self {
        let (todo, tasks) = pipe().unwrap();
        let (answers, done) = pipe().unwrap();
        // SAFETY: the child runs `serve` only, which ends in `_exit`.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            drop((tasks, answers));
            let ends = [todo.as_raw_fd(), done.as_raw_fd()];
            let served = catch_unwind(AssertUnwindSafe(|| serve(ends, work)));
            exit(i32::from(served.is_err()));
        }
        assert!(pid > 0, "fork: {}", std::io::Error::last_os_error());
        let worker = Self {
            pid,
            tasks,
            answers,
        };
        // It has set itself up and rests.
        rest_in_read(pid);
        worker
    }

    /// The same in a cgroup.
    pub fn start_in(cgroup: &Cgroup, work: impl FnMut(u64) -> u64) -> Self {
        let worker = Self::start(work);
        cgroup.add(worker.pid);
        worker
    }

    /// Gives it a task.
    pub fn begin(&mut self, task: u64) {
        self.tasks.write_all(&task.to_ne_bytes()).unwrap();
    }

    /// Its answer, once it rests again.
    pub fn end(&mut self) -> u64 {
        let mut answer = [0; 8];
        self.answers.read_exact(&mut answer).expect("a live worker");
        rest_in_read(self.pid);
        u64::from_ne_bytes(answer)
    }

    /// Both.
    pub fn run(&mut self, task: u64) -> u64 {
        self.begin(task);
        self.end()
    }

    /// Moves it to the next CPU, if it is pinned to one.
    pub fn next_cpu(&self) {
        let all = cpus();
        if let [cpu] = affinity(self.pid)[..] {
            let at = all.iter().position(|&one| one == cpu).unwrap_or(0);
            pin(self.pid, all[(at + 1) % all.len()]);
        }
    }

    /// What the kernel has counted for it; it must be at rest.
    pub fn account(&self) -> Account {
        rest_in_read(self.pid);
        Account::read(self.pid)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // SAFETY: our own child, not yet waited for.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
        }
    }
}

fn serve([todo, done]: [RawFd; 2], mut work: impl FnMut(u64) -> u64) {
    // SAFETY: a system call on numbers. No worker outlives a killed test.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    while let Some(task) = read_number(todo) {
        write_number(done, work(task));
    }
}

/// Waits for a number; `None` when the other side is gone.
pub fn read_number(fd: RawFd) -> Option<u64> {
    let mut number = [0; 8];
    // SAFETY: the buffer is ours and of that length.
    let read = unsafe { libc::read(fd, number.as_mut_ptr().cast(), 8) };
    (read == 8).then(|| u64::from_ne_bytes(number))
}

/// Sends a number.
pub fn write_number(fd: RawFd, number: u64) {
    // SAFETY: the buffer is ours and of that length.
    unsafe { libc::write(fd, number.to_ne_bytes().as_ptr().cast(), 8) };
}

/// Ends this process at once: no destructor of the test runs in a copy of it.
pub fn exit(status: i32) -> ! {
    // SAFETY: it has no preconditions.
    unsafe { libc::_exit(status) }
}

/// Starts a process in a cgroup from its first instruction (`clone3` with
/// `CLONE_INTO_CGROUP`, since 5.7), with more flags. It ends with `child`.
pub fn spawn_into(cgroup: &File, flags: u64, child: impl FnOnce()) -> i32 {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    // SAFETY: zeros are valid arguments.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = CLONE_INTO_CGROUP | flags;
    args.exit_signal = libc::SIGCHLD as u64;
    args.cgroup = cgroup.as_raw_fd().cast_unsigned().into();
    // SAFETY: memory is copied, as by fork; the child ends in `exit`.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of_val(&args)) };
    if pid == 0 {
        child();
        exit(0);
    }
    assert!(pid > 0, "clone3: {}", std::io::Error::last_os_error());
    pid as i32
}

/// Waits for the end of a child, and says what the kernel counted for it, up
/// to its very last switch.
pub fn reap(pid: i32) -> Account {
    // SAFETY: our own child; zeros are a valid `siginfo_t`. It stays a zombie
    // until its counts are read.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOWAIT;
        assert_eq!(
            libc::waitid(libc::P_PID, pid.cast_unsigned(), &raw mut info, flags),
            0
        );
    }
    rest(pid);
    let account = Account::read(pid);
    // SAFETY: our own child, dead.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    account
}

/// CPUs that this process may use.
pub fn cpus() -> Vec<usize> {
    affinity(0)
}

fn affinity(pid: i32) -> Vec<usize> {
    // SAFETY: the set is ours; zeros are an empty one.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(pid, size_of_val(&set), &raw mut set);
        (0..libc::CPU_SETSIZE as usize)
            .filter(|&cpu| libc::CPU_ISSET(cpu, &set))
            .collect()
    }
}

/// Pins a process (0: the caller) to one CPU.
pub fn pin(pid: i32, cpu: usize) {
    // SAFETY: the set is ours; zeros are an empty one.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(pid, size_of_val(&set), &raw const set)
    };
    assert_eq!(result, 0, "sched_setaffinity: CPU {cpu}");
}

/// Puts a process before all of SCHED_OTHER, so that a busy machine does not
/// get in its way.
pub fn fifo(pid: i32, priority: i32) {
    let parameter = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: the parameter is ours.
    let result = unsafe { libc::sched_setscheduler(pid, libc::SCHED_FIFO, &raw const parameter) };
    assert_eq!(
        result,
        0,
        "sched_setscheduler: {}",
        std::io::Error::last_os_error()
    );
}

fn clock(which: i32) -> u64 {
    // SAFETY: the struct is ours; zeros are a valid one.
    unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(which, &raw mut time);
        time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
    }
}

/// CLOCK_MONOTONIC in nanoseconds.
pub fn now() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

/// Keeps the CPU busy until then.
pub fn spin_until(time: u64) {
    while now() < time {
        std::hint::spin_loop();
    }
}

/// Uses that much CPU time, however long it takes.
pub fn spin_for(cpu_time: u64) {
    let until = clock(libc::CLOCK_THREAD_CPUTIME_ID) + cpu_time;
    while clock(libc::CLOCK_THREAD_CPUTIME_ID) < until {
        std::hint::spin_loop();
    }
}

/// Sleeps until then, without the slack that timers usually have.
pub fn sleep_until(time: u64) {
    let until = libc::timespec {
        tv_sec: (time / 1_000_000_000).cast_signed(),
        tv_nsec: (time % 1_000_000_000).cast_signed(),
    };
    // SAFETY: the struct is ours. 1 ns of slack is the least there is.
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64);
        libc::clock_nanosleep(
            libc::CLOCK_MONOTONIC,
            libc::TIMER_ABSTIME,
            &raw const until,
            std::ptr::null_mut(),
        );
    }
}

/// Sleeps that long.
pub fn sleep_for(nanoseconds: u64) {
    sleep_until(now() + nanoseconds);
}
