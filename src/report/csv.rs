//! Comma-separated values (RFC 4180), one file a table.

use super::document::{Line, Table};

/// A table; its sections are the first column.
pub fn render(table: &Table) -> String {
    let sections = table.lines.iter().any(|l| matches!(l, Line::Section(_)));
    let mut out = String::new();
    let mut section = "";
    let head = sections.then_some("section").into_iter().chain(table.head.iter().map(String::as_str));
    write_line(&mut out, head);
    for line in &table.lines {
        match line {
            Line::Section(text) => section = text,
            Line::Cells { cells, .. } => {
                let cells = cells.iter().map(|c| c.text.as_str());
                write_line(&mut out, sections.then_some(section).into_iter().chain(cells));
            }
        }
    }
    out
}

/// Whether a spreadsheet would compute it.
fn is_formula(field: &str) -> bool {
    let numbers = || field.split(' ').all(|word| word.parse::<f64>().is_ok() || ["±", "to"].contains(&word));
    field.starts_with(['=', '+', '-', '@', '\t', '\r']) && !numbers()
}

fn write_line<'a>(out: &mut String, fields: impl Iterator<Item = &'a str>) {
    let quoted = fields.map(|f| {
        let f = if is_formula(f) { &format!("'{f}") } else { f };
        if f.contains([',', '"', '\n', '\r']) { format!("\"{}\"", f.replace('"', "\"\"")) } else { f.to_owned() }
    });
    out.push_str(&quoted.collect::<Vec<_>>().join(","));
    out.push_str("\r\n");
}
