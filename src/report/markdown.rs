//! Markdown, as GitHub shows it.

use std::fmt::Write;

use super::document::{Block, Cell, Document, Line};

/// The report; figures are files beside it.
pub fn render(document: &Document) -> String {
    let mut out = format!("# {}\n", escape(&document.title));
    for block in &document.blocks {
        out.push('\n');
        let _ = match block {
            Block::Heading { level, text, id } => {
                writeln!(out, "<a id=\"{id}\"></a>\n\n{} {}", "#".repeat((*level).into()), escape(text))
            }
            Block::Text(text) => writeln!(out, "{}", escape(text)),
            Block::Figure(figure) => {
                let caption = escape(&figure.caption);
                writeln!(out, "![{caption}](figures/{})\n\n{caption}", figure.file)
            }
            Block::Table(table) => {
                let rows = table.lines.iter().map(|line| match line {
                    Line::Section(text) => {
                        let mut cells = vec![format!("**{}**", escape(text))];
                        cells.resize(table.head.len(), String::new());
                        cells
                    }
                    Line::Cells { id, cells } => {
                        let mut cells: Vec<String> = cells.iter().map(cell).collect();
                        if let (Some(id), Some(first)) = (id, cells.first_mut()) {
                            first.insert_str(0, &format!("<a id=\"{id}\"></a>"));
                        }
                        cells
                    }
                });
                let head: Vec<String> = table.head.iter().map(|h| escape(h)).collect();
                writeln!(
                    out,
                    "<a id=\"{}\"></a>\n\n*{}*\n\n{}",
                    table.id,
                    escape(&table.caption),
                    aligned(&head, rows.collect()).trim_end()
                )
            }
        };
    }
    out
}

fn cell(cell: &Cell) -> String {
    let mut text = escape(&cell.text);
    if cell.best {
        text = format!("**{text}**");
    }
    match &cell.link {
        Some(link) => format!("[{text}](#{link})"),
        None => text,
    }
}

/// Text on one line, without what would steer a terminal.
pub fn plain(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

/// A number with so many significant digits, whole ones all.
pub fn significant(value: f64, digits: i32) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let decimals = (digits - 1 - value.abs().log10().floor() as i32).clamp(0, 12) as usize;
    format!("{value:.decimals$}")
}

fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in plain(text).chars() {
        if matches!(c, '|' | '*' | '_' | '`' | '[' | ']' | '<' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// A Markdown table that also reads well as plain text.
pub fn aligned(head: &[String], rows: Vec<Vec<String>>) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect()).collect();
    let width = |column: usize| {
        rows.iter().map(|r| r[column].chars().count()).chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(c, &w)| format!("{c}{}", " ".repeat(w - c.chars().count()))).collect();
        format!("| {} |\n", padded.join(" | "))
    };
    let rule: Vec<String> = widths.iter().map(|&w| "-".repeat(w)).collect();
    let body: String = rows.iter().map(|r| line(r)).collect();
    format!("{}{}{body}", line(head), line(&rule))
}
