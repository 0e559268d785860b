//! How long it took.

use std::{fmt, time::Duration};

/// A fault that was told.
pub struct Fault {
    what: &'static str,
    alert: &'static str,
    to: &'static [&'static str],
    /// `None`: it was told before it was caused, as the machine had it already.
    paged: Option<Duration>,
}

impl Fault {
    pub fn new(
        what: &'static str,
        alert: &'static str,
        to: &'static [&'static str],
        paged: Option<Duration>,
    ) -> Self {
        Self {
            what,
            alert,
            to,
            paged,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paged = match self.paged {
            Some(paged) => format!("{:.1}", paged.as_secs_f64()),
            None => "before".to_owned(),
        };
        let to = self.to.join(", ");
        write!(f, "| {} | {} | {to} | {paged} |", self.what, self.alert)
    }
}

/// The median of what was measured, in seconds.
pub fn median(faults: &[Fault]) -> f64 {
    let mut times: Vec<_> = faults.iter().filter_map(|fault| fault.paged).collect();
    times.sort();
    let middle = [times[(times.len() - 1) / 2], times[times.len() / 2]];
    (middle[0] + middle[1]).as_secs_f64() / 2.0
}
