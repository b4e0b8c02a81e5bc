//! Figures: SVG for pages and print, PNG for everything else. Colours are Okabe and Ito's, which colour-blind readers tell apart;
//! markers and dashes do it without colour.

use std::io::Cursor;
use std::sync::Once;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use super::html::is_legal;
use crate::data::source::{Picture, Room, decode};
use crate::error::{Error, Result};

/// What a figure shows.
#[derive(Clone, Debug)]
pub enum Plot {
    /// Curves.
    Lines(Chart),
    /// Bars.
    #[allow(missing_docs)]
    Bars { title: String, y: String, bars: Vec<Bar> },
    /// Pictures side by side, each with its name.
    Pictures(Vec<(String, Vec<u8>)>),
}

/// Curves over common axes.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Chart {
    pub title: String,
    pub x: String,
    pub y: String,
    /// Whether the y axis is logarithmic where the highest value is more than [`SPAN`] times the lowest.
    pub log_y: bool,
    pub curves: Vec<Curve>,
}

/// A curve with its band.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Method, which gives it its look.
    pub method: String,
    /// Name in the legend.
    pub name: String,
    /// x, y, and the ends of the band there.
    pub points: Vec<[f64; 4]>,
}

/// A bar.
#[derive(Clone, Debug)]
pub struct Bar {
    /// Method, which gives it its look.
    pub method: String,
    /// Name below it.
    pub name: String,
    /// Height.
    pub value: f64,
}

/// Width and height of a figure in pixels.
const SIZE: (u32, u32) = (960, 480);
/// Width of the legend.
const LEGEND: u32 = 190;
/// Height of a picture's name.
const LABEL: u32 = 28;
/// Most pixels of a picture's width and height.
const WIDEST: [u32; 2] = [280, 4096];
/// Most pixels of pictures together.
const CANVAS: usize = 1 << 28;
/// Largest coordinate: beyond, differences are no numbers any more.
const FARTHEST: f64 = 1e30;
/// Pictures in a row.
const COLUMNS: usize = 4;
/// Highest over lowest value from which an axis may be logarithmic.
const SPAN: f64 = 30.0;
/// Markers on a curve.
const MARKERS: usize = 8;
/// Methods in the order of colours and markers; `+cr` has its method's, dashed.
const METHODS: [(&str, RGBColor); 8] = [
    ("none", RGBColor(0, 0, 0)),
    ("wgan", RGBColor(136, 136, 136)),
    ("sn", RGBColor(86, 180, 233)),
    ("gn", RGBColor(230, 159, 0)),
    ("pgn", RGBColor(0, 114, 178)),
    ("pgn-theory", RGBColor(204, 121, 167)),
    ("gp1", RGBColor(0, 158, 115)),
    ("gp0", RGBColor(213, 94, 0)),
];

/// Whether a figure can show a number.
pub fn drawable(x: f64) -> bool {
    x.abs() <= FARTHEST
}

/// The place of a method among all: that of its colour, with `+cr` after it.
pub fn order(method: &str) -> (usize, bool) {
    let (_, index, consistency) = look(method);
    (index, consistency)
}

/// How a method is drawn: colour, marker, dashed.
fn look(method: &str) -> (RGBColor, usize, bool) {
    let base = method.trim_end_matches("+cr");
    let index = METHODS.iter().position(|m| m.0 == base).unwrap_or(0);
    (METHODS[index].1, index, base != method)
}

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
    draw(&SVGBackend::with_string(&mut out, SIZE).into_drawing_area(), plot)?;
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
    let mut buffer = vec![0; (SIZE.0 * SIZE.1 * 3) as usize];
    draw(&BitMapBackend::with_buffer(&mut buffer, SIZE).into_drawing_area(), plot)?;
    encode(buffer, SIZE)
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
        Plot::Lines(chart) => lines(root, chart)?,
        Plot::Bars { title, y, bars } => draw_bars(root, title, y, bars)?,
        Plot::Pictures(_) => {}
    }
    root.present().map_err(failed)
}

fn lines<DB: DrawingBackend>(root: &DrawingArea<DB, Shift>, chart: &Chart) -> Result<()> {
    let points = || chart.curves.iter().flat_map(|c| &c.points);
    let (mut left, mut right) = (f64::INFINITY, f64::NEG_INFINITY);
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for [x, y, ..] in points() {
        (left, right) = (left.min(*x), right.max(*x));
        (low, high) = (low.min(*y), high.max(*y));
    }
    let log = chart.log_y && low >= 1.0 / FARTHEST && high > SPAN * low;
    // Bands count where they do not flatten everything else.
    for [.., bottom, top] in points() {
        if *top < 1.5 * high.abs() {
            high = high.max(*top);
        }
        if !log && *bottom > low - 0.5 * (high - low) {
            low = low.min(*bottom);
        }
    }
    // Ticks are found by additions, which must move.
    right = right.max(left + 1e-9 * left.abs().max(1.0));
    let margin = 0.04 * (high - low).max(1e-9 * high.abs()).max(f64::MIN_POSITIVE);
    let mut builder = ChartBuilder::on(root);
    builder
        .caption(&chart.title, ("sans-serif", 18))
        .margin(12)
        .margin_right(LEGEND)
        .x_label_area_size(44)
        .y_label_area_size(72);
    if log {
        let range = (low / 1.1..high * 1.1).log_scale();
        curves(root, builder.build_cartesian_2d(left..right, range).map_err(failed)?, chart)
    } else {
        let range = low - margin..high + margin;
        curves(root, builder.build_cartesian_2d(left..right, range).map_err(failed)?, chart)
    }
}

fn curves<DB: DrawingBackend, Y>(
    root: &DrawingArea<DB, Shift>,
    mut context: ChartContext<DB, Cartesian2d<plotters::coord::types::RangedCoordf64, Y>>,
    chart: &Chart,
) -> Result<()>
where
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    context
        .configure_mesh()
        .x_desc(&chart.x)
        .y_desc(&chart.y)
        .max_light_lines(2)
        .axis_desc_style(("sans-serif", 15))
        .label_style(("sans-serif", 13))
        .x_label_formatter(&|x| number(*x))
        .y_label_formatter(&|y| number(*y))
        .draw()
        .map_err(failed)?;
    let range = context.y_range();
    for curve in &chart.curves {
        let (colour, ..) = look(&curve.method);
        let inside = |y: f64| y.clamp(range.start, range.end);
        let above = curve.points.iter().map(|p| (p[0], inside(p[3])));
        let below = curve.points.iter().rev().map(|p| (p[0], inside(p[2])));
        if curve.points.iter().any(|p| p[3] > p[2]) {
            let band = Polygon::new(above.chain(below).collect::<Vec<_>>(), colour.mix(0.13).filled());
            context.draw_series([band]).map_err(failed)?;
        }
    }
    for curve in &chart.curves {
        let (colour, mark, dashed) = look(&curve.method);
        let line: Vec<(f64, f64)> = curve.points.iter().map(|p| (p[0], p[1])).collect();
        let style = colour.stroke_width(2);
        if dashed {
            context.draw_series(DashedLineSeries::new(line.iter().copied(), 6, 4, style)).map_err(failed)?;
        } else {
            context.draw_series(LineSeries::new(line.iter().copied(), style)).map_err(failed)?;
        }
        let every = line.len().div_ceil(MARKERS);
        for &at in line.iter().rev().step_by(every) {
            context.draw_series([marker(at, mark, colour)]).map_err(failed)?;
        }
    }
    for (n, curve) in chart.curves.iter().enumerate() {
        let (colour, mark, dashed) = look(&curve.method);
        let (x, y) = (SIZE.0 as i32 - LEGEND as i32 + 12, 50 + 24 * n as i32);
        let style = colour.stroke_width(2);
        let ends: &[(i32, i32)] = if dashed { &[(0, 7), (11, 21), (25, 32)] } else { &[(0, 32)] };
        for (from, to) in ends {
            root.draw(&PathElement::new([(x + from, y), (x + to, y)], style)).map_err(failed)?;
        }
        root.draw(&marker((x + 16, y), mark, colour)).map_err(failed)?;
        root.draw(&Text::new(curve.name.clone(), (x + 40, y - 7), ("sans-serif", 14))).map_err(failed)?;
    }
    Ok(())
}

/// The marker of a method's index, around a point of any coordinate system.
fn marker<C: 'static + Clone, DB: DrawingBackend>(
    at: C,
    index: usize,
    colour: RGBColor,
) -> plotters::element::DynElement<'static, DB, C> {
    use plotters::element::IntoDynElement;
    let filled = colour.filled();
    match index % 4 {
        0 => Circle::new(at, 4, filled).into_dyn(),
        1 => TriangleMarker::new(at, 6, filled).into_dyn(),
        2 => Cross::new(at, 4, colour.stroke_width(2)).into_dyn(),
        _ => Circle::new(at, 4, colour.stroke_width(2)).into_dyn(),
    }
}

fn draw_bars<DB: DrawingBackend>(root: &DrawingArea<DB, Shift>, title: &str, y: &str, bars: &[Bar]) -> Result<()> {
    let highest = bars.iter().map(|b| b.value).fold(0.0, f64::max);
    let mut context = ChartBuilder::on(root)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d(0.0..bars.len() as f64, 0.0..1.1 * highest)
        .map_err(failed)?;
    context
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .y_desc(y)
        .max_light_lines(2)
        .axis_desc_style(("sans-serif", 15))
        .label_style(("sans-serif", 13))
        .y_label_formatter(&|y| number(*y))
        .draw()
        .map_err(failed)?;
    for (n, bar) in bars.iter().enumerate() {
        let (colour, _, dashed) = look(&bar.method);
        let at = n as f64;
        let style = if dashed { colour.mix(0.55).filled() } else { colour.filled() };
        context.draw_series([Rectangle::new([(at + 0.15, 0.0), (at + 0.85, bar.value)], style)]).map_err(failed)?;
        let (x, bottom) = context.backend_coord(&(at + 0.2, 0.0));
        root.draw(&Text::new(bar.name.clone(), (x, bottom + 8), ("sans-serif", 14))).map_err(failed)?;
        let (x, top) = context.backend_coord(&(at + 0.2, bar.value));
        root.draw(&Text::new(number(bar.value), (x, top - 18), ("sans-serif", 13))).map_err(failed)?;
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
    let (columns, rows) = (COLUMNS.min(decoded.len()), decoded.len().div_ceil(COLUMNS));
    let pitch = (width + 8, height + LABEL);
    let pixels = columns * pitch.0 as usize * rows * pitch.1 as usize;
    if pixels > CANVAS {
        return Err(failed(format!("{} pictures have {pixels} pixels together", decoded.len())));
    }
    let size = (columns as u32 * pitch.0, rows as u32 * pitch.1);
    let corner = |n: usize| ((n % COLUMNS) as u32 * pitch.0, (n / COLUMNS) as u32 * pitch.1);
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
