//! Unallocated compute against demand, as an SVG picture. Written by hand: two axes and some lines do not need a
//! library.

use std::fmt::Write;

use super::table::Runs;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 120.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 44.0;
/// Below this demand every policy places everything, and the lines are one.
const FROM: u64 = 80;
/// Told apart by people who do not see red or green (Okabe and Ito's palette).
const COLOURS: [&str; 5] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00"];

/// The mean curve of each policy.
pub fn svg(all: &[Runs]) -> String {
    let curves: Vec<(&str, Vec<(u64, f64)>)> = all
        .iter()
        .map(|runs| (runs.policy.as_str(), runs.curve().into_iter().filter(|(at, _)| *at >= FROM).collect()))
        .collect();
    let points = || curves.iter().flat_map(|(_, points)| points);
    let to = points().map(|(at, _)| *at).max().unwrap_or(FROM + 1).max(FROM + 1);
    let most = points().map(|(_, value)| *value).fold(1.0, f64::max).ceil();
    let x = |at: u64| LEFT + (WIDTH - LEFT - RIGHT) * (at.saturating_sub(FROM)) as f64 / (to - FROM) as f64;
    let y = |value: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / most;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    // writing to a String cannot fail
    for at in (FROM..=to).step_by(10) {
        let (x, bottom) = (x(at), HEIGHT - BOTTOM);
        let _ = writeln!(svg, "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#ddd\"/>");
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{at}</text>", bottom + 16.0);
    }
    for step in 0..=5 {
        let value = most * f64::from(step) / 5.0;
        let (y, right) = (y(value), WIDTH - RIGHT);
        let _ = writeln!(svg, "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>");
        let _ =
            writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value:.1}</text>", LEFT - 6.0, y + 4.0);
    }
    let (middle, low) = ((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 8.0);
    let _ = writeln!(
        svg,
        "<text x=\"{middle}\" y=\"{low}\" text-anchor=\"middle\">GPU demand, % of the cluster</text>"
    );
    let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"14\">unallocated GPU, % of the cluster</text>");
    let mut labels: Vec<f64> = Vec::new();
    for ((name, points), colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        let line: Vec<String> =
            points.iter().map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value))).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            line.join(" ")
        );
        let Some((_, last)) = points.last() else { continue };
        let mut label = y(*last) + 4.0;
        while labels.iter().any(|other| (other - label).abs() < 13.0) {
            label -= 1.0;
        }
        labels.push(label);
        let _ =
            writeln!(svg, "<text x=\"{}\" y=\"{label:.1}\" fill=\"{colour}\">{name}</text>", WIDTH - RIGHT + 6.0);
    }
    svg + "</svg>\n"
}
