//! The alerts and dashboards that kldtrace carries: what is written can be read
//! by the programs that it is for, every alert fires and is silent when it
//! should, and nothing of its parts is missing.
//!
//! They need no root; `promtool` and `amtool` where they say so.

mod alertmanager;
mod catalogue;
mod complete;
mod dashboards;
mod files;
mod grafana;
mod hostile;
mod promtool;
mod query;
mod runbooks;
