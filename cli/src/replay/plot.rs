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
/// In percent. Below this demand nearly every pod finds a place, and the curves coincide.
const FROM: u64 = 80;
/// The least distance of two lines of text.
const LINE: f64 = 14.0;
/// The most marks on an axis.
const MARKS: f64 = 8.0;
/// Distinguishable with colour blindness (Okabe and Ito's palette).
const COLOURS: [&str; 5] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00"];

/// The mean curve of each policy.
pub fn svg(all: &[Runs]) -> String {
    let curves: Vec<(&str, Vec<(u64, f64)>)> =
        all.iter().map(|runs| (runs.policy.as_str(), runs.curve())).collect();
    let reached = curves.iter().flat_map(|(_, points)| points).map(|(at, _)| *at).max().unwrap_or_default();
    let timed = all.iter().any(Runs::timed);
    let from = if reached > FROM && !timed { FROM } else { 0 };
    let to = reached.max(from + 1);
    let points = || curves.iter().flat_map(|(_, points)| points).filter(|(at, _)| *at >= from);
    let step_y = step(points().map(|(_, value)| *value).fold(1.0, f64::max));
    let most = points().map(|(_, value)| (value / step_y).ceil() * step_y).fold(step_y, f64::max);
    let x = |at: u64| LEFT + (WIDTH - LEFT - RIGHT) * (at.saturating_sub(from)) as f64 / (to - from) as f64;
    let y = |value: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / most;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    // writing to a String cannot fail
    for at in (from..=to).step_by(step((to - from) as f64) as usize) {
        let (x, bottom) = (x(at), HEIGHT - BOTTOM);
        let _ = writeln!(svg, "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#ddd\"/>");
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{at}</text>", bottom + 16.0);
    }
    for mark in 0..=(most / step_y) as u32 {
        let value = step_y * f64::from(mark);
        let (y, right) = (y(value), WIDTH - RIGHT);
        let _ = writeln!(svg, "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>");
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>", LEFT - 6.0, y + 4.0);
    }
    let (middle, low) = ((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 8.0);
    let demand = if timed { "GPU demand that has come so far" } else { "GPU demand" };
    let _ =
        writeln!(svg, "<text x=\"{middle}\" y=\"{low}\" text-anchor=\"middle\">{demand}, % of the cluster</text>");
    let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"14\">unallocated GPU, % of the cluster</text>");
    let mut labels: Vec<(f64, &str, &str)> = Vec::new();
    for ((name, points), colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        let shown = || points.iter().filter(|(at, _)| *at >= from);
        let line: Vec<String> = shown().map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value))).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            line.join(" ")
        );
        labels.extend(shown().next_back().map(|(_, last)| (y(*last), *name, *colour)));
    }
    // in the order of the lines' ends, each clear of the one above it
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut above = f64::NEG_INFINITY;
    for (end, name, colour) in labels {
        above = end.max(above + LINE);
        let (x, y) = (WIDTH - RIGHT + 6.0, above + 4.0);
        let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y:.1}\" fill=\"{colour}\">{name}</text>");
    }
    svg + "</svg>\n"
}

/// A round distance between the marks on an axis of this length.
fn step(length: f64) -> f64 {
    let round = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0];
    round.into_iter().find(|step| length / step <= MARKS).unwrap_or(500.0)
}
