//! Disks for tests: loop devices, and a file that is as slow and as faulty as
//! a test wants, to put one on.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use super::common::{sh, wait_for};

/// What tests read and write at once.
pub const BLOCK: usize = 4096;

/// A loop device with a number that nobody else uses; gone when dropped.
pub struct Loop {
    /// Its kernel name.
    pub name: String,
}

impl Loop {
    /// Sets one up on a file.
    pub fn on(file: &Path) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Tests may run in several processes at once.
        let number = 1000 + (std::process::id() % 1000) * 100 + NEXT.fetch_add(1, SeqCst);
        let device = Self {
            name: format!("loop{number}"),
        };
        // LOOP_CTL_ADD of include/uapi/linux/loop.h.
        assert!(control(0x4c80, number), "loop device {number}");
        sh(&format!("losetup /dev/{} {}", device.name, file.display()));
        device
    }

    /// Opens it past the page cache, so that each call is one request.
    pub fn open(&self, more: i32) -> File {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_DIRECT | more)
            .open(format!("/dev/{}", self.name))
            .unwrap()
    }

    /// Fields of /sys/block/NAME/stat (Documentation/block/stat.rst).
    pub fn stat(&self) -> Vec<u64> {
        let text = fs::read_to_string(format!("/sys/block/{}/stat", self.name)).unwrap();
        text.split_whitespace()
            .map(|n| n.parse().unwrap())
            .collect()
    }

    /// A file of its queue.
    pub fn queue(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/sys/block/{}/queue/{file}", self.name))
    }

    /// Discards a range: BLKDISCARD of include/uapi/linux/fs.h.
    pub fn discard(&self, from: u64, length: u64) {
        let range = [from, length];
        let file = self.open(0);
        // SAFETY: the ioctl reads two numbers, which live through the call.
        let done = unsafe { libc::ioctl(file.as_raw_fd(), 0x1277, range.as_ptr()) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = std::process::Command::new("losetup")
            .args(["-d", &format!("/dev/{}", self.name)])
            .status();
        let number = self.name["loop".len()..].parse().unwrap_or(u32::MAX);
        // LOOP_CTL_REMOVE; busy until the last user has closed it.
        for _ in 0..100 {
            if control(0x4c81, number) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn control(request: libc::c_ulong, number: u32) -> bool {
    let control = File::open("/dev/loop-control").unwrap();
    // SAFETY: the argument is a number.
    unsafe { libc::ioctl(control.as_raw_fd(), request, number) >= 0 }
}

/// A block of zeros that `O_DIRECT` takes.
#[repr(align(4096))]
pub struct Aligned(pub [u8; BLOCK]);

/// Reads one block; the errno if it fails.
pub fn read(disk: &File, block: u64) -> Result<(), i32> {
    let mut buffer = Aligned([0; BLOCK]);
    disk.read_exact_at(&mut buffer.0, block * BLOCK as u64)
        .map_err(|error| error.raw_os_error().unwrap_or(0))
}

/// Writes one block; the errno if it fails.
pub fn write(disk: &File, block: u64) -> Result<(), i32> {
    let buffer = Aligned([0; BLOCK]);
    disk.write_all_at(&buffer.0, block * BLOCK as u64)
        .map_err(|error| error.raw_os_error().unwrap_or(0))
}

/// What a [`SlowFile`] does. It answers one request after the other.
#[derive(Default)]
pub struct Behaviour {
    /// Milliseconds that each read, write and sync takes.
    pub delay: AtomicU64,
    /// Takes in requests but answers none while set.
    pub hold: AtomicBool,
    /// Error number that reads and writes of odd blocks get; 0: none.
    pub fail_odd: AtomicI32,
    /// Error number that syncs get; 0: none.
    pub fail_sync: AtomicI32,
    /// Nanoseconds for which requests were held: the device took no less.
    pub held: AtomicU64,
}

/// A file of 16 MiB of zeros, served by a thread of the test over FUSE
/// (include/uapi/linux/fuse.h): the root of the mount is the file itself.
pub struct SlowFile {
    /// What it does.
    pub does: Arc<Behaviour>,
    /// Where it is.
    pub path: PathBuf,
    _folder: tempfile::TempDir,
}

const SIZE: u64 = 16 << 20;

impl SlowFile {
    /// Mounts it.
    pub fn mount() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        File::create(&path).unwrap();
        let channel = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .unwrap();
        let options = format!(
            "fd={},rootmode=100600,user_id=0,group_id=0\0",
            channel.as_raw_fd()
        );
        let target = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: four C strings that live through the call.
        let mounted = unsafe {
            libc::mount(
                c"kldtrace-test".as_ptr(),
                target.as_ptr(),
                c"fuse".as_ptr(),
                libc::MS_NOSUID | libc::MS_NODEV,
                options.as_ptr().cast(),
            )
        };
        assert_eq!(mounted, 0, "{}", std::io::Error::last_os_error());
        let does = Arc::new(Behaviour::default());
        let behaviour = does.clone();
        thread::spawn(move || serve(channel, &behaviour));
        Self {
            does,
            path,
            _folder: folder,
        }
    }
}

impl Drop for SlowFile {
    fn drop(&mut self) {
        self.does.hold.store(false, SeqCst);
        let target = std::ffi::CString::new(self.path.to_str().unwrap()).unwrap();
        // SAFETY: a C string that lives through the call.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
}

/// Answers until the file is unmounted.
fn serve(mut channel: File, does: &Behaviour) {
    let mut request = vec![0; 1 << 20];
    loop {
        let length = match channel.read(&mut request) {
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(_) => return,
        };
        let request = &request[..length];
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
        let long = |at: usize| u64::from_ne_bytes(request[at..at + 8].try_into().unwrap());
        // fuse_in_header: length, opcode, unique, …; the arguments from 40.
        let answer = match word(4) {
            // GETATTR: valid for 0 s, then the attributes.
            3 => Ok(attributes()),
            // OPEN: a handle, FOPEN_DIRECT_IO.
            14 => Ok(words(&[0, 0, 1, 0])),
            // READ and WRITE: handle, offset, size.
            15 => transfer(does, long(48)).map(|()| vec![0; word(56) as usize]),
            16 => transfer(does, long(48)).map(|()| words(&[word(56), 0])),
            // FSYNC.
            20 => take_time(does, &does.fail_sync).map(|()| Vec::new()),
            // RELEASE, FLUSH, FALLOCATE.
            18 | 25 | 43 => Ok(Vec::new()),
            // INIT: version 7.31, no options, writes of up to 128 KiB.
            26 => Ok(words(&[
                7, 31, 0, 0, 0, 0x2_0000, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            ])),
            // FORGET and BATCH_FORGET have no answer.
            2 | 42 => continue,
            _ => Err(libc::ENOSYS),
        };
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(error) => (-error, Vec::new()),
        };
        let mut reply = words(&[16 + body.len() as u32, error.cast_unsigned()]);
        reply.extend_from_slice(&request[8..16]);
        reply.extend(body);
        // Whoever asked may have been interrupted.
        let _ = channel.write_all(&reply);
    }
}

fn transfer(does: &Behaviour, offset: u64) -> Result<(), i32> {
    if (offset / BLOCK as u64) % 2 == 1 {
        take_time(does, &does.fail_odd)
    } else {
        take_time(does, &AtomicI32::new(0))
    }
}

fn take_time(does: &Behaviour, error: &AtomicI32) -> Result<(), i32> {
    let since = Instant::now();
    while does.hold.load(SeqCst) {
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(Duration::from_millis(does.delay.load(SeqCst)));
    let held = u64::try_from(since.elapsed().as_nanos()).unwrap();
    does.held.fetch_add(held, SeqCst);
    match error.load(SeqCst) {
        0 => Ok(()),
        error => Err(error),
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// fuse_attr_out: inode 1, size, blocks, times, mode, links, owner, …
fn attributes() -> Vec<u8> {
    let mut out = words(&[0; 26]);
    out[16..24].copy_from_slice(&1_u64.to_ne_bytes());
    out[24..32].copy_from_slice(&SIZE.to_ne_bytes());
    out[76..80].copy_from_slice(&0o100_600_u32.to_ne_bytes());
    out[80..84].copy_from_slice(&1_u32.to_ne_bytes());
    out
}

/// Waits until so many requests are in flight, queued or issued.
pub fn wait_in_flight(device: &Loop, requests: u64) {
    wait_for("the requests to be in flight", || {
        device.stat()[8] == requests
    });
}
