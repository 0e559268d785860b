//! The parts of which a source of the systemd journal's lines is made: the
//! reading of its export format, filters, limits, redaction and the place kept.
//! What runs journalctl and feeds the spool is issue 4, part 3.

pub mod counters;
pub mod cursor;
pub mod export;
pub mod fields;
pub mod filter;
pub mod line;
pub mod rate;
pub mod redact;
pub mod unit;
