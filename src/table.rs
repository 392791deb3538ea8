//! Tables that fit a terminal: columns as wide as what is in them, those of least use left out where there is no room.

use ringway_config::plain::line;
use std::fmt::Write as _;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Least that is left of a text that is cut.
const CUT_MIN: usize = 8;

/// A column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    pub(crate) head: &'static str,
    /// Numbers stand on the right.
    pub(crate) is_number: bool,
    /// The greater, the sooner it is left out; 0 stays.
    pub(crate) rank: u8,
}

/// A table of these rows, each with a cell for each column, no wider than `width`. What is in the cells was written by others: it is made
/// fit for a terminal.
pub(crate) fn table(columns: &[Column], rows: &[Vec<String>], width: usize) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| line(cell)).collect()).collect();
    let wide = |at: usize| {
        let cells = rows.iter().map(|row| row.get(at).map_or(0, |cell| cell.width()));
        cells.max().unwrap_or(0).max(columns[at].head.width())
    };
    let mut widths: Vec<usize> = (0..columns.len()).map(wide).collect();
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let needed = |shown: &[usize], widths: &[usize]| {
        shown.iter().map(|&at| widths[at]).sum::<usize>() + 2 * shown.len().saturating_sub(1)
    };
    while needed(&shown, &widths) > width {
        let widest =
            shown.iter().copied().filter(|&at| !columns[at].is_number && widths[at] > 24).max_by_key(|&at| widths[at]);
        let least = shown.iter().copied().filter(|&at| columns[at].rank > 0).max_by_key(|&at| columns[at].rank);
        match (widest, least) {
            (Some(at), _) => widths[at] = widths[at].saturating_sub(needed(&shown, &widths) - width).max(24),
            (None, Some(at)) => shown.retain(|&one| one != at),
            (None, None) => {
                let over = needed(&shown, &widths) - width;
                if let Some(&at) = shown.iter().max_by_key(|&&at| widths[at]) {
                    widths[at] = widths[at].saturating_sub(over).max(CUT_MIN);
                }
                break;
            }
        }
    }
    let mut text = String::new();
    let mut put = |cell: &dyn Fn(usize) -> String| {
        let mut one = String::new();
        for (place, &at) in shown.iter().enumerate() {
            let cell = cut(&cell(at), widths[at]);
            let blank = " ".repeat(widths[at].saturating_sub(cell.width()));
            let gap = if place == 0 { "" } else { "  " };
            // Writing to a String does not fail.
            let _ = if columns[at].is_number {
                write!(one, "{gap}{blank}{cell}")
            } else {
                write!(one, "{gap}{cell}{blank}")
            };
        }
        text.push_str(one.trim_end());
        text.push('\n');
    };
    put(&|at| columns[at].head.to_owned());
    for row in &rows {
        put(&|at| row.get(at).cloned().unwrap_or_default());
    }
    text
}

/// A text that takes no more columns of a terminal than this.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let (mut cut, mut taken) = (String::new(), 0);
    for character in text.chars() {
        taken += character.width().unwrap_or(0);
        if taken >= width {
            break;
        }
        cut.push(character);
    }
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column { head: "backend", is_number: false, rank: 0 },
        Column { head: "state", is_number: false, rank: 1 },
        Column { head: "req/s", is_number: true, rank: 2 },
    ];

    fn rows(id: &str) -> Vec<Vec<String>> {
        vec![vec![id.into(), "up".into(), "1200".into()], vec!["b".into(), "ejected".into(), "3".into()]]
    }

    #[test]
    fn a_table_is_as_wide_as_what_is_in_it_and_numbers_stand_on_the_right() {
        let text = table(&COLUMNS, &rows("web-1"), 80);
        assert_eq!(text, "backend  state    req/s\nweb-1    up        1200\nb        ejected      3\n");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_whatever_is_in_it() {
        let ids = ["web-1", "ein-sehr-langer-name-einer-maschine-der-nirgends-hinpasst", "日本語のとても長い名前です"];
        for id in ids {
            for width in [20, 30, 40, 80] {
                let text = table(&COLUMNS, &rows(id), width);
                assert!(text.lines().all(|line| line.width() <= width), "{width}:\n{text}");
                assert_eq!(text.lines().count(), 3);
            }
        }
        assert!(!table(&COLUMNS, &rows("web-1"), 20).contains("req/s"), "what is of least use goes first");
    }

    #[test]
    fn what_would_move_the_cursor_is_shown_and_not_done() {
        let text = table(&COLUMNS, &rows("a\u{1b}[2J\nb"), 80);
        assert!(!text.contains('\u{1b}') && text.lines().count() == 3, "{text}");
    }
}
