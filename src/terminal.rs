//! Names and messages of others on a terminal, which obeys control characters.

use std::borrow::Cow;
use std::io::Write;

/// One line: every control character, also an end of line, as `\u001b`, as in JSON.
pub fn line(text: &str) -> Cow<'_, str> {
    without(text, char::is_control)
}

/// As [`line()`], but ends of lines stay. JSON stays the same JSON.
pub fn lines(text: &str) -> Cow<'_, str> {
    without(text, |c| c.is_control() && c != '\n')
}

/// Writes a line to standard error. Where that cannot be written, there is nobody to tell, and the work goes on.
pub fn tell(text: &str) {
    drop(writeln!(std::io::stderr(), "{}", line(text)));
}

fn without(text: &str, obeyed: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&obeyed) {
        return text.into();
    }
    let shown = |c: char| if obeyed(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown() {
        assert_eq!(line("a\u{1b}[2J\r\n\u{7f}\u{9b}é"), r"a\u001b[2J\u000d\u000a\u007f\u009bé");
        assert_eq!(lines("a\tb\nc"), "a\\u0009b\nc");
        assert!(matches!(lines("GPU-0\n"), Cow::Borrowed(_)));
    }
}
