//! A report without a format: headings, text, tables and figures. Each format is one renderer.

/// A report.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// Title.
    pub title: String,
    /// What it consists of, in order.
    pub blocks: Vec<Block>,
}

/// A part of a report.
#[derive(Clone, Debug)]
pub enum Block {
    /// A heading of level 2 or 3, which others link to by its id.
    Heading {
        /// 2 or 3.
        level: u8,
        /// Words.
        text: String,
        /// Name of the place.
        id: String,
        /// Whether the section is shown only to who asks for it, where the format can do that.
        folded: bool,
    },
    /// A paragraph.
    Text(String),
    /// Short statements.
    Points(Vec<Point>),
    /// A table.
    Table(Table),
    /// A figure.
    Figure(Figure),
}

/// A statement.
#[derive(Clone, Debug)]
pub struct Point {
    /// What it is about, in a word or two.
    pub label: Cell,
    /// The statement.
    pub text: String,
}

/// A table.
#[derive(Clone, Debug)]
pub struct Table {
    /// File name without ending, and name of the place.
    pub id: String,
    /// What it shows.
    pub caption: String,
    /// Names of the columns.
    pub head: Vec<String>,
    /// Lines.
    pub lines: Vec<Line>,
}

/// A line of a table.
#[derive(Clone, Debug)]
pub enum Line {
    /// A heading across all columns.
    Section(String),
    /// One cell a column.
    Cells {
        /// Name of the place, where others link to it.
        id: Option<String>,
        /// Cells.
        cells: Vec<Cell>,
    },
}

/// A cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    /// Content.
    pub text: String,
    /// Whether it is the best of its kind.
    pub best: bool,
    /// Name of the place that says where the content comes from.
    pub link: Option<String>,
}

/// Longest text, in characters, that stays on one line.
const LONG: usize = 40;

impl Table {
    /// Whether any column has text that needs several lines.
    pub fn has_long(&self) -> bool {
        (0..self.head.len()).any(|column| self.is_long(column))
    }

    /// Whether a column has text that needs several lines.
    pub fn is_long(&self, column: usize) -> bool {
        self.lines.iter().any(|line| match line {
            Line::Section(_) => false,
            Line::Cells { cells, .. } => cells.get(column).is_some_and(|c| c.text.chars().count() > LONG),
        })
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), ..Self::default() }
    }
}

impl Cell {
    /// With a link.
    pub fn linked(text: impl Into<String>, link: &str) -> Self {
        Self { text: text.into(), link: Some(link.to_owned()), ..Self::default() }
    }
}

/// A figure, whose file the report's maker draws.
#[derive(Clone, Debug)]
pub struct Figure {
    /// File name with its ending, below `figures/`.
    pub file: String,
    /// What it shows.
    pub caption: String,
}

impl Document {
    /// Adds a heading.
    pub fn heading(&mut self, level: u8, text: impl Into<String>, id: impl Into<String>) {
        self.blocks.push(Block::Heading { level, text: text.into(), id: id.into(), folded: false });
    }

    /// Adds the heading of a section, of level 2, that is folded away.
    pub fn folded(&mut self, text: impl Into<String>, id: impl Into<String>) {
        self.blocks.push(Block::Heading { level: 2, text: text.into(), id: id.into(), folded: true });
    }

    /// Adds a paragraph.
    pub fn text(&mut self, text: impl Into<String>) {
        self.blocks.push(Block::Text(text.into()));
    }

    /// Adds a table, unless it has no line.
    pub fn table(&mut self, table: Table) {
        if !table.lines.is_empty() {
            self.blocks.push(Block::Table(table));
        }
    }

    /// Its tables.
    pub fn tables(&self) -> impl Iterator<Item = &Table> {
        self.blocks.iter().filter_map(|b| if let Block::Table(t) = b { Some(t) } else { None })
    }
}
