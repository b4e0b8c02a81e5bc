//! Markdown, as GitHub shows it.

use std::fmt::Write;

use super::document::{Block, Cell, Document, Line, Point};

/// The report; figures are files beside it.
pub fn render(document: &Document) -> String {
    let mut out = format!("# {}\n", escape(&document.title));
    for block in &document.blocks {
        out.push('\n');
        let _ = match block {
            Block::Heading { level, text, id, .. } => {
                writeln!(out, "<a id=\"{id}\"></a>\n\n{} {}", "#".repeat((*level).into()), escape(text))
            }
            Block::Text(text) => writeln!(out, "{}", escape(text)),
            Block::Points(points) => {
                let line = |p: &Point| format!("- **{}** {}\n", cell(&p.label), escape(&p.text));
                write!(out, "{}", points.iter().map(line).collect::<String>())
            }
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

/// Text in which tables wider than a terminal are cut into several, each with the first column of the whole, as pandas does it.
pub fn fitted(text: &str, width: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let is_table = |line: &&str| line.starts_with("| ");
    let parts = lines.chunk_by(|a, b| is_table(a) == is_table(b)).map(|part| {
        let whole = || part.iter().map(|line| format!("{line}\n")).collect::<String>();
        let is_wide = is_table(&part[0]) && part.iter().any(|line| line.chars().count() > width);
        if is_wide { cut(part, width).unwrap_or_else(whole) } else { whole() }
    });
    parts.collect()
}

/// The parts of a table, a line between them; none where its lines have not all the same columns.
fn cut(table: &[&str], width: usize) -> Option<String> {
    let cells = |line: &str| -> Option<Vec<String>> {
        Some(line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").map(str::to_owned).collect())
    };
    let mut lines: Vec<Vec<String>> = table.iter().map(|line| cells(line)).collect::<Option<_>>()?;
    let columns = lines[0].len();
    if lines.len() < 2 || lines.iter().any(|line| line.len() != columns) {
        return None;
    }
    lines.remove(1);
    let wide = |column: usize| lines[0][column].chars().count() + 3;
    let mut parts: Vec<Vec<usize>> = Vec::new();
    let mut used = width;
    for column in 1..columns {
        if used + wide(column) > width || parts.is_empty() {
            parts.push(vec![0]);
            used = wide(0) + 1;
        }
        used += wide(column);
        parts.last_mut()?.push(column);
    }
    let table = |part: &Vec<usize>| {
        let of = |line: &Vec<String>| part.iter().map(|c| line[*c].trim_end().to_owned()).collect::<Vec<_>>();
        aligned(&of(&lines[0]), lines[1..].iter().map(of).collect())
    };
    Some(parts.iter().map(table).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_tables_are_cut_into_columns_that_fit() {
        let head = ["method", "seeds", "best ↓", "status"].map(str::to_owned);
        let rows = vec![["pgn", "3", "1.50 ± 0.71", "finished"].map(str::to_owned).to_vec()];
        let text = format!("### title\n\n{}\nmore\n", aligned(&head, rows));
        assert_eq!(fitted(&text, 80), text);
        let narrow = "### title

| method | seeds |
| ------ | ----- |
| pgn    | 3     |

| method | best ↓      |
| ------ | ----------- |
| pgn    | 1.50 ± 0.71 |

| method | status   |
| ------ | -------- |
| pgn    | finished |

more
";
        assert_eq!(fitted(&text, 24), narrow);
    }
}
