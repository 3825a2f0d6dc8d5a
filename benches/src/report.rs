//! What a bench found: rows of metrics by subject, printed as a table or as JSON lines, with plots beside it.

use std::{fmt::Write, fs, io, path::PathBuf};

use serde_json::{Map, Value, json};

/// The figures of one bench.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) bench: &'static str,
    pub(crate) subjects: Vec<Subject>,
    /// Remarks for the reader of the table: what was left out and why.
    pub(crate) notes: Vec<String>,
    /// File name and SVG text.
    pub(crate) plots: Vec<(String, String)>,
    /// What stands before the metrics of further passes of a subject, and the heading of their column.
    pub(crate) passes: &'static [(&'static str, &'static str)],
}

/// The figures of ours or of one peer. Each metric has its unit in its name.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) metrics: Vec<(String, f64)>,
}

impl Report {
    /// One JSON object a subject.
    pub(crate) fn to_json_lines(&self) -> String {
        let mut out = String::new();
        for subject in &self.subjects {
            let mut row = Map::new();
            row.insert("bench".into(), json!(self.bench));
            row.insert("subject".into(), json!(subject.name));
            row.extend(subject.metrics.iter().map(|(name, value)| (name.clone(), number(*value))));
            let _ = writeln!(out, "{}", Value::Object(row));
        }
        out
    }

    /// Metrics down, subjects across.
    pub(crate) fn to_table(&self) -> String {
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in self.subjects.iter().flat_map(|s| &s.metrics) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        let width = names.iter().map(|n| n.len()).max().unwrap_or(0).max(self.bench.len());
        let mut out = format!("{:width$}", self.bench);
        for subject in &self.subjects {
            let _ = write!(out, "  {:>14}", subject.name);
        }
        out.push('\n');
        for name in names {
            let _ = write!(out, "{name:width$}");
            for subject in &self.subjects {
                let value = subject.metrics.iter().find(|(n, _)| n == name);
                let text = value.map_or_else(|| "-".to_owned(), |(_, v)| number(*v).to_string());
                let _ = write!(out, "  {text:>14}");
            }
            out.push('\n');
        }
        for note in &self.notes {
            let _ = writeln!(out, "note: {note}");
        }
        out
    }

    /// The table of `benches/README.md`: each further pass is a column of its own.
    pub(crate) fn to_markdown(&self) -> String {
        let pass_of =
            |name: &str| self.passes.iter().map(|(prefix, _)| *prefix).find(|prefix| name.starts_with(prefix));
        let mut rows: Vec<&str> = Vec::new();
        let mut columns: Vec<(&str, Vec<(&str, f64)>)> = Vec::new();
        for subject in &self.subjects {
            let headings = [("", subject.name)].into_iter().chain(self.passes.iter().copied());
            for (prefix, heading) in headings {
                let of_pass = |name: &&(String, f64)| pass_of(&name.0).unwrap_or_default() == prefix;
                let values: Vec<(&str, f64)> = subject
                    .metrics
                    .iter()
                    .filter(of_pass)
                    .map(|(name, value)| (&name[prefix.len()..], *value))
                    .collect();
                for (name, _) in &values {
                    if !rows.contains(name) {
                        rows.push(name);
                    }
                }
                if !values.is_empty() {
                    columns.push((heading, values));
                }
            }
        }
        let headings: String = columns.iter().map(|(heading, _)| format!(" {heading} |")).collect();
        let mut out = format!("| metric |{headings}\n| --- |{}\n", " ---: |".repeat(columns.len()));
        for row in rows {
            let _ = write!(out, "| `{row}` |");
            for (_, values) in &columns {
                let value = values.iter().find(|(name, _)| *name == row);
                let text = value.map_or_else(|| "–".to_owned(), |(_, value)| number(*value).to_string());
                let _ = write!(out, " {text} |");
            }
            out.push('\n');
        }
        if !self.notes.is_empty() {
            let _ = writeln!(out, "\n{}.", self.notes.join("; "));
        }
        out
    }

    /// Writes the plots into `benches/plots/` and returns where they are.
    pub(crate) fn write_plots(&self) -> io::Result<Vec<PathBuf>> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("plots");
        if !self.plots.is_empty() {
            fs::create_dir_all(&folder)?;
        }
        let write = |(name, svg): &(String, String)| {
            let path = folder.join(name);
            fs::write(&path, svg).map(|()| path)
        };
        self.plots.iter().map(write).collect()
    }
}

/// Whole where it is whole; else one decimal, two below ten.
fn number(value: f64) -> Value {
    let scale = if value.abs() < 10.0 { 100.0 } else { 10.0 };
    if value.fract() == 0.0 { json!(value as i64) } else { json!((value * scale).round() / scale) }
}

/// The value below which the part `q` (0 to 1) of the samples lies; NaN of nothing.
pub(crate) fn quantile(samples: &[f64], q: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get((q * last as f64).round() as usize).copied().unwrap_or(f64::NAN)
}

/// A horizontal stacked bar per row: how long each part took, in milliseconds.
pub(crate) fn stacked_bars(title: &str, rows: &[(&str, Vec<(&str, f64)>)]) -> String {
    const COLORS: [&str; 8] = ["#577590", "#4d908e", "#90be6d", "#f9c74f", "#f8961e", "#f3722c", "#9d4edd", "#adb5bd"];
    const LEFT: f64 = 130.0;
    const WIDTH: f64 = 620.0;
    let longest = rows.iter().map(|(_, parts)| parts.iter().map(|p| p.1).sum()).fold(0.0_f64, f64::max).max(1e-9);
    let legend: Vec<&str> =
        rows.iter().flat_map(|(_, parts)| parts.iter().map(|p| p.0)).fold(Vec::new(), |mut l, n| {
            if !l.contains(&n) {
                l.push(n);
            }
            l
        });
    let bars = 50.0 + 40.0 * rows.len() as f64;
    let height = bars + 24.0 * (legend.len() as f64 / 4.0).ceil() + 10.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 800 {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"800\" height=\"{height}\" fill=\"#ffffff\"/>\n<text x=\"10\" y=\"24\" font-size=\"15\">{title}</text>\n"
    );
    for (i, (name, parts)) in rows.iter().enumerate() {
        let y = 44.0 + 40.0 * i as f64;
        let mut x = LEFT;
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>", LEFT - 8.0, y + 17.0);
        for (part, ms) in parts {
            let w = ms / longest * (WIDTH - 60.0);
            let color = COLORS[legend.iter().position(|l| l == part).unwrap_or(0) % COLORS.len()];
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{y}\" width=\"{w:.1}\" height=\"24\" fill=\"{color}\"><title>{part} {ms:.2} ms</title></rect>"
            );
            x += w;
        }
        let total: f64 = parts.iter().map(|p| p.1).sum();
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{}\">{total:.1} ms</text>", x + 6.0, y + 17.0);
    }
    for (i, name) in legend.iter().enumerate() {
        let (x, y) = (LEFT + 165.0 * (i % 4) as f64, bars + 24.0 * (i / 4) as f64);
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"12\" height=\"12\" fill=\"{}\"/><text x=\"{}\" y=\"{}\">{name}</text>",
            COLORS[i % COLORS.len()],
            x + 18.0,
            y + 11.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_small_samples() {
        let samples = [5.0, 1.0, 3.0, 2.0, 4.0];
        assert_eq!((quantile(&samples, 0.5), quantile(&samples, 0.99), quantile(&samples, 0.0)), (3.0, 5.0, 1.0));
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn each_subject_is_one_json_line() {
        let report = Report {
            bench: "b",
            subjects: vec![Subject {
                name: "dormouse",
                metrics: vec![("p50_us".into(), 11.25), ("n".into(), 3.0), ("r".into(), 1.234)],
            }],
            notes: Vec::new(),
            plots: Vec::new(),
            passes: &[],
        };
        assert_eq!(
            report.to_json_lines(),
            "{\"bench\":\"b\",\"n\":3,\"p50_us\":11.3,\"r\":1.23,\"subject\":\"dormouse\"}\n"
        );
    }

    #[test]
    fn a_further_pass_is_a_column_of_its_own() {
        let subject = |name, metrics: &[(&str, f64)]| Subject {
            name,
            metrics: metrics.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
        };
        let report = Report {
            bench: "b",
            subjects: vec![
                subject("dormouse", &[("a", 1.0), ("full_a", 2.0)]),
                subject("relay", &[("a", 3.0), ("b", 4.5)]),
            ],
            notes: Vec::new(),
            plots: Vec::new(),
            passes: &[("full_", "with limit")],
        };
        assert_eq!(
            report.to_markdown(),
            "| metric | dormouse | with limit | relay |\n| --- | ---: | ---: | ---: |\n\
             | `a` | 1 | 2 | 3 |\n| `b` | – | – | 4.5 |\n"
        );
    }
}
