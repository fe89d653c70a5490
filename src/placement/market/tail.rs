//! The three tails of distributions that the policy asks for, in closed form.

/// Density of the standard normal distribution.
fn density(z: f64) -> f64 {
    const INVERSE_ROOT_TWO_PI: f64 = 0.398_942_280_401_432_7;
    INVERSE_ROOT_TWO_PI * (-0.5 * z * z).exp()
}

/// `P(Normal(0, 1) >= z)`, within 1e-7: formula 26.2.17 of Abramowitz and Stegun, Handbook of Mathematical Functions.
pub(super) fn normal(z: f64) -> f64 {
    const B: [f64; 5] = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let series = B.iter().rev().fold(0.0, |sum, b| (sum + b) * t);
    let upper = density(z) * series;
    if z < 0.0 { 1.0 - upper } else { upper }
}

/// `P(Normal(mean, variance) >= level)`; without variance, whether the mean reaches the level.
pub(super) fn normal_at_least(mean: f64, variance: f64, level: f64) -> f64 {
    if variance > 0.0 {
        normal((level - mean) / variance.sqrt())
    } else if mean >= level {
        1.0
    } else {
        0.0
    }
}

/// How far a standard normal variable lies above `z` on average: `density(z) - z P(Normal >= z)`.
pub(super) fn normal_loss(z: f64) -> f64 {
    (density(z) - z * normal(z)).max(0.0)
}

/// `P(Poisson(mean) >= count)`. Exact for small counts; else by the cube root of the chi-squared variable that has
/// the same tail, which is nearly normal (Wilson and Hilferty, 1931), within 0.002.
pub(super) fn poisson_at_least(mean: f64, count: u64) -> f64 {
    const EXACT: u64 = 8;
    if count == 0 {
        return 1.0;
    }
    if count <= EXACT {
        let mut term = (-mean).exp();
        let mut below = term;
        for number in 1..count {
            term *= mean / number as f64;
            below += term;
        }
        return (1.0 - below).max(0.0);
    }
    let count = count as f64;
    let spread = 1.0 / (9.0 * count);
    normal(-((mean / count).cbrt() - (1.0 - spread)) / spread.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_have_their_known_values() {
        let near = |a: f64, b: f64, within: f64| assert!((a - b).abs() < within, "{a} is not {b}");
        near(normal(0.0), 0.5, 1e-7);
        near(normal(1.96), 0.024_997_9, 1e-6);
        near(normal(-1.0), 0.841_344_7, 1e-6);
        near(normal_loss(0.0), 0.398_942_3, 1e-6);
        near(normal_loss(1.0), 0.083_315_5, 1e-6);
        near(poisson_at_least(2.0, 3), 0.323_323_6, 1e-6);
        near(normal_at_least(2.0, 0.0, 2.0), 1.0, 1e-12);
        // summed term by term
        for (mean, count) in [(10.0, 9), (10.0, 15), (40.0, 30), (100.0, 120), (5.0, 20)] {
            let mut term = f64::exp(-mean);
            let mut below = 0.0;
            for number in 0..count {
                below += term;
                term *= mean / (number + 1) as f64;
            }
            near(poisson_at_least(mean, count), 1.0 - below, 2e-3);
        }
    }
}
