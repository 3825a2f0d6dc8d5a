//! Small panels of horizontal bars, one panel a metric, each with a scale of its own.

use std::fmt::Write;

/// One metric over all subjects.
#[derive(Debug)]
pub(crate) struct Panel {
    pub(crate) title: &'static str,
    pub(crate) bars: Vec<(&'static str, f64)>,
}

const WIDTH: f64 = 400.0;
const BAR: f64 = 22.0;
const LEFT: f64 = 78.0;

/// Panels in two columns. The first subject is ours and stands out.
pub(crate) fn panels(title: &str, panels: &[Panel]) -> String {
    let most = panels.iter().map(|panel| panel.bars.len()).max().unwrap_or(0);
    let height_of_one = 42.0 + BAR * most as f64;
    let height = 40.0 + height_of_one * panels.len().div_ceil(2) as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n<text x=\"10\" y=\"24\" font-size=\"15\">{title}</text>\n",
        2.0 * WIDTH
    );
    for (i, panel) in panels.iter().enumerate() {
        let (x, top) = (WIDTH * (i % 2) as f64, 40.0 + height_of_one * (i / 2) as f64);
        let _ =
            writeln!(svg, "<text x=\"{}\" y=\"{}\" font-weight=\"bold\">{}</text>", x + 10.0, top + 16.0, panel.title);
        let longest = panel.bars.iter().map(|bar| bar.1).fold(1e-9, f64::max);
        for (row, (name, value)) in panel.bars.iter().enumerate() {
            let y = top + 24.0 + BAR * row as f64;
            let width = value.max(0.0) / longest * (WIDTH - LEFT - 70.0);
            let color = if row == 0 { "#f3722c" } else { "#577590" };
            let text = if *value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") };
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>\
                 <rect x=\"{}\" y=\"{y}\" width=\"{width:.1}\" height=\"16\" fill=\"{color}\"/>\
                 <text x=\"{:.1}\" y=\"{}\">{text}</text>",
                x + LEFT - 6.0,
                y + 13.0,
                x + LEFT,
                x + LEFT + width + 5.0,
                y + 13.0
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_panel_has_its_own_scale() {
        let panel = |title, value| Panel { title, bars: vec![("a", value), ("b", value / 2.0)] };
        let svg = panels("t", &[panel("small", 1.0), panel("large", 5000.0)]);
        assert_eq!(svg.matches("width=\"252.0\"").count(), 2);
        assert_eq!(svg.matches("width=\"126.0\"").count(), 2);
        assert!(svg.contains(">5000<") && svg.contains(">0.5<"));
    }
}
