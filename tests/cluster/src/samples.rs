//! Reading Prometheus' text format, as far as tests and benchmarks need it.

/// Sum of a counter over all label sets that contain each of `labels`, such as `verb="POST"`.
pub fn sum(text: &str, name: &str, labels: &[&str]) -> f64 {
    matching(text, name, labels).map(|(_, value)| value).sum()
}

/// A quantile of a histogram, interpolated within its bucket as PromQL's `histogram_quantile` does; seconds in,
/// seconds out. `NaN` where nothing was observed.
pub fn quantile(text: &str, name: &str, labels: &[&str], part: f64) -> f64 {
    let mut buckets: Vec<(f64, f64)> = Vec::new();
    for (set, value) in matching(text, &format!("{name}_bucket"), labels) {
        // other labels, such as `profile`, end in the same letters
        let mut labels = set.split(',').filter_map(|label| label.strip_prefix("le=\"")?.strip_suffix('"'));
        let Some(bound) = labels.next() else { continue };
        let bound = bound.parse().unwrap_or(f64::INFINITY);
        match buckets.iter_mut().find(|bucket| bucket.0 == bound) {
            Some(bucket) => bucket.1 += value,
            None => buckets.push((bound, value)),
        }
    }
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let wanted = buckets.last().map_or(0.0, |bucket| bucket.1) * part;
    let mut below = (0.0, 0.0);
    for bucket in &buckets {
        if bucket.1 >= wanted && bucket.1 > below.1 {
            if bucket.0.is_infinite() {
                return below.0;
            }
            return below.0 + (bucket.0 - below.0) * (wanted - below.1) / (bucket.1 - below.1);
        }
        below = *bucket;
    }
    f64::NAN
}

fn matching<'a>(text: &'a str, name: &'a str, labels: &'a [&str]) -> impl Iterator<Item = (&'a str, f64)> {
    text.lines().filter_map(move |line| {
        let rest = line.strip_prefix(name)?;
        let (set, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once("} ")?,
            None => ("", rest.strip_prefix(' ')?),
        };
        labels.iter().all(|label| set.contains(label)).then(|| Some((set, value.trim().parse().ok()?)))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP wait_seconds How long.
wait_seconds_bucket{profile=\"x\",result=\"ok\",le=\"1\"} 10
wait_seconds_bucket{profile=\"x\",result=\"ok\",le=\"2\"} 30
wait_seconds_bucket{profile=\"x\",result=\"ok\",le=\"+Inf\"} 40
wait_seconds_bucket{result=\"bad\",le=\"1\"} 99
calls_total{verb=\"GET\",code=\"200\"} 3
calls_total{verb=\"GET\",code=\"404\"} 4
calls_total_other{verb=\"GET\"} 100
bare 7
";

    #[test]
    fn counters_are_summed_over_what_is_not_asked_for() {
        assert_eq!(sum(TEXT, "calls_total", &["verb=\"GET\""]), 7.0);
        assert_eq!(sum(TEXT, "calls_total", &["verb=\"GET\"", "code=\"404\""]), 4.0);
        assert_eq!(sum(TEXT, "bare", &[]), 7.0);
        assert_eq!(sum(TEXT, "missing", &[]), 0.0);
    }

    #[test]
    fn quantiles_lie_within_their_buckets() {
        let ok = ["result=\"ok\""];
        assert_eq!(quantile(TEXT, "wait_seconds", &ok, 0.25), 1.0);
        assert_eq!(quantile(TEXT, "wait_seconds", &ok, 0.5), 1.5);
        // the last bucket has no upper end: PromQL gives its lower one
        assert_eq!(quantile(TEXT, "wait_seconds", &ok, 0.99), 2.0);
        assert!(quantile(TEXT, "missing", &[], 0.5).is_nan());
    }
}
