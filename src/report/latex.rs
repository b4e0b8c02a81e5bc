//! LaTeX with booktabs: a document that compiles, and each table as a fragment to put into a paper.

use std::fmt::Write;

use super::document::{Block, Cell, Document, Line, Point, Table};

/// What the tables need of a document's head.
const PREAMBLE: &str = r"\documentclass[10pt]{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage{textcomp}
\usepackage{booktabs,longtable,caption,graphicx,hyperref}
\usepackage[a4paper,landscape,margin=15mm]{geometry}
\setlength{\parindent}{0pt}
\setlength{\parskip}{6pt}
";

/// The report, which reads the fragments `tables/ID.tex` and the pictures below `figures/` beside it.
pub fn render(document: &Document) -> String {
    let mut out =
        format!("{PREAMBLE}\\title{{{}}}\n\\date{{}}\n\\begin{{document}}\n\\maketitle\n", escape(&document.title));
    for block in &document.blocks {
        let _ = match block {
            Block::Heading { level, text, id, .. } => {
                let command = if *level == 2 { "section*" } else { "subsection*" };
                writeln!(out, "\n\\{command}{{{}}}\\hypertarget{{{id}}}{{}}", escape(text))
            }
            Block::Text(text) => writeln!(out, "\n{}", escape(text)),
            Block::Points(points) => {
                let line = |p: &Point| format!("\\item \\textbf{{{}}} {}\n", cell(&p.label), escape(&p.text));
                let lines: String = points.iter().map(line).collect();
                writeln!(out, "\n\\begin{{itemize}}\n{lines}\\end{{itemize}}")
            }
            Block::Table(table) => writeln!(out, "\n\\input{{tables/{}.tex}}", table.id),
            Block::Figure(figure) => {
                // LaTeX reads no SVG: the same picture lies beside it as PNG.
                let file = figure.file.replace(".svg", ".png");
                writeln!(
                    out,
                    "\n\\begin{{center}}\\includegraphics[width=0.8\\textwidth,height=0.8\\textheight,keepaspectratio]{{figures/{file}}}\\\\{}\\end{{center}}",
                    escape(&figure.caption)
                )
            }
        };
    }
    out.push_str("\\end{document}\n");
    out
}

/// One table.
pub fn table(table: &Table) -> String {
    let columns = table.head.len();
    let long = (0..columns).filter(|&c| table.is_long(c)).count();
    // Long text shares what short columns leave of the page.
    let share = (0.95 - 0.09 * (columns - long) as f64).max(0.3) / long.max(1) as f64;
    let column = |c| if table.is_long(c) { format!("p{{{share:.2}\\textwidth}}") } else { "l".to_owned() };
    let spec: String = (0..columns).map(column).collect();
    let size = if columns > 10 { "tiny" } else { "small" };
    let mut out = format!(
        "% needs booktabs, longtable, caption and hyperref\n{{\\{size}\\begin{{longtable}}{{{spec}}}\n\\caption*{{\\hypertarget{{{}}}{{}}{}}}\\\\\n\\toprule\n",
        table.id,
        escape(&table.caption)
    );
    let head: Vec<String> = table.head.iter().map(|h| escape(h)).collect();
    let _ = writeln!(out, "{} \\\\\n\\midrule\n\\endhead", head.join(" & "));
    for line in &table.lines {
        let _ = match line {
            Line::Section(text) => {
                writeln!(out, "\\addlinespace\n\\multicolumn{{{columns}}}{{l}}{{\\emph{{{}}}}} \\\\", escape(text))
            }
            Line::Cells { id, cells } => {
                let target = id.as_ref().map_or_else(String::new, |id| format!("\\hypertarget{{{id}}}{{}}"));
                let cells: Vec<String> = cells.iter().map(cell).collect();
                writeln!(out, "{target}{} \\\\", cells.join(" & "))
            }
        };
    }
    out.push_str("\\bottomrule\n\\end{longtable}}\n");
    out
}

fn cell(cell: &Cell) -> String {
    let mut text = escape(&cell.text);
    if cell.best {
        text = format!("\\textbf{{{text}}}");
    }
    match &cell.link {
        Some(link) => format!("\\hyperlink{{{link}}}{{{text}}}"),
        None => text,
    }
}

fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', c]),
            // After a line's end they would be its options.
            '[' | '*' => out.extend(['{', c, '}']),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '\\' => out.push_str("\\textbackslash{}"),
            '±' => out.push_str("$\\pm$"),
            '×' => out.push_str("$\\times$"),
            '↓' => out.push_str("$\\downarrow$"),
            '↑' => out.push_str("$\\uparrow$"),
            '≤' => out.push_str("$\\le$"),
            '≥' => out.push_str("$\\ge$"),
            '²' => out.push_str("$^2$"),
            '∇' => out.push_str("$\\nabla$"),
            '‖' => out.push_str("$\\|$"),
            'λ' => out.push_str("$\\lambda$"),
            'α' => out.push_str("$\\alpha$"),
            'β' => out.push_str("$\\beta$"),
            'γ' => out.push_str("$\\gamma$"),
            'τ' => out.push_str("$\\tau$"),
            '∞' => out.push_str("$\\infty$"),
            '−' => out.push_str("$-$"),
            '✓' => out.push_str("yes"),
            '–' => out.push_str("--"),
            '…' => out.push_str("\\ldots{}"),
            '’' => out.push('\''),
            // f with a circumflex: f̂ is an f and a combining character.
            '\u{302}' => {
                let last = out.pop().unwrap_or(' ');
                let _ = write!(out, "$\\hat{{{last}}}$");
            }
            c => out.push(if c.is_control() { ' ' } else { c }),
        }
    }
    out
}
