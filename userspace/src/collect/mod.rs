//! State that is read, not traced.

/// Stands in until `collect/listen/` is installed: reads nothing.
pub mod listen {
    use std::{collections::BTreeMap, sync::Arc};

    /// Labels of listening sockets.
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub struct Listening {
        /// Unit.
        pub unit: Arc<str>,
        /// Interface.
        pub interface: Arc<str>,
        /// `ipv4` or `ipv6`.
        pub family: &'static str,
    }

    /// Listeners.
    #[derive(Debug, Default)]
    pub struct Listeners {
        drops: BTreeMap<Listening, u64>,
    }

    #[allow(missing_docs, clippy::unnecessary_wraps, clippy::unused_self)]
    impl Listeners {
        pub fn new() -> Self {
            Self::default()
        }
        pub fn read(&mut self, _: &dyn Fn(u64) -> Arc<str>) -> anyhow::Result<()> {
            Ok(())
        }
        pub fn overflows(&self) -> u64 {
            0
        }
        pub fn drops(&self) -> &BTreeMap<Listening, u64> {
            &self.drops
        }
        pub fn failures(&self) -> u64 {
            0
        }
    }
}
