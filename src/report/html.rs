//! One HTML page that needs nothing beside it: style, curves and pictures are in the file. Light or dark as the reader's system.

use std::collections::BTreeMap;
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::document::{Block, Cell, Document, Line, Point, Table};

const STYLE: &str = include_str!("style.css");

/// The report with its figures by file name.
pub fn render(document: &Document, figures: &BTreeMap<String, Vec<u8>>) -> String {
    let title = escape(&document.title);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n<h1>{title}</h1>\n<nav><ul>\n"
    );
    for block in &document.blocks {
        if let Block::Heading { level: 2, text, id, .. } = block {
            let _ = writeln!(out, "<li><a href=\"#{}\">{}</a></li>", escape(id), escape(text));
        }
    }
    out.push_str("</ul></nav>\n");
    for part in document.blocks.chunk_by(|_, next| !matches!(next, Block::Heading { level: 2, .. })) {
        section(&mut out, part, figures);
    }
    out.push_str("</html>\n");
    out
}

/// What stands before the first heading, or a heading of level 2 with what belongs to it.
fn section(out: &mut String, blocks: &[Block], figures: &BTreeMap<String, Vec<u8>>) {
    // A link to a place inside what is folded unfolds it, one to its summary would not.
    let (open, close) = match &blocks[0] {
        Block::Heading { level: 2, text, id, folded: true } => (
            format!("<details><summary><h2>{}</h2></summary>\n<div id=\"{}\">\n", escape(text), escape(id)),
            "</div></details>\n",
        ),
        Block::Heading { level: 2, .. } => ("<section>\n".to_owned(), "</section>\n"),
        _ => ("<section class=\"lead\">\n".to_owned(), "</section>\n"),
    };
    out.push_str(&open);
    let is_figure = |b: &Block| matches!(b, Block::Figure(_));
    for together in blocks.chunk_by(|a, b| is_figure(a) && is_figure(b)) {
        let (open, close) = if is_figure(&together[0]) { ("<div class=\"figures\">\n", "</div>\n") } else { ("", "") };
        out.push_str(open);
        together.iter().for_each(|b| block(out, b, figures));
        out.push_str(close);
    }
    out.push_str(close);
}

fn block(out: &mut String, block: &Block, figures: &BTreeMap<String, Vec<u8>>) {
    let _ = match block {
        Block::Heading { folded: true, .. } => Ok(()),
        Block::Heading { level, text, id, .. } => {
            writeln!(out, "<h{level} id=\"{}\">{}</h{level}>", escape(id), escape(text))
        }
        Block::Text(text) => writeln!(out, "<p>{}</p>", escape(text)),
        Block::Points(points) => {
            let line = |p: &Point| format!("<li><b>{}</b> {}</li>\n", cell(&p.label), escape(&p.text));
            writeln!(out, "<ul class=\"points\">\n{}</ul>", points.iter().map(line).collect::<String>())
        }
        Block::Figure(figure) => {
            let picture = figures.get(&figure.file).map_or_else(String::new, |bytes| inline(&figure.file, bytes));
            writeln!(out, "<figure>{picture}<figcaption>{}</figcaption></figure>", escape(&figure.caption))
        }
        Block::Table(table) => write!(out, "{}", of_table(table)),
    };
}

fn of_table(table: &Table) -> String {
    let is_long: Vec<bool> = (0..table.head.len()).map(|column| table.is_long(column)).collect();
    // What is to be read rather than compared becomes one column on a narrow screen, in which cells need their names.
    let prose = if table.has_long() { " class=\"prose\"" } else { "" };
    // An arrow stays with its measure.
    let unbroken = |h: &String| escape(h).replace(" ↓", "\u{a0}↓").replace(" ↑", "\u{a0}↑");
    let head: String = table.head.iter().map(|h| format!("<th>{}</th>", unbroken(h))).collect();
    let mut out = format!(
        "<figure class=\"table\" id=\"{}\"><figcaption>{}</figcaption>\n<div class=\"wide\" tabindex=\"0\"><table{prose}>\n\
         <thead><tr>{head}</tr></thead>\n<tbody>\n",
        escape(&table.id),
        escape(&table.caption)
    );
    for line in &table.lines {
        let _ = match line {
            Line::Section(text) => {
                let columns = table.head.len();
                writeln!(out, "<tr class=\"section\"><th colspan=\"{columns}\"><span>{}</span></th></tr>", escape(text))
            }
            Line::Cells { id, cells } => {
                let id = id.as_ref().map_or_else(String::new, |id| format!(" id=\"{}\"", escape(id)));
                let one = |(n, c): (usize, &Cell)| {
                    let long = if is_long.get(n) == Some(&true) { " class=\"long\"" } else { "" };
                    let named = |head: &String| format!(" data-head=\"{}\"", escape(head));
                    let name = table.head.get(n).filter(|_| !prose.is_empty()).map_or_else(String::new, named);
                    format!("<td{long}{name}>{}</td>", cell(c))
                };
                let cells: String = cells.iter().enumerate().map(one).collect();
                writeln!(out, "<tr{id}>{cells}</tr>")
            }
        };
    }
    out.push_str("</tbody></table></div></figure>\n");
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
