//! What a scrape costs by its number of series, and how large it is: histograms
//! of 40 buckets, encoded, compressed and written to a scraper on this machine.
//! Reading the probes is not part of it: `cargo xtask bench --only scrape` is
//! about that.
//!
//! Prints one JSON object for each size and way.

use std::{
    fmt::Write as _,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Instant,
};

use kldtrace_exporters::{
    model::{Family, Histogram, Kind, Series, Unit, Value},
    prometheus::{Body, Encoding, Format},
};
use serde_json::json;

/// Numbers of series: the goal's, and three that show how the cost grows.
const SIZES: [u32; 4] = [1000, 10_000, 20_000, 50_000];
/// Series of one family.
const OF_A_FAMILY: u32 = 500;
/// Scrapes of each size and way.
const SCRAPES: usize = 100;
const BUCKETS: i32 = 40;
const WAYS: [(Format, Encoding); 4] = [
    (Format::Protobuf, Encoding::Identity),
    (Format::Protobuf, Encoding::Gzip),
    (Format::Text, Encoding::Identity),
    (Format::Text, Encoding::Gzip),
];

fn main() {
    let (mut scraper, mut server) = connection();
    thread::spawn(move || {
        let mut bytes = vec![0; 1 << 20];
        while scraper.read(&mut bytes).is_ok_and(|length| length > 0) {}
    });
    for size in SIZES {
        let families = families(size);
        let same_resolution = text_of_same_resolution(&families);
        for (format, encoding) in WAYS {
            let mut times = Vec::with_capacity(SCRAPES);
            let mut cpu_times = Vec::with_capacity(SCRAPES);
            let mut length = 0;
            for _ in 0..SCRAPES {
                let (start, before) = (Instant::now(), thread_cpu_ms());
                let body = Body::new(format, encoding, &families).expect("memory");
                server.write_all(&body.bytes).expect("the scraper reads");
                times.push(start.elapsed().as_secs_f64() * 1e3);
                cpu_times.push(thread_cpu_ms() - before);
                length = body.bytes.len();
            }
            times.sort_by(f64::total_cmp);
            cpu_times.sort_by(f64::total_cmp);
            let line = json!({
                "series": size,
                "format": format!("{format:?}").to_lowercase(),
                "coding": encoding.name().unwrap_or("identity"),
                "median_ms": times[SCRAPES / 2],
                "p99_ms": times[(SCRAPES * 99).div_ceil(100) - 1],
                "cpu_ms": cpu_times[SCRAPES / 2],
                "bytes": length,
                "bytes_of_text_of_same_resolution": same_resolution,
            });
            println!("{line}");
        }
    }
}

fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let scraper = TcpStream::connect(address).expect("a connection");
    (scraper, listener.accept().expect("its other end").0)
}

/// CPU time of this thread, which says more than a clock where others work too.
fn thread_cpu_ms() -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the struct is ours.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

fn families(size: u32) -> Vec<Family> {
    let families = (0..size.div_ceil(OF_A_FAMILY)).map(|number| Family {
        name: format!("kldtrace_bench_{number}_latency_seconds").into(),
        help: "Time that an operation took.".into(),
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        series: (0..OF_A_FAMILY).map(|id| series(id + number)).collect(),
    });
    families.collect()
}

fn series(id: u32) -> Series {
    // A multiplicative hash: numbers as odd as measured ones.
    let odd = |n: i32| {
        u64::from(id + n.unsigned_abs()).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44 & 0xffff
    };
    let unit: Arc<str> = format!("container-{id:04}.scope").into();
    let first = -120 + (id % 40).cast_signed();
    Series {
        labels: vec![("op".into(), "read".into()), ("unit".into(), unit)],
        value: Value::Histogram(Histogram {
            sum_ns: odd(7) * 1_000_000,
            buckets: (first..first + BUCKETS).map(|n| (n, odd(n))).collect(),
            ..Histogram::default()
        }),
    }
}

/// Bytes that classic text would take with a line for each bucket that is not
/// empty. A real one would need the same bounds in every series, and be larger.
fn text_of_same_resolution(families: &[Family]) -> usize {
    let mut text = String::new();
    for family in families {
        for series in &family.series {
            let Value::Histogram(histogram) = &series.value else {
                continue;
            };
            let labels = series.labels.iter();
            let labels: Vec<_> = labels
                .map(|(name, value)| format!("{name}={value:?}"))
                .collect();
            let labels = labels.join(",");
            let mut sum = 0;
            for (index, count) in &histogram.buckets {
                sum += count;
                let bound = 2_f64.powf(f64::from(*index) / 8.0);
                let _ = writeln!(
                    text,
                    "{}_bucket{{{labels},le=\"{bound}\"}} {sum}",
                    family.name
                );
            }
            let _ = writeln!(text, "{}_bucket{{{labels},le=\"+Inf\"}} {sum}", family.name);
            let _ = writeln!(text, "{}_sum{{{labels}}} {sum}", family.name);
            let _ = writeln!(text, "{}_count{{{labels}}} {sum}", family.name);
        }
    }
    text.len()
}
