//! One HTML page that needs nothing beside it: style, curves and pictures are in the file. Light or dark as the reader's system.

use std::collections::BTreeMap;
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::document::{Block, Cell, Document, Line};

const STYLE: &str = include_str!("style.css");

/// The report with its figures by file name.
pub fn render(document: &Document, figures: &BTreeMap<String, Vec<u8>>) -> String {
    let title = escape(&document.title);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n<h1>{title}</h1>\n<nav><ul>\n"
    );
    for block in &document.blocks {
        if let Block::Heading { level: 2, text, id } = block {
            let _ = writeln!(out, "<li><a href=\"#{}\">{}</a></li>", escape(id), escape(text));
        }
    }
    out.push_str("</ul></nav>\n");
    for block in &document.blocks {
        let _ = match block {
            Block::Heading { level, text, id } => {
                writeln!(out, "<h{level} id=\"{}\">{}</h{level}>", escape(id), escape(text))
            }
            Block::Text(text) => writeln!(out, "<p>{}</p>", escape(text)),
            Block::Figure(figure) => {
                let picture = figures.get(&figure.file).map_or_else(String::new, |bytes| inline(&figure.file, bytes));
                writeln!(out, "<figure>{picture}<figcaption>{}</figcaption></figure>", escape(&figure.caption))
            }
            Block::Table(table) => {
                let _ = write!(
                    out,
                    "<div class=\"wide\"><table id=\"{}\">\n<caption>{}</caption>\n<thead><tr>",
                    escape(&table.id),
                    escape(&table.caption)
                );
                for head in &table.head {
                    let _ = write!(out, "<th>{}</th>", escape(head));
                }
                out.push_str("</tr></thead>\n<tbody>\n");
                for line in &table.lines {
                    let _ = match line {
                        Line::Section(text) => writeln!(
                            out,
                            "<tr class=\"section\"><th colspan=\"{}\">{}</th></tr>",
                            table.head.len(),
                            escape(text)
                        ),
                        Line::Cells { id, cells } => {
                            let id = id.as_ref().map_or_else(String::new, |id| format!(" id=\"{}\"", escape(id)));
                            let long = |column| if table.is_long(column) { " class=\"long\"" } else { "" };
                            let cells: String = cells
                                .iter()
                                .enumerate()
                                .map(|(n, c)| format!("<td{}>{}</td>", long(n), cell(c)))
                                .collect();
                            writeln!(out, "<tr{id}>{cells}</tr>")
                        }
                    };
                }
                writeln!(out, "</tbody></table></div>")
            }
        };
    }
    out.push_str("</html>\n");
    out
}

fn cell(cell: &Cell) -> String {
    let mut text = escape(&cell.text);
    if cell.best {
        text = format!("<strong>{text}</strong>");
    }
    match &cell.link {
        Some(link) => format!("<a href=\"#{}\">{text}</a>", escape(link)),
        None => text,
    }
}

/// Curves become part of the page, in the colour of its text; pictures are carried as data.
fn inline(file: &str, bytes: &[u8]) -> String {
    if file.ends_with(".svg") {
        let svg = String::from_utf8_lossy(bytes);
        // The white ground is for the file that stands alone.
        let drawing = svg.replacen("fill=\"#FFFFFF\"", "fill=\"none\"", 1).replace("#000000", "currentColor");
        return drawing[drawing.find("<svg").unwrap_or(0)..].to_owned();
    }
    format!("<img alt=\"\" src=\"data:image/png;base64,{}\">", STANDARD.encode(bytes))
}

/// Whether XML allows a character, escaped or not.
pub(super) fn is_legal(c: char) -> bool {
    !matches!(c, '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\u{fffe}' | '\u{ffff}')
}

/// Text for the inside of an element or attribute, in XML too.
pub(super) fn escape(text: &str) -> String {
    let legal: String = text.chars().filter(|&c| is_legal(c)).collect();
    legal.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
