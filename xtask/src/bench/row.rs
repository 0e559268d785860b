//! The table: rows, goals, and how they are printed.

use std::fmt::Write;

use serde_json::{Value, json};

use super::machine::Machine;

/// What a row is held against. Shown, never asserted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// The value itself.
    AtMost(f64),
    /// The value over the other side's.
    RatioAtMost(f64),
    /// The value over the other side's.
    RatioAtLeast(f64),
    /// The value minus the other side's.
    MoreByAtMost(f64),
}

/// One comparison, or one number: a value for each round.
#[derive(Debug)]
pub struct Row {
    what: String,
    side: String,
    unit: &'static str,
    values: Vec<f64>,
    against: Option<(String, Vec<f64>)>,
    goal: Option<Goal>,
}

impl Row {
    /// A number by itself.
    pub fn new(what: &str, side: &str, unit: &'static str, values: Vec<f64>) -> Self {
        let (what, side) = (what.to_owned(), side.to_owned());
        Self {
            what,
            side,
            unit,
            values,
            against: None,
            goal: None,
        }
    }

    /// The same, next to another side's.
    #[must_use]
    pub fn against(mut self, side: &str, values: Vec<f64>) -> Self {
        self.against = Some((side.to_owned(), values));
        self
    }

    /// With what should be reached.
    #[must_use]
    pub fn goal(mut self, goal: Goal) -> Self {
        self.goal = Some(goal);
        self
    }

    fn median(&self) -> f64 {
        quantile(&self.values, 0.5)
    }

    fn other(&self) -> Option<f64> {
        self.against
            .as_ref()
            .map(|(_, values)| quantile(values, 0.5))
    }

    fn ratio(&self) -> Option<f64> {
        self.other().map(|other| self.median() / other)
    }

    /// Whether the goal is reached; `None` without a goal.
    fn reached(&self) -> Option<bool> {
        Some(match self.goal? {
            Goal::AtMost(limit) => self.median() <= limit,
            Goal::RatioAtMost(limit) => self.ratio()? <= limit,
            Goal::RatioAtLeast(limit) => self.ratio()? >= limit,
            Goal::MoreByAtMost(limit) => self.median() - self.other()? <= limit,
        })
    }

    fn goal_text(&self) -> String {
        let Some(goal) = self.goal else {
            return String::new();
        };
        let goal = match goal {
            Goal::AtMost(limit) => format!("≤ {limit} {}", self.unit),
            Goal::RatioAtMost(limit) => format!("ratio ≤ {limit}"),
            Goal::RatioAtLeast(limit) => format!("ratio ≥ {limit}"),
            Goal::MoreByAtMost(limit) => format!("≤ + {limit} {}", self.unit),
        };
        let reached = if self.reached() == Some(true) {
            "reached"
        } else {
            "missed"
        };
        format!("{goal}: {reached}")
    }

    fn cells(&self) -> [String; 7] {
        let range = |values: &[f64]| {
            let (least, most) = (quantile(values, 0.0), quantile(values, 1.0));
            format!(
                "{} ({}–{})",
                show(quantile(values, 0.5)),
                show(least),
                show(most)
            )
        };
        let (peer, peer_values) = match &self.against {
            Some((peer, values)) => (peer.clone(), range(values)),
            None => Default::default(),
        };
        [
            self.what.clone(),
            self.side.clone(),
            format!("{} {}", range(&self.values), self.unit),
            peer,
            peer_values,
            self.ratio()
                .map(|ratio| format!("{ratio:.3}"))
                .unwrap_or_default(),
            self.goal_text(),
        ]
    }

    fn json(&self) -> Value {
        let side = |name: &str, values: &[f64]| json!({"side": name, "median": quantile(values, 0.5), "rounds": values});
        json!({
            "what": self.what,
            "unit": self.unit,
            "measured": side(&self.side, &self.values),
            "against": self.against.as_ref().map(|(name, values)| side(name, values)),
            "ratio": self.ratio(),
            "goal": self.goal.map(|_| self.goal_text()),
            "reached": self.reached(),
        })
    }
}

const HEAD: [&str; 7] = [
    "what",
    "side",
    "median (min–max)",
    "against",
    "median (min–max)",
    "ratio",
    "goal",
];

/// For machines.
pub fn json(machine: &Machine, rows: &[Row]) -> Value {
    let machine: serde_json::Map<_, _> = machine
        .iter()
        .map(|(key, value)| ((*key).to_owned(), json!(value)))
        .collect();
    json!({"machine": machine, "rows": rows.iter().map(Row::json).collect::<Vec<_>>()})
}

/// For people at a terminal.
pub fn text(machine: &Machine, rows: &[Row]) -> String {
    let mut lines = vec![HEAD.map(str::to_owned)];
    lines.extend(rows.iter().map(Row::cells));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: Vec<_> = (0..HEAD.len())
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let mut out = String::new();
    for (key, value) in machine {
        _ = writeln!(out, "{key:<13} {value}");
    }
    out.push('\n');
    for line in lines {
        let cells = line.iter().zip(&widths);
        let line: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        _ = writeln!(out, "{}", line.join("  ").trim_end());
    }
    out
}

/// For docs/.
pub fn markdown(machine: &Machine, rows: &[Row]) -> String {
    let mut out = String::new();
    for (key, value) in machine {
        _ = writeln!(out, "- {key}: {value}");
    }
    _ = writeln!(
        out,
        "\n| {} |\n|{}",
        HEAD.join(" | "),
        "---|".repeat(HEAD.len())
    );
    for row in rows {
        // Signal names may have a star, which Markdown would take.
        let cells = row.cells().map(|cell| cell.replace('*', "\\*"));
        _ = writeln!(out, "| {} |", cells.join(" | "));
    }
    out
}

/// The value at that rank, 0 for the least and 1 for the most, between two
/// values in proportion; not a number where there are no values.
pub fn quantile(values: &[f64], rank: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let place = rank * last as f64;
    #[expect(clippy::cast_sign_loss, reason = "a rank is not negative")]
    let below = place.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * place.fract()
}

/// Three digits that say something, all digits of what is large.
fn show(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(goal: Goal) -> Row {
        Row::new("switch", "kldtrace sched.*", "ns", vec![90.0, 100.0, 400.0])
            .against("runqlat", vec![1000.0, 900.0, 1100.0])
            .goal(goal)
    }

    #[test]
    fn medians_and_goals() {
        assert_eq!(row(Goal::RatioAtMost(0.12)).reached(), Some(true));
        assert_eq!(row(Goal::RatioAtMost(0.09)).reached(), Some(false));
        assert_eq!(row(Goal::RatioAtLeast(0.95)).reached(), Some(false));
        assert_eq!(row(Goal::AtMost(99.0)).reached(), Some(false));
        assert_eq!(row(Goal::MoreByAtMost(0.0)).reached(), Some(true));
        assert_eq!(Row::new("a", "b", "s", vec![1.0]).reached(), None);
    }

    #[test]
    fn ranks() {
        assert!((quantile(&[3.0, 1.0, 2.0], 0.5) - 2.0).abs() < 1e-9);
        assert!((quantile(&[4.0, 2.0], 0.5) - 3.0).abs() < 1e-9);
        let hundred: Vec<_> = (1..=101).map(f64::from).collect();
        assert!((quantile(&hundred, 0.99) - 100.0).abs() < 1e-9);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn a_table_for_people_and_one_for_the_book() {
        let machine = vec![("kernel", "6.18".to_owned())];
        let rows = [row(Goal::RatioAtMost(0.12))];
        let text = text(&machine, &rows);
        assert!(text.contains("100 (90.0–400) ns"), "{text}");
        assert!(text.contains("0.100  ratio ≤ 0.12: reached"), "{text}");
        let markdown = markdown(&machine, &rows);
        assert!(
            markdown.contains("| switch | kldtrace sched.\\* | 100"),
            "{markdown}"
        );
    }

    #[test]
    fn json_for_machines() {
        let machine = vec![("kernel", "6.18".to_owned())];
        let json = json(&machine, &[row(Goal::RatioAtMost(0.12))]);
        assert_eq!(json["machine"]["kernel"], "6.18");
        assert_eq!(json["rows"][0]["measured"]["median"], 100.0);
        assert_eq!(json["rows"][0]["reached"], true);
    }
}
