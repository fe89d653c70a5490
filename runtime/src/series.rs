//! Hundreds of thousands of gauges, as a large cluster has them: kept as numbers and written as text while they are
//! sent. As objects of a metrics library they would take ten times the memory of everything else.

use std::fmt::Write as _;

/// Lines in one piece of text.
const PIECE: usize = 4_096;

/// Gauges that share their label sets.
#[derive(Debug)]
pub struct GaugeTable<const N: usize> {
    /// Name and help of each gauge.
    gauges: [(&'static str, &'static str); N],
    /// For each label set, in Prometheus' notation, the value of every gauge.
    rows: Vec<(String, [f64; N])>,
}

impl<const N: usize> GaugeTable<N> {
    /// An empty table of gauges with these names and help texts.
    pub fn new(gauges: [(&'static str, &'static str); N]) -> Self {
        Self { gauges, rows: Vec::new() }
    }

    /// Adds one label set with a value for each gauge.
    pub fn row<'a>(&mut self, labels: impl IntoIterator<Item = (&'a str, &'a str)>, values: [f64; N]) {
        let mut text = String::new();
        for (name, value) in labels {
            let _ = write!(text, "{}{name}=\"", if text.is_empty() { "{" } else { "," });
            for letter in value.chars() {
                match letter {
                    '\\' => text.push_str("\\\\"),
                    '"' => text.push_str("\\\""),
                    '\n' => text.push_str("\\n"),
                    letter => text.push(letter),
                }
            }
            text.push('"');
        }
        if !text.is_empty() {
            text.push('}');
        }
        self.rows.push((text, values));
    }

    /// The text format, in pieces (<https://prometheus.io/docs/instrumenting/exposition_formats/>). A gauge without a
    /// label set is left out.
    pub fn into_text(self) -> impl Iterator<Item = String> + Send {
        let pieces = self.rows.len().div_ceil(PIECE);
        (0..N * pieces).map(move |at| {
            let (gauge, piece) = (at / pieces, at % pieces);
            let mut text = String::new();
            let Some((name, help)) = self.gauges.get(gauge) else { return text };
            if piece == 0 {
                let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
            }
            for (labels, values) in self.rows.iter().skip(piece * PIECE).take(PIECE) {
                let _ = writeln!(text, "{name}{labels} {}", values.get(gauge).copied().unwrap_or(f64::NAN));
            }
            text
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gauge_has_its_lines_together() {
        let mut table = GaugeTable::new([("a_bytes", "How much."), ("b_ratio", "Which part.")]);
        table.row([("node", "n\"1\""), ("model", "x\\y\nz")], [16_106_127_360.0, 0.5]);
        table.row([("node", "n2"), ("model", "")], [0.0, 1.0]);
        let text: String = table.into_text().collect();
        let wanted = concat!(
            "# HELP a_bytes How much.\n# TYPE a_bytes gauge\n",
            "a_bytes{node=\"n\\\"1\\\"\",model=\"x\\\\y\\nz\"} 16106127360\na_bytes{node=\"n2\",model=\"\"} 0\n",
            "# HELP b_ratio Which part.\n# TYPE b_ratio gauge\n",
            "b_ratio{node=\"n\\\"1\\\"\",model=\"x\\\\y\\nz\"} 0.5\nb_ratio{node=\"n2\",model=\"\"} 1\n",
        );
        assert_eq!(text, wanted);
    }

    #[test]
    fn many_rows_come_in_pieces_and_none_is_lost() {
        let mut table = GaugeTable::new([("a", "A."), ("b", "B.")]);
        let rows = 2 * PIECE + 7;
        (0..rows).for_each(|row| table.row([("row", row.to_string().as_str())], [row as f64, -1.0]));
        let pieces: Vec<String> = table.into_text().collect();
        assert_eq!(pieces.len(), 6);
        let text = pieces.concat();
        assert_eq!(text.lines().filter(|line| line.starts_with("a{")).count(), rows);
        assert_eq!(text.lines().filter(|line| line.ends_with("} -1")).count(), rows);
        assert!(GaugeTable::new([("a", "A.")]).into_text().next().is_none());
        let mut single = GaugeTable::new([("a", "A.")]);
        single.row([], [1.0]);
        assert_eq!(single.into_text().collect::<String>(), "# HELP a A.\n# TYPE a gauge\na 1\n");
    }
}
