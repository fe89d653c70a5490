//! Measurements: a table for reading, and every single value for analysis.

use std::fmt::Write as _;
use std::time::Duration;

/// Whether this runs under `cargo test`, which only checks that it runs: `cargo bench` passes `--bench`.
pub fn only_a_test() -> bool {
    !std::env::args().any(|arg| arg == "--bench")
}

pub struct Figures {
    name: &'static str,
    table: String,
    raw: String,
}

impl Figures {
    pub fn new(name: &'static str) -> Self {
        let table =
            format!("{:<52} {:>9} {:>9} {:>9} {:>9} {:>7}\n", "", "mean ms", "p50 ms", "p99 ms", "max ms", "runs");
        Self { name, table, raw: "case,unit,value\n".into() }
    }

    /// One case, measured many times.
    pub fn series(&mut self, case: &str, mut series: Vec<Duration>) {
        for time in &series {
            let _ = writeln!(self.raw, "\"{case}\",us,{:.1}", time.as_secs_f64() * 1e6);
        }
        series.sort_unstable();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let at = |part: f64| series.get(((series.len() - 1) as f64 * part) as usize).copied().map_or(0.0, ms);
        let mean = ms(series.iter().sum::<Duration>()) / series.len() as f64;
        let _ = writeln!(
            self.table,
            "{case:<52} {mean:>9.3} {:>9.3} {:>9.3} {:>9.3} {:>7}",
            at(0.5),
            at(0.99),
            at(1.0),
            series.len()
        );
    }

    /// One value of one case.
    pub fn value(&mut self, case: &str, unit: &str, value: f64) {
        let _ = writeln!(self.raw, "\"{case}\",{unit},{value:.2}");
        let _ = writeln!(self.table, "{case:<52} {value:>9.2} {unit}");
    }

    /// Prints the table; writes the raw values below the folder `KERF_BENCH_RAW`, unless this is only a test.
    pub fn finish(self, test: bool) -> anyhow::Result<()> {
        publish(self.name, &self.table, &self.raw, test)
    }
}

/// Prints a table; writes it and the raw values below the folder `KERF_BENCH_RAW`, unless this is only a test.
pub fn publish(name: &str, table: &str, raw: &str, test: bool) -> anyhow::Result<()> {
    if test {
        println!("{name}: ok");
        return Ok(());
    }
    println!("{table}");
    if let Some(folder) = std::env::var_os("KERF_BENCH_RAW") {
        let folder = std::path::Path::new(&folder);
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join(format!("{name}.csv")), raw)?;
        std::fs::write(folder.join(format!("{name}.txt")), table)?;
    }
    Ok(())
}
