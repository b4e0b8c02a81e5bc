//! Many tests at once.

/// Holm's adjusted p-values (Holm 1979), in the order given: tests whose adjusted p is below a level are all right together with
/// probability 1 − level, whatever they have to do with each other.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut adjusted = vec![0.0; p.len()];
    let mut least = 0.0;
    for (done, i) in order.into_iter().enumerate() {
        least = f64::max(least, (p.len() - done) as f64 * p[i]).min(1.0);
        adjusted[i] = least;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::super::close;
    use super::*;

    #[test]
    fn agrees_with_statsmodels() {
        // multipletests(method="holm")
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.005, 0.5, 0.9]);
        adjusted.iter().zip([0.05, 0.12, 0.12, 0.03, 1.0, 1.0]).for_each(|(a, b)| close(*a, b));
        assert!(holm(&[]).is_empty());
    }
}
