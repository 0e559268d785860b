//! Tables of names and numbers, as `kstat_seq_show_named` of
//! module/os/linux/spl/spl-kstat.c prints them: two lines of headings, then
//! `name type data`.

use std::{collections::HashMap, fs, io, path::Path};

/// A table that is longer than this is none of ours.
const LONGEST: u64 = 1 << 20;

/// The numbers and texts of a table, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Named(HashMap<String, String>);

impl Named {
    /// Reads a table.
    ///
    /// # Errors
    /// When it is not there: its pool or dataset may have gone meanwhile.
    pub fn read(path: &Path) -> io::Result<Self> {
        use io::Read as _;
        let mut text = String::new();
        fs::File::open(path)?
            .take(LONGEST)
            .read_to_string(&mut text)?;
        Ok(Self::parse(&text))
    }

    /// Takes what has three columns; anything else is passed over.
    pub fn parse(text: &str) -> Self {
        let row = |line: &str| {
            let (name, rest) = line.split_once(char::is_whitespace)?;
            let (kind, data) = rest.trim_start().split_once(char::is_whitespace)?;
            kind.parse::<u8>().ok()?;
            Some((name.to_owned(), data.trim().to_owned()))
        };
        Self(text.lines().filter_map(row).collect())
    }

    /// A number; `None`: this release of OpenZFS does not have it.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.parse().ok()
    }

    /// A text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARCSTATS: &str = "\
9 1 0x01 147 39984 3340146423 21263470346
name                            type data
hits                            4    1234567
iohits                          4    0
c_max                           4    18446744073709551615
arc_no_grow                     4    0
memory_available_bytes          3    -17
";

    #[test]
    fn numbers_by_name() {
        let table = Named::parse(ARCSTATS);
        assert_eq!(table.number("hits"), Some(1_234_567));
        assert_eq!(table.number("c_max"), Some(u64::MAX));
        assert_eq!(table.number("memory_available_bytes"), None);
        assert_eq!(table.number("absent"), None);
        assert_eq!(table.number("name"), None);
    }

    #[test]
    fn texts_may_have_spaces() {
        let text = "36 1 0x01 7 2160 5214787391 74498848\n\
                    name                            type data\n\
                    dataset_name                    7    tank/with space\n\
                    writes                          4    3\n";
        let table = Named::parse(text);
        assert_eq!(table.text("dataset_name"), Some("tank/with space"));
        assert_eq!(table.number("writes"), Some(3));
    }

    #[test]
    fn what_is_no_table_is_empty() {
        for text in ["", "\n\n", "a", "a b", "a b c\nd e f", "\u{0}\u{0} 4 \u{0}"] {
            assert!(Named::parse(text).number("a").is_none(), "{text:?}");
        }
    }
}
