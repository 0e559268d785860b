//! Names given by patterns.

/// Whether `name` matches `pattern`, in which each `*` stands for any text,
/// also for none. Everything else is literal.
///
/// Takes at most `pattern.len() * name.len()` steps, so a hostile pattern
/// cannot hang the program.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut from) = (0, 0);
    // The last star seen, and how much of the name it has swallowed.
    let mut star: Option<(usize, usize)> = None;
    while from < name.len() {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at, from));
            at += 1;
        } else if pattern.get(at) == Some(&name[from]) {
            at += 1;
            from += 1;
        } else if let Some((position, swallowed)) = star {
            star = Some((position, swallowed + 1));
            at = position + 1;
            from = swallowed + 1;
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text() {
        for (pattern, name) in [
            ("*", ""),
            ("*", "x"),
            ("sched.*", "sched.slices"),
            ("*.service", "ssh.service"),
            ("a*b*c", "a--b-b--c"),
            ("a**", "a"),
            ("", ""),
            ("é*", "été"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("", "x"),
            ("sched.*", "sched"),
            ("*.service", "ssh.socket"),
            ("a*b", "abc"),
            ("?", "x"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_hostile_pattern_ends() {
        let pattern = "*a".repeat(2000) + "b";
        assert!(!matches(&pattern, &"a".repeat(4000)));
    }
}
