//! Tables for people: columns as wide as they must be, and on a terminal no wider than it.

use console::{Term, measure_text_width, truncate_str};
use kerf::terminal;

use crate::print::say;

/// Between two columns, as kubectl has it.
const GAP: usize = 3;
/// A column that may be cut is not made narrower than this.
const NARROWEST: usize = 8;
/// What the last column is wrapped into at least.
const LAST: usize = 24;

pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

#[derive(Clone, Copy)]
pub struct Column {
    title: &'static str,
    right: bool,
    /// Whether its texts may be cut where the terminal is too narrow.
    cut: bool,
}

impl Column {
    pub const fn new(title: &'static str) -> Self {
        Self { title, right: false, cut: false }
    }

    /// Of names, which may be long.
    pub const fn name(title: &'static str) -> Self {
        Self { title, right: false, cut: true }
    }

    /// Of numbers.
    pub const fn number(title: &'static str) -> Self {
        Self { title, right: true, cut: false }
    }
}

/// The columns of the terminal that standard output is; `None` where it is none.
pub fn terminal_width() -> Option<usize> {
    let term = Term::stdout();
    let size = term.is_term().then(|| term.size_checked()).flatten();
    size.map(|(_, columns)| usize::from(columns)).filter(|columns| *columns > 0)
}

impl Table {
    /// The last column is wrapped, the others stand in one line.
    pub fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self { columns: columns.into_iter().collect(), rows: Vec::new() }
    }

    /// One text for each column.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| terminal::line(&cell).into_owned()).collect());
    }

    /// Adds the table to an output, within this width if there is one.
    pub fn render(&self, width: Option<usize>, out: &mut String) {
        let widths = self.widths(width);
        let titles = self.columns.iter().map(|column| column.title.to_owned()).collect();
        for row in std::iter::once(&titles).chain(&self.rows) {
            self.line(row, &widths, out);
        }
    }

    fn widths(&self, width: Option<usize>) -> Vec<usize> {
        let of = |at: usize, column: &Column| {
            let cells = self.rows.iter().filter_map(|row| row.get(at)).map(|cell| measure_text_width(cell));
            cells.max().unwrap_or_default().max(column.title.len())
        };
        let mut widths: Vec<usize> = self.columns.iter().enumerate().map(|(at, column)| of(at, column)).collect();
        let Some(width) = width else { return widths };
        let Some(last) = widths.len().checked_sub(1) else { return widths };
        let before = |widths: &[usize]| widths.iter().take(last).map(|own| own + GAP).sum::<usize>();
        let wanted = widths.get(last).copied().unwrap_or_default().min(LAST);
        while before(&widths) + wanted > width {
            let may = |(at, _): &(usize, &usize)| *at < last && self.columns.get(*at).is_some_and(|own| own.cut);
            let widest = widths.iter().enumerate().filter(may).max_by_key(|(_, own)| **own).map(|(at, _)| at);
            match widest.and_then(|at| widths.get_mut(at)) {
                Some(own) if *own > NARROWEST => *own -= 1,
                _ => break,
            }
        }
        let left = width.saturating_sub(before(&widths)).max(wanted);
        if let Some(own) = widths.get_mut(last) {
            *own = (*own).min(left);
        }
        widths
    }

    fn line(&self, row: &[String], widths: &[usize], out: &mut String) {
        let last = self.columns.len().saturating_sub(1);
        let mut indent = 0;
        for ((cell, column), width) in row.iter().zip(&self.columns).zip(widths).take(last) {
            let cell = truncate_str(cell, *width, "…");
            let pad = " ".repeat(width.saturating_sub(measure_text_width(&cell)));
            let gap = " ".repeat(GAP);
            match column.right {
                true => out.extend([&pad, &*cell, &gap]),
                false => out.extend([&*cell, &pad, &gap]),
            }
            indent += width + GAP;
        }
        let (cell, width) =
            (row.get(last).map_or("", String::as_str), widths.get(last).copied().unwrap_or_default());
        let right = self.columns.get(last).is_some_and(|column| column.right);
        for (number, part) in wrapped(cell, width).iter().enumerate() {
            if number > 0 {
                out.push('\n');
                out.push_str(&" ".repeat(indent));
            }
            if right {
                out.push_str(&" ".repeat(width.saturating_sub(measure_text_width(part))));
            }
            out.push_str(part);
        }
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
    }
}

/// Adds a text to an output in lines no wider than the terminal, the later ones further in.
pub fn paragraph(indent: &str, text: &str, out: &mut String) {
    let Some(width) = terminal_width() else { return say(out, &format!("{indent}{text}")) };
    let room = width.saturating_sub(indent.len() + 2).max(20);
    for (number, line) in wrapped(text, room).iter().enumerate() {
        say(out, &format!("{indent}{}{line}", if number == 0 { "" } else { "  " }));
    }
}

/// A text in lines of at most this width, broken between words; a longer word stands on lines of its own.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split(' ') {
        let room = measure_text_width(&line) + usize::from(!line.is_empty()) + measure_text_width(word) <= width;
        if room {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
            continue;
        }
        if !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        }
        for c in word.chars() {
            if !line.is_empty() && measure_text_width(&line) >= width.max(1) {
                lines.push(std::mem::take(&mut line));
            }
            line.push(c);
        }
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(width: Option<usize>) -> String {
        let mut table = Table::new([Column::name("NAME"), Column::number("GPUS"), Column::new("WHY")]);
        table.row(["a-very-long-name-of-a-node".into(), "2".into(), "one two three four five six seven".into()]);
        table.row(["b".into(), "10".into(), String::new()]);
        let mut out = String::new();
        table.render(width, &mut out);
        out
    }

    #[test]
    fn without_a_terminal_nothing_is_cut() {
        let lines: Vec<String> = rendered(None).lines().map(str::to_owned).collect();
        assert_eq!(lines[0], "NAME                         GPUS   WHY");
        assert_eq!(lines[1], "a-very-long-name-of-a-node      2   one two three four five six seven");
        assert_eq!(lines[2], "b                              10");
    }

    #[test]
    fn on_a_terminal_names_are_cut_and_the_last_column_is_wrapped() {
        for width in 44..80 {
            let text = rendered(Some(width));
            assert!(text.lines().all(|line| measure_text_width(line) <= width), "{width}: {text}");
            let words: Vec<&str> = text.split_whitespace().collect();
            assert!(["one", "four", "seven", "10"].iter().all(|word| words.contains(word)), "{width}: {text}");
        }
        assert!(rendered(Some(44)).contains("a-very-lo"), "{}", rendered(Some(44)));
    }

    #[test]
    fn long_words_are_broken() {
        assert_eq!(wrapped("ab abcdefgh c", 3), ["ab", "abc", "def", "gh", "c"]);
        assert_eq!(wrapped("ab c", 4), ["ab c"]);
        assert_eq!(wrapped("", 5), [""]);
    }
}
