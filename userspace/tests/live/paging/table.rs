//! How long it took.

use std::{
    fmt,
    time::{Duration, Instant},
};

/// A fault that was told.
pub struct Fault {
    what: &'static str,
    pub alert: &'static str,
    pub to: &'static [&'static str],
    /// `None`: it was told before it was caused, as the machine had it already.
    paged: Option<Duration>,
    /// Since when it is no more.
    pub undone: Option<Instant>,
    /// How long after that its end was told, and how much of it was after
    /// windows were cut.
    pub resolved: Option<(Duration, Duration)>,
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
            undone: None,
            resolved: None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paged = match self.paged {
            Some(paged) => format!("{:.1}", paged.as_secs_f64()),
            None => "before".to_owned(),
        };
        let resolved = match self.resolved {
            Some((after, cut)) => {
                format!("{:.1} | {:.1}", after.as_secs_f64(), cut.as_secs_f64())
            }
            None => "|".to_owned(),
        };
        let (what, alert, to) = (self.what, self.alert, self.to.join(", "));
        write!(f, "| {what} | {alert} | {to} | {paged} | {resolved} |")
    }
}

/// The median of what was measured, in seconds.
pub fn median(faults: &[Fault]) -> f64 {
    let mut times: Vec<_> = faults.iter().filter_map(|fault| fault.paged).collect();
    times.sort();
    let middle = [times[(times.len() - 1) / 2], times[times.len() / 2]];
    (middle[0] + middle[1]).as_secs_f64() / 2.0
}
