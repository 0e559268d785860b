//! The Prometheus formats, seen from outside: golden bytes, properties over
//! arbitrary input, and a real Prometheus that scrapes them.

// The numbers must come back as they went.
#![allow(clippy::float_cmp)]

mod body;
mod decode;
mod fixture;
mod golden;
mod properties;
mod scrape;
mod strategy;
