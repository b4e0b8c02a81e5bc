//! Measures of collections of images, as they are: a table for each command that measured, in which nothing is ranked.

use super::document::{Cell, Document, Line, Table};
use super::markdown::{aligned, plain, significant};
use super::runs::distinct;
use crate::files::short_weights;
use crate::results::{Row, measure};

/// Digits of a value, of what it varies by and of the ends of its interval.
const DIGITS: [i32; 3] = [6, 2, 4];

/// What is measured of one collection against another.
pub struct Listing {
    /// Both names.
    pub title: String,
    head: Vec<String>,
    lines: Vec<Vec<String>>,
    /// What all lines share, and what tells them apart.
    notes: Vec<String>,
    /// What there is to doubt.
    pub warnings: Vec<String>,
}

/// What each command measured, in order of appearance.
pub fn listings(rows: &[&Row]) -> Vec<Listing> {
    let mut commands: Vec<Vec<&Row>> = Vec::new();
    let of = |row: &Row| (row.reference.clone(), row.method.clone(), row.config_hash.clone());
    for row in rows {
        match commands.iter_mut().find(|command| of(command[0]) == of(row)) {
            Some(command) => command.push(row),
            None => commands.push(vec![row]),
        }
    }
    commands.iter().map(|rows| listing(&rows[0].reference, &rows[0].method, rows)).collect()
}

/// The tables of all collections for a terminal.
pub fn text(rows: &[&Row]) -> String {
    let of = |listing: Listing| {
        let warnings: String = listing.warnings.iter().map(|w| format!("warning: {w}\n")).collect();
        format!("### {}\n\n{}{warnings}\n", listing.title, listing.text())
    };
    listings(rows).into_iter().map(of).collect()
}

/// The same as a part of a report.
pub fn section(document: &mut Document, rows: &[&Row]) {
    let listings = listings(rows);
    if listings.is_empty() {
        return;
    }
    document.heading(2, "Measured images", "measured-images");
    document.text("Collections of images and no runs: each number stands for itself, and none is ranked.");
    for (i, listing) in listings.into_iter().enumerate() {
        let line = |cells: Vec<String>| Line::Cells { id: None, cells: cells.into_iter().map(Cell::from).collect() };
        document.table(Table {
            id: format!("images-{}", i + 1),
            caption: format!("{}. {}.", listing.title, listing.notes.join(". ")),
            head: listing.head,
            lines: listing.lines.into_iter().map(line).collect(),
        });
        for warning in listing.warnings {
            document.text(format!("Warning: {warning}."));
        }
    }
}

impl Listing {
    /// The table, and below it what its lines share.
    pub fn text(&self) -> String {
        let notes: String = self.notes.iter().map(|note| format!("{}\n", plain(note))).collect();
        format!("{}{notes}", aligned(&self.head, self.lines.clone()))
    }
}

fn over(row: &Row) -> String {
    format!("{} ({}…), resize {}", row.extractor, short_weights(&row.extractor_sha256), row.resize)
}

fn order(row: &Row) -> String {
    row.order.clone().unwrap_or_else(|| "unknown".to_owned())
}

/// Images of the real side, as far as its statistics say; nothing where there is no such side.
fn real_images(row: &Row) -> Option<String> {
    row.metric.contains('_').then(|| row.reference_n.map_or_else(|| "?".to_owned(), |n| n.to_string()))
}

fn listing(real: &str, generated: &str, rows: &[&Row]) -> Listing {
    let column = |of: &dyn Fn(&Row) -> String| rows.iter().map(|row| of(row)).collect::<Vec<String>>();
    let name = |row: &Row| measure(&row.metric).to_owned();
    let mut columns = vec![
        ("metric", column(&name)),
        ("value", column(&|row| significant(row.value, DIGITS[0]))),
        ("±", column(&|row| row.std.map_or_else(String::new, |std| significant(std, DIGITS[1])))),
        (
            "95 % interval",
            column(&|row| {
                let end = |value: f64| significant(value, DIGITS[2]);
                row.low.zip(row.high).map_or_else(String::new, |(low, high)| format!("{} to {}", end(low), end(high)))
            }),
        ),
        ("settings", column(&|row| row.settings.clone())),
    ];
    columns.retain(|(_, cells)| cells.iter().any(|cell| !cell.is_empty()));
    // What is one and the same is said once.
    let sides = [distinct(rows.iter().filter_map(|r| real_images(r))), distinct(rows.iter().map(|r| r.n.to_string()))];
    let [of_real, of_generated] = [0, 1].map(|side| match &sides[side][..] {
        [one] => format!(" ({one} images)"),
        _ => String::new(),
    });
    if sides[0].len() > 1 {
        columns.push(("real N", column(&|row| real_images(row).unwrap_or_default())));
    }
    if sides[1].len() > 1 {
        columns.push(("N", column(&|row| row.n.to_string())));
    }
    let mut notes = vec![format!("{real}{of_real} real, {generated}{of_generated} generated")];
    let is_once = distinct(rows.iter().map(|row| name(row))).len() == rows.len();
    for (head, of) in [("over", over as fn(&Row) -> String), ("order", order)] {
        let mut values = distinct(rows.iter().map(|row| of(row)));
        let named =
            |value: &String| rows.iter().filter(|row| of(row) == *value).map(|row| name(row)).collect::<Vec<_>>();
        // What most rows have comes first, and then who differs.
        values.sort_by_key(|value| std::cmp::Reverse(named(value).len()));
        if values.len() > 1 && !is_once {
            columns.push((head, column(&of)));
            continue;
        }
        notes.push(format!("{head} {}", values[0]));
        notes.extend(values[1..].iter().map(|value| format!("{}: {head} {value}", named(value).join(", "))));
    }
    let doubtful = rows.iter().filter(|row| !row.warning.is_empty());
    let mut warnings: Vec<String> = doubtful.map(|row| format!("{}: {}", name(row), row.warning)).collect();
    warnings.dedup();
    Listing {
        title: plain(&format!("{generated} against {real}")),
        head: columns.iter().map(|(head, _)| (*head).to_owned()).collect(),
        lines: (0..rows.len()).map(|i| columns.iter().map(|(_, cells)| cells[i].clone()).collect()).collect(),
        notes,
        warnings,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::NO_NETWORK;
    use crate::results::tests::row;

    fn of_images(metric: &str, order: &str, real: u64) -> Row {
        Row {
            arch: NO_NETWORK.into(),
            experiment: "measure".into(),
            scale: "images".into(),
            reference: "real".into(),
            order: Some(order.into()),
            reference_n: metric.contains('_').then_some(real),
            settings: String::new(),
            std: None,
            ..row("generated", 0, 0, metric, 12.345_678_9)
        }
    }

    #[test]
    fn what_all_rows_share_is_said_once() {
        let kid =
            Row { settings: "100 × 1000".into(), std: Some(0.012_345), ..of_images("kid2k_real", "spread", 9000) };
        let rows = [of_images("fid2k_real", "spread", 9000), of_images("is2k", "spread", 0), kid];
        let all: Vec<&Row> = rows.iter().collect();
        let text = text(&all);
        assert!(
            text.starts_with("### generated against real\n\n| metric | value   | ±     | settings   |\n"),
            "{text}"
        );
        assert!(text.contains("\n| kid    | 12.3457 | 0.012 | 100 × 1000 |\n"), "{text}");
        let notes = "real (9000 images) real, generated (2000 images) generated\nover classifier (ab…), resize none\norder spread\n";
        assert!(text.contains(notes), "{text}");
    }

    #[test]
    fn rows_of_two_orders_are_told_apart() {
        let other = Row { extractor_sha256: "ab+cd".into(), ..of_images("is2k", "spread", 0) };
        let rows = [of_images("fid2k_real", "spread", 9000), of_images("fid2k_real", "file", 8000), other];
        let text = super::text(&rows.iter().collect::<Vec<_>>());
        let lines: Vec<&str> = text.lines().filter(|l| l.starts_with("| fid")).collect();
        assert!(lines[0].contains("| 9000 ") && lines[0].ends_with("| spread |"), "{text}");
        assert!(lines[1].contains("| 8000 ") && lines[1].ends_with("| file   |"), "{text}");
        assert!(text.contains("| classifier (ab…+cd…), resize none"), "{text}");
        // Each command has its own table.
        let commands = [0, 1].map(|i| Row { config_hash: i.to_string(), ..rows[i].clone() });
        let text = super::text(&commands.iter().collect::<Vec<_>>());
        assert!(text.contains("\norder spread\n") && text.contains("\norder file\n"), "{text}");
    }

    #[test]
    fn several_extractors_are_listed_below() {
        let dinov2 = Row { extractor: "dinov2-vitl14".into(), ..of_images("fd-dinov2-2k_real", "spread", 9000) };
        let dinov2 = Row { reference_n: None, ..dinov2 };
        let rows = [of_images("fid2k_real", "spread", 9000), dinov2];
        let text = text(&rows.iter().collect::<Vec<_>>());
        assert!(text.contains("\nfd-dinov2: over dinov2-vitl14 (ab…), resize none\n"), "{text}");
        // Statistics that do not say of how many images.
        assert!(text.contains("| fd-dinov2 | 12.3457 | ?      |"), "{text}");
    }
}
