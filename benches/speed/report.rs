//! The table, as text and as JSON.

use serde_json::{Value, json};
use std::path::Path;

/// What a row is held against.
#[derive(Clone, Copy)]
pub enum Target {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

/// All rows so far.
pub struct Report {
    rows: Vec<Value>,
}

impl Report {
    /// An empty one; prints the head.
    pub fn new() -> Report {
        println!(
            "{:<44} {:>12} {:>12} {:>8} {:>9}  others",
            "", "ours", "against", "ratio", "target"
        );
        Report { rows: Vec::new() }
    }

    /// Adds a row: our figure, what it is held against, all others, and the ratio of each turn where there were several.
    pub fn row(
        &mut self,
        name: &str,
        (ours, against, unit): (f64, f64, &str),
        target: Target,
        others: &[(&str, f64)],
        turns: &[f64],
    ) {
        let ratio = ours / against;
        let (text, met) = match target {
            Target::AtMost(most) => (format!("<= {most:.2}"), ratio <= most),
            Target::AtLeast(least) => (format!(">= {least:.2}"), ratio >= least),
        };
        let others_text: Vec<String> = others
            .iter()
            .map(|(name, value)| format!("{name} {value:.0} ({:.2})", value / against))
            .collect();
        let spread = match (
            turns.iter().copied().reduce(f64::min),
            turns.iter().copied().reduce(f64::max),
        ) {
            (Some(least), Some(most)) if turns.len() > 1 => format!("  [{least:.2}..{most:.2}]"),
            _ => String::new(),
        };
        println!(
            "{name:<44} {:>12} {:>12} {ratio:>8.2} {text:>9}{}  {}{spread}",
            format!("{ours:.0} {unit}"),
            format!("{against:.0} {unit}"),
            if met { ' ' } else { '!' },
            others_text.join(", "),
        );
        self.rows.push(json!({
            "name": name, "unit": unit, "ours": ours, "against": against, "ratio": ratio, "target": text, "met": met,
            "others": others.iter().map(|(name, value)| json!({"name": name, "value": value})).collect::<Vec<_>>(),
            "turns": turns,
        }));
    }

    /// Shows the mean of each phase between two looks at the metrics, in microseconds.
    pub fn phases(
        &mut self,
        name: &str,
        before: &[(String, f64, f64)],
        after: &[(String, f64, f64)],
    ) {
        let mean = |((phase, seconds, count), (_, later, more)): (
            &(String, f64, f64),
            &(String, f64, f64),
        )| {
            (
                phase.clone(),
                (later - seconds) * 1e6 / (more - count).max(1.0),
            )
        };
        let means: Vec<(String, f64)> = before.iter().zip(after).map(mean).collect();
        let texts: Vec<String> = means
            .iter()
            .map(|(phase, us)| format!("{phase} {us:.0}"))
            .collect();
        println!("  phases of {name}, us: {}", texts.join(", "));
        let means: serde_json::Map<String, Value> = means
            .into_iter()
            .map(|(phase, us)| (phase, us.into()))
            .collect();
        self.rows.push(json!({"name": name, "phases_us": means}));
    }

    /// Writes it as JSON.
    pub fn write(&self, path: &Path) {
        let text = serde_json::to_string_pretty(&json!({"rows": self.rows})).expect("JSON");
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).expect("the directory");
        }
        std::fs::write(path, text).expect("write the report");
    }
}
