//! What figures show, and how methods look in them. Colours are Okabe and Ito's, which colour-blind readers tell apart; markers, dashes
//! and rings do it without colour.

use plotters::style::RGBColor;

use super::axis::Axis;

/// What a figure shows.
#[derive(Clone, Debug)]
pub enum Plot {
    /// Curves.
    Lines(Chart),
    /// Bars.
    #[allow(missing_docs)]
    Bars { title: String, what: String, bars: Vec<Bar> },
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
    /// Name beside its end.
    pub name: String,
    /// Which series of its method it is, from 0: the later, the lighter.
    pub nth: usize,
    /// Whether it is the second of two of one method, drawn dotted and without a name.
    pub is_second: bool,
    /// x, y, and the ends of the band there.
    pub points: Vec<[f64; 4]>,
}

/// A bar.
#[derive(Clone, Debug)]
pub struct Bar {
    /// Method, which gives it its look.
    pub method: String,
    /// Name beside it.
    pub name: String,
    /// Which series of its method it is, from 0: the later, the lighter.
    pub nth: usize,
    /// Length.
    pub value: f64,
}

/// Largest coordinate: beyond, differences are no numbers any more.
const FARTHEST: f64 = 1e30;
/// Highest over lowest value from which an axis may be logarithmic.
const SPAN: f64 = 8.0;
/// Share of the updates after which a training has settled, and how much wider than the settled one a linear range must be to be cut.
const SETTLED: f64 = 0.1;
const CUT: f64 = 2.0;
/// Points of a curve below which none of them is cut off.
const DENSE: usize = 20;
/// First over last place below which an axis of x begins at 0.
const NEAR: f64 = 0.3;
/// Methods in the order of colours and markers; what is added to one has its look, dashed and its markers within rings.
const METHODS: [(&str, RGBColor); 10] = [
    ("none", RGBColor(0, 0, 0)),
    ("wgan", RGBColor(136, 136, 136)),
    ("sn", RGBColor(86, 180, 233)),
    ("gn", RGBColor(230, 159, 0)),
    ("pgn", RGBColor(0, 114, 178)),
    ("pgn-theory", RGBColor(204, 121, 167)),
    ("gp1", RGBColor(0, 158, 115)),
    ("gp0", RGBColor(213, 94, 0)),
    ("r1", RGBColor(170, 140, 60)),
    ("r1r2", RGBColor(140, 86, 75)),
];

/// How a method is drawn.
pub(super) struct Look {
    pub(super) colour: RGBColor,
    /// Place among all methods, which gives the marker.
    pub(super) index: usize,
    /// Whether something is added to it.
    pub(super) dashed: bool,
}

/// The look of a method's series: half as far from white with each one before it.
pub(super) fn look_of(method: &str, nth: usize) -> Look {
    let look = look(method);
    let RGBColor(r, g, b) = look.colour;
    let [r, g, b] = [r, g, b].map(|part| 255 - ((255 - part) >> nth.min(2)));
    Look { colour: RGBColor(r, g, b), ..look }
}

/// The look of a method.
pub(super) fn look(method: &str) -> Look {
    let base = method.split('+').next().unwrap_or_default();
    let index = METHODS.iter().position(|m| m.0 == base).unwrap_or(0);
    Look { colour: METHODS[index].1, index, dashed: base != method }
}

/// The place of a method among all: that of its colour, with what is added to it after it.
pub fn order(method: &str) -> (usize, bool) {
    let Look { index, dashed, .. } = look(method);
    (index, dashed)
}

/// Whether a figure can show a number.
pub fn drawable(x: f64) -> bool {
    x.abs() <= FARTHEST
}

/// Lowest and highest y of points.
fn ends<'a>(points: impl Iterator<Item = &'a [f64; 4]>) -> [f64; 2] {
    points.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], p| [low.min(p[1]), high.max(p[1])])
}

impl Chart {
    fn points(&self) -> impl Iterator<Item = &[f64; 4]> {
        self.curves.iter().flat_map(|c| &c.points)
    }

    /// The axis of x, from 0 where that is not far from the first point.
    pub(super) fn x_axis(&self) -> Axis {
        let [low, high] = self
            .points()
            .fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], p| [f64::min(low, p[0]), f64::max(high, p[0])]);
        let low = if low > 0.0 && low < NEAR * high { 0.0 } else { low };
        // Ticks are found by additions, which must move.
        Axis { low, high: high.max(low + 1e-9 * low.abs().max(1.0)), log: false }
    }

    /// Whether the axis of y is logarithmic.
    pub fn is_log(&self) -> bool {
        let [low, high] = ends(self.points());
        self.log_y && low >= 1.0 / FARTHEST && high > SPAN * low
    }

    /// Range of y once training has settled, where all of it would flatten that.
    fn settled(&self) -> Option<[f64; 2]> {
        if self.is_log() || self.curves.iter().all(|c| c.points.len() < DENSE) {
            return None;
        }
        let x = self.x_axis();
        let [low, high] = ends(self.points());
        let settled = ends(self.points().filter(|p| p[0] >= x.low + SETTLED * (x.high - x.low)));
        (settled[1] > settled[0] && high - low > CUT * (settled[1] - settled[0])).then_some(settled)
    }

    /// Whether curves begin outside the figure.
    pub fn is_cut(&self) -> bool {
        self.settled().is_some()
    }

    /// The axis of y.
    pub(super) fn y_axis(&self) -> Axis {
        let [mut low, mut high] = self.settled().unwrap_or_else(|| ends(self.points()));
        if self.is_log() {
            let top = self.points().map(|p| p[3]).filter(|top| *top < 1.5 * high).fold(high, f64::max);
            return Axis { low: low / 1.1, high: top * 1.1, log: true };
        }
        // Bands count where they do not flatten everything else.
        let [bottom, top, span] = [low, high, high - low];
        for p in self.points() {
            if p[3] < top + 0.5 * span {
                high = high.max(p[3]);
            }
            if p[2] > bottom - 0.5 * span {
                low = low.min(p[2]);
            }
        }
        let margin = 0.04 * (high - low).max(1e-9 * high.abs()).max(f64::MIN_POSITIVE);
        Axis { low: low - margin, high: high + margin, log: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(values: &[f64]) -> Chart {
        let points = (1..).zip(values).map(|(x, y)| [f64::from(x), *y, *y, *y]).collect();
        let curves = vec![Curve { method: "gn".into(), name: "gn".into(), nth: 0, is_second: false, points }];
        Chart { title: String::new(), x: String::new(), y: String::new(), log_y: true, curves }
    }

    #[test]
    fn what_comes_before_training_has_settled_is_cut_off_and_few_points_are_not() {
        let mut values = vec![-50.0, 1.0];
        values.extend((0..40).map(|i| 1.0 + f64::from(i % 5)));
        let cut = chart(&values);
        assert!(cut.is_cut() && !cut.is_log());
        assert!((0.5..1.0).contains(&cut.y_axis().low), "{:?}", cut.y_axis());
        let few = chart(&[-50.0, 1.0, 2.0, 1.0]);
        assert!(!few.is_cut() && few.y_axis().low < -50.0);
        // A logarithmic axis has room for all.
        values[0] = 400.0;
        let log = chart(&values);
        assert!(log.is_log() && !log.is_cut() && log.y_axis().high > 400.0);
    }
}
