//! Draws figures: SVG for pages and print, PNG for everything else. They are drawn to be shown at half their size.

use std::io::Cursor;
use std::sync::Once;

use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};

use super::axis::Axis;
use super::chart::{Bar, Chart, Curve, Look, Plot, look_of};
use super::html::is_legal;
use crate::data::source::{Picture, Room, decode};
use crate::error::{Error, Result};

/// Width of a figure, and height of one with curves, in pixels.
const WIDTH: u32 = 1280;
const HEIGHT: u32 = 800;
/// Room for ticks to the left, for titles above, for ticks and a name below.
const LEFT: i32 = 150;
const TOP: i32 = 120;
const BELOW: i32 = 120;
/// Most room for the names beside the ends of curves, and of it for each letter.
const NAMES: i32 = 520;
const LETTER: i32 = 23;
/// Sizes of letters.
const LARGE: u32 = 38;
const SMALL: u32 = 32;
/// Height of a line of text.
const ROW: i32 = 46;
/// Height of a bar with what is between it and the next.
const BAR: i32 = 64;
/// Most ticks of an axis.
const TICKS: usize = 6;
/// Height of a picture's name.
const LABEL: u32 = 28;
/// Most pixels of a picture's width and height.
const WIDEST: [u32; 2] = [280, 4096];
/// Most pixels of pictures together.
const CANVAS: usize = 1 << 28;
/// Pictures in a row.
const COLUMNS: usize = 4;
/// Markers on a curve.
const MARKERS: usize = 8;
/// How strong lines behind curves, words beside them and bands are.
const FAINT: f64 = 0.15;
const QUIET: f64 = 0.65;
const BAND: f64 = 0.15;

type At = (i32, i32);

fn failed(e: impl std::fmt::Display) -> Error {
    Error::invalid(format!("cannot draw a figure: {e}"))
}

/// The bundled font, so that no machine needs one.
fn prepare() {
    static FONT: Once = Once::new();
    FONT.call_once(|| {
        // A second registration under the name is what fails.
        let _ = register_font("sans-serif", FontStyle::Normal, dejavu::sans::regular());
    });
}

fn size(plot: &Plot) -> (u32, u32) {
    match plot {
        Plot::Bars { bars, .. } => (WIDTH, (TOP + BAR * bars.len() as i32 + ROW / 2) as u32),
        _ => (WIDTH, HEIGHT),
    }
}

/// The figure as SVG; pictures have none.
///
/// # Errors
/// When drawing fails.
pub fn svg(plot: &Plot) -> Result<Option<String>> {
    if matches!(plot, Plot::Pictures(_)) {
        return Ok(None);
    }
    prepare();
    let mut out = String::new();
    draw(&SVGBackend::with_string(&mut out, size(plot)).into_drawing_area(), plot)?;
    out.retain(is_legal);
    Ok(Some(out))
}

/// The figure as PNG.
///
/// # Errors
/// When drawing fails, or a picture is no PNG.
pub fn png(plot: &Plot) -> Result<Vec<u8>> {
    prepare();
    if let Plot::Pictures(pictures) = plot {
        return side_by_side(pictures);
    }
    let size = size(plot);
    let mut buffer = vec![0; (size.0 * size.1 * 3) as usize];
    draw(&BitMapBackend::with_buffer(&mut buffer, size).into_drawing_area(), plot)?;
    encode(buffer, size)
}

fn encode(buffer: Vec<u8>, (width, height): (u32, u32)) -> Result<Vec<u8>> {
    let image = image::RgbImage::from_raw(width, height, buffer).ok_or_else(|| failed("buffer of another size"))?;
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).map_err(failed)?;
    Ok(bytes.into_inner())
}

fn draw<DB: DrawingBackend>(root: &DrawingArea<DB, Shift>, plot: &Plot) -> Result<()> {
    root.fill(&WHITE).map_err(failed)?;
    match plot {
        Plot::Lines(chart) => draw_lines(root, chart)?,
        Plot::Bars { title, what, bars } => draw_bars(root, title, what, bars)?,
        Plot::Pictures(_) => {}
    }
    root.present().map_err(failed)
}

/// Words at a place.
fn write<DB: DrawingBackend>(
    root: &DrawingArea<DB, Shift>,
    words: &str,
    at: At,
    size: u32,
    anchor: (HPos, VPos),
    strength: f64,
) -> Result<()> {
    let style = ("sans-serif", size).into_font().color(&BLACK.mix(strength)).pos(Pos::new(anchor.0, anchor.1));
    root.draw(&Text::new(words.to_owned(), at, style)).map_err(failed)
}

/// What is shown, and below it of what.
fn write_titles<DB: DrawingBackend>(root: &DrawingArea<DB, Shift>, what: &str, title: &str) -> Result<()> {
    let anchor = (HPos::Left, VPos::Top);
    write(root, what, (8, 12), LARGE, anchor, 1.0)?;
    write(root, title, (8, 12 + ROW), SMALL, anchor, QUIET)
}

fn rule<DB: DrawingBackend>(root: &DrawingArea<DB, Shift>, from: At, to: At, strength: f64) -> Result<()> {
    root.draw(&PathElement::new(vec![from, to], BLACK.mix(strength).stroke_width(2))).map_err(failed)
}

/// Axes in pixels.
struct Frame {
    x: Axis,
    y: Axis,
    right: i32,
    bottom: i32,
}

impl Frame {
    fn at(&self, x: f64, y: f64) -> At {
        let [x, y] = [self.x.place(x), self.y.place(y)];
        let [wide, high] = [self.right - LEFT, self.bottom - TOP].map(f64::from);
        (LEFT + (x * wide).round() as i32, self.bottom - (y * high).round() as i32)
    }
}

fn draw_lines<DB: DrawingBackend>(root: &DrawingArea<DB, Shift>, chart: &Chart) -> Result<()> {
    let longest = chart.curves.iter().map(|c| c.name.chars().count()).max().unwrap_or(0);
    let names = (LETTER * longest.min(100) as i32 + 90).min(NAMES);
    let frame =
        Frame { x: chart.x_axis(), y: chart.y_axis(), right: WIDTH as i32 - names, bottom: HEIGHT as i32 - BELOW };
    write_titles(root, &chart.y, &chart.title)?;
    for tick in frame.y.ticks(TICKS) {
        let (_, y) = frame.at(0.0, tick);
        rule(root, (LEFT, y), (frame.right, y), FAINT)?;
        write(root, &number(tick), (LEFT - 14, y), SMALL, (HPos::Right, VPos::Center), QUIET)?;
    }
    rule(root, (LEFT, frame.bottom), (frame.right, frame.bottom), QUIET)?;
    for tick in frame.x.ticks(TICKS) {
        let (x, _) = frame.at(tick, 0.0);
        rule(root, (x, frame.bottom), (x, frame.bottom + 8), QUIET)?;
        write(root, &number(tick), (x, frame.bottom + 16), SMALL, (HPos::Center, VPos::Top), QUIET)?;
    }
    let middle = (LEFT + frame.right) / 2;
    write(root, &chart.x, (middle, frame.bottom + 16 + ROW), SMALL, (HPos::Center, VPos::Top), QUIET)?;
    for curve in chart.curves.iter().filter(|c| c.points.iter().any(|p| p[3] > p[2])) {
        let above = curve.points.iter().map(|p| frame.at(p[0], p[3]));
        let below = curve.points.iter().rev().map(|p| frame.at(p[0], p[2]));
        let band: Vec<At> = above.chain(below).collect();
        root.draw(&Polygon::new(band, look_of(&curve.method, curve.nth).colour.mix(BAND).filled())).map_err(failed)?;
    }
    for curve in &chart.curves {
        let line: Vec<At> = curve.points.iter().map(|p| frame.at(p[0], p[1])).collect();
        draw_curve(root, &line, &look_of(&curve.method, curve.nth), curve.is_second)?;
    }
    name_ends(root, chart, &frame)
}

fn draw_curve<DB: DrawingBackend>(
    root: &DrawingArea<DB, Shift>,
    line: &[At],
    look: &Look,
    is_second: bool,
) -> Result<()> {
    let style = look.colour.stroke_width(4);
    let dashes = match (look.dashed, is_second) {
        (false, false) => None,
        (true, false) => Some([12, 8]),
        (false, true) => Some([3, 11]),
        (true, true) => Some([12, 24]),
    };
    match dashes {
        None => root.draw(&PathElement::new(line.to_vec(), style)).map_err(failed)?,
        Some([stroke, gap]) => {
            root.draw(&DashedPathElement::new(line.to_vec(), stroke, gap, style)).map_err(failed)?;
        }
    }
    let every = line.len().div_ceil(MARKERS).max(1);
    line.iter().rev().step_by(every).try_for_each(|&at| mark(root, at, look))
}

/// Names in order of the ends of their curves, as near to these as they fit.
fn name_ends<DB: DrawingBackend>(root: &DrawingArea<DB, Shift>, chart: &Chart, frame: &Frame) -> Result<()> {
    let mut ends: Vec<(At, &Curve)> = Vec::new();
    for curve in chart.curves.iter().filter(|c| !c.is_second) {
        if let Some(p) = curve.points.last() {
            ends.push((frame.at(p[0], p[1]), curve));
        }
    }
    ends.sort_by_key(|(at, ..)| at.1);
    let wanted: Vec<i32> = ends.iter().map(|(at, ..)| at.1).collect();
    for ((end, curve), y) in ends.iter().zip(spread(&wanted, [TOP, frame.bottom])) {
        let look = look_of(&curve.method, curve.nth);
        let x = frame.right + 44;
        let leader = PathElement::new(vec![*end, (x - 14, y)], look.colour.mix(0.5).stroke_width(2));
        root.draw(&leader).map_err(failed)?;
        mark(root, (x, y), &look)?;
        write(root, &curve.name, (x + 20, y), SMALL, (HPos::Left, VPos::Center), 1.0)?;
    }
    Ok(())
}

/// Ascending places, moved apart to a row's height where the range has room for all, and to equal parts of it otherwise.
fn spread(wanted: &[i32], [low, high]: [i32; 2]) -> Vec<i32> {
    let gap = ROW.min((high - low) / wanted.len().max(1) as i32);
    let mut places = Vec::with_capacity(wanted.len());
    for &y in wanted {
        places.push(places.last().map_or(y.max(low), |last: &i32| y.max(last + gap)));
    }
    let mut limit = high;
    for y in places.iter_mut().rev() {
        *y = (*y).min(limit);
        limit = *y - gap;
    }
    places
}

/// A method's marker; within a ring, where something is added to the method.
fn mark<DB: DrawingBackend>(root: &DrawingArea<DB, Shift>, at: At, look: &Look) -> Result<()> {
    let filled = look.colour.filled();
    let [size, line] = [8, 4];
    let marker = match look.index % 4 {
        0 => Circle::new(at, size, filled).into_dyn(),
        1 => TriangleMarker::new(at, size + 2, filled).into_dyn(),
        2 => Cross::new(at, size, look.colour.stroke_width(line)).into_dyn(),
        _ => Circle::new(at, size, look.colour.stroke_width(line)).into_dyn(),
    };
    root.draw(&marker).map_err(failed)?;
    if look.dashed {
        root.draw(&Circle::new(at, size + 6, look.colour.stroke_width(2))).map_err(failed)?;
    }
    Ok(())
}

/// Bars from left to right, each with its name before and its value after it.
fn draw_bars<DB: DrawingBackend>(root: &DrawingArea<DB, Shift>, title: &str, what: &str, bars: &[Bar]) -> Result<()> {
    write_titles(root, what, title)?;
    let longest = bars.iter().map(|b| b.name.chars().count()).max().unwrap_or(0);
    let left = (LETTER * longest.min(100) as i32 + 30).min(NAMES);
    let highest = bars.iter().map(|b| b.value).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    for (n, bar) in bars.iter().enumerate() {
        let Look { colour, dashed, .. } = look_of(&bar.method, bar.nth);
        let top = TOP + BAR * n as i32;
        let [middle, bottom] = [top + BAR / 2 - 4, top + BAR - 10];
        let length = (bar.value / highest).clamp(0.0, 1.0) * f64::from(WIDTH as i32 - left - 200);
        let right = left + length.round() as i32;
        let style = if dashed { colour.mix(0.55).filled() } else { colour.filled() };
        root.draw(&Rectangle::new([(left, top), (right, bottom)], style)).map_err(failed)?;
        write(root, &bar.name, (left - 16, middle), SMALL, (HPos::Right, VPos::Center), 1.0)?;
        write(root, &number(bar.value), (right + 14, middle), SMALL, (HPos::Left, VPos::Center), 1.0)?;
    }
    Ok(())
}

/// Short and without noise: 0.25, 12.5, 1200.
fn number(x: f64) -> String {
    let digits = if x == 0.0 { 0 } else { (2 - x.abs().log10().floor() as i32).clamp(0, 6) as usize };
    let text = format!("{x:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn side_by_side(pictures: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    let decoded: Vec<(&str, image::RgbImage)> = pictures
        .iter()
        .map(|(name, png)| {
            let Picture { pixels, size, .. } = decode(png, &Room::default(), &|e| failed(e))?;
            let [height, width] = size.map(|n| n as u32);
            let image =
                image::RgbImage::from_raw(width, height, pixels).ok_or_else(|| failed("picture of another size"))?;
            // By a whole factor: an enlarged sample grid loses nothing.
            let factor = image.width().div_ceil(WIDEST[0]).max(image.height().div_ceil(WIDEST[1]));
            let [width, height] = [image.width(), image.height()].map(|n| (n / factor).max(1));
            Ok((name.as_str(), image::imageops::thumbnail(&image, width, height)))
        })
        .collect::<Result<_>>()?;
    let (width, height) = decoded.iter().fold((0, 0), |(w, h), (_, i)| (w.max(i.width()), h.max(i.height())));
    let rows = decoded.len().div_ceil(COLUMNS);
    // Rows of equal length, as far as that goes.
    let columns = decoded.len().div_ceil(rows.max(1));
    let pitch = (width + 8, height + LABEL);
    let pixels = columns * pitch.0 as usize * rows * pitch.1 as usize;
    if pixels > CANVAS {
        return Err(failed(format!("{} pictures have {pixels} pixels together", decoded.len())));
    }
    let size = (columns as u32 * pitch.0, rows as u32 * pitch.1);
    let corner = |n: usize| ((n % columns) as u32 * pitch.0, (n / columns) as u32 * pitch.1);
    let mut buffer = vec![0; 3 * pixels];
    {
        let root = BitMapBackend::with_buffer(&mut buffer, size).into_drawing_area();
        root.fill(&WHITE).map_err(failed)?;
        for (n, (name, _)) in decoded.iter().enumerate() {
            let (x, y) = corner(n);
            root.draw(&Text::new((*name).to_owned(), (x as i32 + 4, y as i32 + 5), ("sans-serif", 18)))
                .map_err(failed)?;
        }
        root.present().map_err(failed)?;
    }
    let mut canvas =
        image::RgbImage::from_raw(size.0, size.1, buffer).ok_or_else(|| failed("buffer of another size"))?;
    for (n, (_, picture)) in decoded.iter().enumerate() {
        let (x, y) = corner(n);
        image::imageops::replace(&mut canvas, picture, x.into(), (y + LABEL).into());
    }
    encode(canvas.into_raw(), size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_move_apart_and_stay_inside() {
        assert_eq!(spread(&[100, 300], [0, 500]), [100, 300]);
        assert_eq!(spread(&[100, 110, 480, 490], [0, 500]), [100, 146, 454, 500]);
        // More than there is room for.
        let many = spread(&[50; 20], [0, 400]);
        assert!(many.windows(2).all(|pair| pair[0] + 20 <= pair[1]) && many[0] >= 0 && many[19] <= 400, "{many:?}");
        assert!(spread(&[], [0, 10]).is_empty());
    }
}
