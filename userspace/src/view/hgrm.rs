//! HdrHistogram: our buckets as one of its histograms, and the percentile
//! text (`.hgrm`) that its plotters read.
//!
//! The crate offers iteration by percentiles, which is used here, and a binary
//! interval log, but no writer of this text.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use kldtrace_exporters::model::Histogram;

use super::group::{Row, Shown, total};
use crate::quantile::middle;

/// HdrHistogram's histogram of counts, in nanoseconds.
pub type Hdr = hdrhistogram::Histogram<u64>;

/// 1024 s in nanoseconds: the longest duration that has a bucket.
const LONGEST: u64 = 1_024_000_000_000;

/// `histogram` as HdrHistogram of three significant digits in nanoseconds.
///
/// Each bucket is recorded at its geometric middle, rounded to a nanosecond;
/// what took longer than 1024 s is recorded as 1024 s, the least it can be.
pub fn hdr(histogram: &Histogram) -> Hdr {
    let Ok(mut hdr) = Hdr::new_with_bounds(1, LONGEST, 3) else {
        unreachable!("bounds and digits are constants in range");
    };
    let zero = (0, histogram.zero);
    let overflow = (LONGEST, histogram.overflow);
    let buckets = histogram.buckets.iter();
    for (nanoseconds, count) in buckets
        .map(|(index, count)| (nanoseconds(*index), *count))
        .chain([zero, overflow])
    {
        // Recording a value no times would still make it the maximum.
        if count > 0 {
            hdr.saturating_record_n(nanoseconds, count);
        }
    }
    hdr
}

/// Geometric middle of bucket `index`, rounded.
#[expect(clippy::cast_sign_loss, reason = "a power of two is positive")]
fn nanoseconds(index: i32) -> u64 {
    (middle(index) * 1e9).round() as u64
}

/// Writes the percentile distribution of `histogram` in microseconds, in the
/// format of HdrHistogram's `outputPercentileDistribution` with five steps for
/// each halving of the distance to 100 %.
pub fn write(out: &mut dyn Write, signal: &str, histogram: &Histogram) -> io::Result<()> {
    let hdr = hdr(histogram);
    // Plotters skip lines that start with #.
    writeln!(out, "# kldtrace {signal}, values in microseconds")?;
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    let mut seen = 0_u64;
    for step in hdr.iter_quantiles(5) {
        seen = seen.saturating_add(step.count_since_last_iteration());
        let quantile = step.quantile_iterated_to();
        let value = step.value_iterated_to() as f64 / 1e3;
        write!(out, "{value:12.3} {quantile:2.12} {seen:10}")?;
        // The last column of the last line would be infinite.
        if quantile < 1.0 {
            write!(out, " {:14.2}", 1.0 / (1.0 - quantile))?;
        }
        writeln!(out)?;
    }
    let (mean, deviation, max) = (hdr.mean() / 1e3, hdr.stdev() / 1e3, hdr.max() as f64 / 1e3);
    let (count, buckets, values) = (hdr.len(), hdr.buckets(), hdr.distinct_values());
    writeln!(
        out,
        "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]\n\
         #[Max     = {max:12.3}, Total count    = {count:12}]\n\
         #[Buckets = {buckets:12}, SubBuckets     = {values:12}]"
    )
}

/// The files that `--hgrm FILE` asks for, open from the start, so that a path
/// that cannot be written fails before anything is measured.
///
/// A plotter takes one distribution a file. So a target with one signal gets
/// FILE itself; one with several gets, for `out.hgrm`, one
/// `out.SIGNAL.hgrm` each. Groups are written together, as their total.
pub struct Files(Vec<(&'static str, File)>);

impl Files {
    /// Creates the files for `shown`, or empties them.
    ///
    /// # Errors
    /// With the path that could not be created.
    pub fn create(path: &Path, shown: &[Shown]) -> anyhow::Result<Self> {
        let alone = shown.len() == 1;
        let open = |shown: &Shown| {
            let path = if alone {
                path.to_owned()
            } else {
                with_signal(path, shown.signal)
            };
            let file = File::create(&path).with_context(|| path.display().to_string())?;
            Ok((shown.signal, file))
        };
        shown
            .iter()
            .map(open)
            .collect::<anyhow::Result<_>>()
            .map(Self)
    }

    /// Writes the total of each signal's `rows`.
    pub fn write(self, rows: &[Row]) -> io::Result<()> {
        for (signal, mut file) in self.0 {
            let rows = rows.iter().filter(|row| row.shown.signal == signal);
            write(&mut file, signal, &total(rows))?;
        }
        Ok(())
    }
}

/// `out.hgrm` as `out.SIGNAL.hgrm`.
fn with_signal(path: &Path, signal: &str) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(".");
    name.push(signal);
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::quantile::{Summary, tests::histograms};

    #[test]
    fn percentile_text_as_plotters_read_it() {
        let histogram = Histogram {
            sum_ns: 0,
            zero: 0,
            buckets: vec![(-160, 90), (-80, 10)],
            overflow: 0,
            exemplars: Vec::new(),
        };
        let mut out = Vec::new();
        write(&mut out, "sched.runqueue_latency", &histogram).unwrap();
        let text = String::from_utf8(out).unwrap();
        let expected = "\
# kldtrace sched.runqueue_latency, values in microseconds
       Value     Percentile TotalCount 1/(1-Percentile)

       0.913 0.000000000000         90           1.00
       0.913 0.100000000000         90           1.11
";
        assert_eq!(&text[..expected.len()], expected);
        let expected = "
       0.913 0.887500000000         90           8.89
     935.423 0.900000000000        100          10.00
     935.423 1.000000000000        100
#[Mean    =       94.338, StdDeviation   =      280.276]
#[Max     =      935.423, Total count    =          100]
#[Buckets =           30, SubBuckets     =        31744]
";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn nothing_is_a_distribution_too() {
        let mut out = Vec::new();
        write(&mut out, "tcp.rtt", &Histogram::default()).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("#[Max     =        0.000, Total count    =            0]"),
            "{text}"
        );
    }

    #[test]
    fn each_signal_has_its_own_file() {
        let path = |name: &str| with_signal(Path::new(name), "tcp.rtt");
        assert_eq!(path("out.hgrm"), Path::new("out.tcp.rtt.hgrm"));
        assert_eq!(path("/tmp/a.b/out"), Path::new("/tmp/a.b/out.tcp.rtt"));
    }

    proptest! {
        #[test]
        fn hdr_agrees_within_a_bucket(histogram in histograms()) {
            let (hdr, ours) = (hdr(&histogram), Summary::of(&histogram));
            prop_assert_eq!(hdr.len(), ours.count);
            for (quantile, ours) in [
                (0.5, ours.p50), (0.9, ours.p90), (0.99, ours.p99), (0.999, ours.p999),
            ] {
                let theirs = hdr.value_at_quantile(quantile) as f64 / 1e9;
                let ours = ours.min(1024.0);
                // Half a nanosecond of rounding, and their three digits.
                let allowed = 0.5e-9 + ours * 1e-3;
                prop_assert!((theirs - ours).abs() <= allowed, "{quantile}: {theirs} {ours}");
            }
        }
    }
}
