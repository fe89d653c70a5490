//! Machines and pods from CSV files with the columns of Alibaba's GPU trace (cluster-trace-gpu-v2023), packed with
//! gzip or not. Other columns are ignored; the columns of card memory are kerf's own.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail, ensure};
use csv::StringRecord;
use flate2::read::GzDecoder;
use kerf::placement::shape::{self, Cards, Shape};
use kerf::replay::{CardKind, Machine, Pod, Stay};
use kerf::units::{Mib, Milli, Share};

/// In bytes, more than any trace has: a bound on what is read.
const MAX_BYTES: u64 = 2 << 30;
/// More cards than any machine has.
const MAX_CARDS: usize = 64;

/// `sn` (or `node`), `cpu_milli`, `memory_mib` (or `mem_mib`), `gpu`, `model`; also `gpu_memory_mib`.
pub fn machines(path: &Path) -> anyhow::Result<Vec<Machine>> {
    let mut machines = Vec::new();
    for row in Table::open(path)?.rows()? {
        let row = row?;
        let count: usize = row.number(&["gpu"], 0..=MAX_CARDS as u64)?;
        let card = CardKind {
            model: row.text(&["model"])?.into(),
            memory: Mib(row.optional(&["gpu_memory_mib"], 0..=1 << 30)?.unwrap_or_default()),
        };
        machines.push(Machine {
            name: row.name(&["sn", "node"])?,
            cpu: row.number(&["cpu_milli"], 0..=1 << 40)?,
            memory: Mib(row.number(&["memory_mib", "mem_mib"], 0..=1 << 40)?),
            cards: vec![card; count],
        });
    }
    ensure!(machines.iter().any(|machine| !machine.cards.is_empty()), "{}: no machine has a GPU", path.display());
    Ok(machines)
}

/// `name` (or `pod`), `cpu_milli`, `memory_mib` (or `mem_mib`), `num_gpu`, `gpu_milli`; also `gpu_spec`,
/// `gpu_memory_mib`, `creation_time`, `deletion_time`, and `count` for how many such pods there are; `most` in all.
pub fn pods(path: &Path, most: u64) -> anyhow::Result<Vec<(Pod, u64)>> {
    let (mut pods, mut all) = (Vec::new(), 0_u64);
    let table = Table::open(path)?;
    let named = table.has(&["name", "pod"]);
    for row in table.rows()? {
        let row = row?;
        let count: u64 = row.optional(&["count"], 1..=most.min(1 << 40))?.unwrap_or(1);
        all = all.saturating_add(count);
        ensure!(all <= most, "{}: more than {most} pods", row.at(&["count"]));
        let cards: u32 = row.number(&["num_gpu"], 0..=MAX_CARDS as u64)?;
        let milli: u32 = row.number(&["gpu_milli"], 0..=u64::MAX)?;
        let memory = Mib(row.optional(&["gpu_memory_mib"], 0..=1 << 30)?.unwrap_or_default());
        let cards = match (cards, milli) {
            (0, _) => Cards::None,
            (_, 0) => bail!("{}: asks for nothing of a GPU", row.at(&["gpu_milli"])),
            (1, milli @ 1..1000) => Cards::Share(Share { compute: Milli(milli), memory }),
            (_, 1..1000) => bail!("{}: a part of each of several GPUs is not known here", row.at(&["gpu_milli"])),
            (cards, _) => Cards::Whole(cards),
        };
        let spec = row.cell(&["gpu_spec"]).unwrap_or_default();
        let models = match cards {
            Cards::None => Vec::new(),
            _ => shape::models(spec),
        };
        let from = row.optional(&["creation_time"], 0..=1 << 50)?;
        let until = row.optional(&["deletion_time"], 0..=1 << 50)?;
        let shape = Shape {
            cpu: row.number(&["cpu_milli"], 0..=1 << 40)?,
            memory: Mib(row.number(&["memory_mib", "mem_mib"], 0..=1 << 40)?),
            cards,
            models,
        };
        let name = if named { row.name(&["name", "pod"])? } else { "".into() };
        pods.push((Pod { name, shape, stay: from.map(|from| Stay { from, until }) }, count));
    }
    ensure!(!pods.is_empty(), "{}: no pod", path.display());
    Ok(pods)
}

/// A file and its header.
struct Table {
    file: String,
    head: Arc<StringRecord>,
    reader: csv::Reader<Box<dyn Read>>,
}

struct Row {
    file: String,
    line: u64,
    head: Arc<StringRecord>,
    record: StringRecord,
}

impl Table {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let file = path.display().to_string();
        let opened = File::open(path).with_context(|| file.clone())?;
        let packed = path.extension().is_some_and(|end| end == "gz");
        let input: Box<dyn Read> = if packed {
            Box::new(GzDecoder::new(opened).take(MAX_BYTES))
        } else {
            Box::new(opened.take(MAX_BYTES))
        };
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(input);
        let head = reader.headers().with_context(|| format!("{file}: line 1"))?.clone();
        Ok(Self { file, head: Arc::new(head), reader })
    }

    fn has(&self, names: &[&str]) -> bool {
        self.head.iter().any(|head| names.contains(&head))
    }

    fn rows(self) -> anyhow::Result<impl Iterator<Item = anyhow::Result<Row>>> {
        let Self { file, head, reader } = self;
        let columns = head.len();
        Ok(reader.into_records().map(move |record| {
            let record = record.map_err(|error| {
                let line = error.position().map_or(0, csv::Position::line);
                anyhow!("{file}: line {line}: {error}")
            })?;
            let line = record.position().map_or(0, csv::Position::line);
            ensure!(
                record.len() == columns,
                "{file}: line {line}: {} columns, but the first line has {columns}",
                record.len()
            );
            Ok(Row { file: file.clone(), line, head: head.clone(), record })
        }))
    }
}

impl Row {
    fn at(&self, names: &[&str]) -> String {
        let found = self.head.iter().find(|head| names.contains(head)).or(names.first().copied());
        format!("{}: line {}, column {}", self.file, self.line, found.unwrap_or_default())
    }

    fn text(&self, names: &[&str]) -> anyhow::Result<&str> {
        self.cell(names).with_context(|| format!("{}: there is no such column", self.at(names)))
    }

    fn cell(&self, names: &[&str]) -> Option<&str> {
        let column = self.head.iter().position(|head| names.contains(&head))?;
        self.record.get(column).map(str::trim)
    }

    fn name(&self, names: &[&str]) -> anyhow::Result<Arc<str>> {
        let text = self.text(names)?;
        ensure!(!text.is_empty(), "{}: empty", self.at(names));
        Ok(text.into())
    }

    fn number<T: TryFrom<u64>>(&self, names: &[&str], range: std::ops::RangeInclusive<u64>) -> anyhow::Result<T> {
        let text = self.text(names)?;
        let value = u64::from_str(text).ok().or_else(|| whole(text)).filter(|value| range.contains(value));
        value.and_then(|value| T::try_from(value).ok()).with_context(|| {
            format!("{}: {text:?} is not a whole number from {} to {}", self.at(names), range.start(), range.end())
        })
    }

    /// `None` where the column does not exist or is empty.
    fn optional(&self, names: &[&str], range: std::ops::RangeInclusive<u64>) -> anyhow::Result<Option<u64>> {
        match self.cell(names) {
            Some(text) if !text.is_empty() => self.number(names, range).map(Some),
            _ => Ok(None),
        }
    }
}

/// Parses a whole number, also written as a decimal, as `12902960.0` in the trace's times.
fn whole(text: &str) -> Option<u64> {
    let (number, zeros) = text.split_once('.')?;
    zeros.bytes().all(|digit| digit == b'0').then(|| number.parse().ok()).flatten()
}
