//! Axes of figures: a range, linear or logarithmic, with round ticks.

/// An axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Axis {
    /// Lower end.
    pub(super) low: f64,
    /// Upper end, above the lower one.
    pub(super) high: f64,
    /// Whether equal lengths are equal factors; both ends are positive then.
    pub(super) log: bool,
}

/// What round numbers begin with.
const ROUND: [f64; 3] = [1.0, 2.0, 5.0];

impl Axis {
    /// Where a value lies, from 0 to 1; what is beyond an end is held there.
    pub(super) fn place(&self, value: f64) -> f64 {
        let share = if self.log {
            (value.max(f64::MIN_POSITIVE) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        share.clamp(0.0, 1.0)
    }

    /// Round values inside the range, at most one more than so many; none where numbers do not resolve it.
    pub(super) fn ticks(&self, most: usize) -> Vec<f64> {
        if self.log { self.powers(most) } else { self.multiples(most) }
    }

    fn multiples(&self, most: usize) -> Vec<f64> {
        let least = (self.high - self.low) / most as f64;
        let power = 10f64.powi(least.log10().floor() as i32);
        let Some(step) = ROUND.iter().chain(&[10.0]).map(|r| r * power).find(|step| *step >= least) else {
            return Vec::new();
        };
        let (first, last) = ((self.low / step).ceil(), (self.high / step).floor());
        let ticks = (0..=most).map(|i| first + i as f64).take_while(|n| *n <= last);
        ticks.map(|n| if power < 1.0 { n * (step / power) / power.recip() } else { n * step }).collect()
    }

    fn powers(&self, most: usize) -> Vec<f64> {
        let exponents = || self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let inside = |v: &f64| (self.low..=self.high).contains(v);
        let of = |leads: &'static [f64]| {
            exponents().flat_map(|e| leads.iter().map(move |lead| lead * 10f64.powi(e))).filter(inside)
        };
        let all: Vec<f64> = of(&ROUND).collect();
        if all.len() <= most {
            return all;
        }
        let tens: Vec<f64> = of(&ROUND[..1]).collect();
        let every = tens.len().div_ceil(most).max(1);
        tens.into_iter().step_by(every).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let of = |low, high, log| Axis { low, high, log };
        assert_eq!(of(0.0, 9000.0, false).ticks(6), [0.0, 2000.0, 4000.0, 6000.0, 8000.0]);
        assert_eq!(of(-0.83, 1.17, false).ticks(6), [-0.5, 0.0, 0.5, 1.0]);
        assert_eq!(of(0.0, 0.0126, false).ticks(4), [0.0, 0.005, 0.01]);
        assert_eq!(of(28.0, 640.0, true).ticks(6), [50.0, 100.0, 200.0, 500.0]);
        assert_eq!(of(0.5, 2e6, true).ticks(4), [1.0, 100.0, 1e4, 1e6]);
        for (low, high) in [(-1e30, 1e30), (1e29, 1.0001e29), (0.0, f64::MIN_POSITIVE), (-1e-300, 1e-300)] {
            let axis = of(low, high, false);
            assert!(axis.ticks(6).iter().all(|t| t.is_finite() && (low..=high).contains(t)), "{:?}", axis.ticks(6));
        }
    }

    #[test]
    fn places_are_shares_of_the_range() {
        let axis = Axis { low: 10.0, high: 1000.0, log: true };
        assert_eq!([axis.place(10.0), axis.place(1000.0), axis.place(-3.0), axis.place(1e9)], [0.0, 1.0, 0.0, 1.0]);
        assert!((axis.place(100.0) - 0.5).abs() < 1e-15);
        assert_eq!(Axis { low: -1.0, high: 3.0, log: false }.place(0.0), 0.25);
    }
}
