//! A run's folder: what may be done about the run that is there.

use std::path::{Path, PathBuf};

use super::checkpoint::{self, Stored};
use super::lock;
use crate::config::{Cell, Change};
use crate::error::{AtPath, Error, Result};
use crate::files::{Turn, create_folder, write_bytes};
use crate::results::{self, Row};

/// Name of a run's resolved configuration in its folder.
pub const CONFIG: &str = "config.json";
/// Folder of a run's sample grids.
pub const SAMPLES: &str = "samples";

/// What to do about a run that is already there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Existing {
    /// Refuse.
    Refuse,
    /// Go on from its checkpoint.
    Resume,
    /// Start again, over it.
    Overwrite,
}

/// Folder of a cell below the results.
pub fn folder(results: &Path, cell: &Cell) -> PathBuf {
    results.join(cell.group()).join(cell.name())
}

/// Refuses, before any work starts, a cell whose folder holds a run that must not be touched. Gives the cell as it goes on: of a
/// run with other settings, those that `allowed` names are changed, and the cell says so.
///
/// # Errors
/// When there is such a run; the message says which keys differ, or which option decides.
pub fn settle(results: &Path, cell: &Cell, existing: Existing, allowed: &[String]) -> Result<Cell> {
    let folder = folder(results, cell);
    let path = folder.join(CONFIG);
    if !path.is_file() || existing == Existing::Overwrite {
        return Ok(cell.clone());
    }
    if existing == Existing::Refuse {
        return Err(Error::content(
            &path,
            "this cell was run before: `run --resume` goes on with it, --overwrite starts again",
        ));
    }
    let text = std::fs::read_to_string(&path).at("read", &path)?;
    let bad = |e: serde_json::Error| Error::content(&path, e.to_string());
    let old: serde_json::Value = serde_json::from_str(&text).map_err(bad)?;
    let mut differing = differences(&old, &serde_json::to_value(cell).map_err(bad)?);
    let is_allowed = |c: &Change| allowed.contains(&c.key) || cell.changes.iter().any(|known| known.key == c.key);
    if !differing.iter().all(is_allowed) {
        let lines: Vec<String> = differing.iter().map(|c| format!("  {}: {}, now {}", c.key, c.old, c.new)).collect();
        return Err(Error::content(
            &path,
            format!(
                "the run was started with another configuration; --resume needs the same one, --allow KEY goes on with a change of \
                 that key (its rows say so), or --overwrite starts again\n{}",
                lines.join("\n")
            ),
        ));
    }
    let checkpoint = folder.join(checkpoint::FILE);
    if !cell.changes.is_empty() || !checkpoint.is_file() {
        return Ok(cell.clone());
    }
    let mut changes = serde_json::from_str::<Cell>(&text).map_err(bad)?.changes;
    if !differing.is_empty() {
        let step = Stored::open(&checkpoint)?.progress.step;
        if step > cell.train.steps {
            return Err(Error::content(
                &path,
                format!("train.steps: the run has made {step}, more than {}", cell.train.steps),
            ));
        }
        differing.iter_mut().for_each(|c| c.step = step);
        changes.extend(differing);
    }
    Ok(Cell { changes, ..cell.clone() })
}

/// Refuses, before any work starts, to go on with a run that was imported from a file that lacked a part.
///
/// # Errors
/// When it is such a run, or its checkpoint cannot be read.
pub fn refuse_partial(results: &Path, cell: &Cell) -> Result<()> {
    let checkpoint = folder(results, cell).join(checkpoint::FILE);
    if checkpoint.is_file() { Stored::open(&checkpoint)?.progress.refuse_partial(&checkpoint) } else { Ok(()) }
}

/// Where two cells differ, but for their changes.
pub(super) fn differences(old: &serde_json::Value, new: &serde_json::Value) -> Vec<Change> {
    fn walk(path: &str, old: &serde_json::Value, new: &serde_json::Value, out: &mut Vec<Change>) {
        match (old, new) {
            (serde_json::Value::Object(a), serde_json::Value::Object(b)) => {
                let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
                keys.sort();
                keys.dedup();
                for key in keys.into_iter().filter(|&key| key != "changes") {
                    let null = &serde_json::Value::Null;
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    walk(&path, a.get(key).unwrap_or(null), b.get(key).unwrap_or(null), out);
                }
            }
            _ if old != new => {
                out.push(Change { step: 0, key: path.to_owned(), old: old.clone(), new: new.clone() });
            }
            _ => {}
        }
    }
    let mut out = Vec::new();
    walk("", old, new, &mut out);
    out
}

/// A run whose checkpoint is gone is not started again unasked: its rows would be lost.
///
/// # Errors
/// When that is so.
pub(super) fn refuse_without_checkpoint(folder: &Path) -> Result<()> {
    let path = folder.join(results::FILE);
    // A run that is killed in its first evaluation leaves rows of step 0 at most.
    if path.is_file() && results::read(&path)?.iter().any(|r| r.step > 0) {
        let what = format!("{} is gone, but there are results", checkpoint::FILE);
        return Err(Error::content(folder, format!("{what}: put it back, or use --overwrite to start again")));
    }
    Ok(())
}

/// Makes rows those of a run whose configuration has become that of a cell.
///
/// # Errors
/// Never for a resolved cell.
pub(super) fn adopt(rows: &mut [Row], cell: &Cell) -> Result<()> {
    let (hash, family, settings) = (cell.hash()?, cell.family()?, cell.settings()?);
    for row in rows {
        hash.clone_into(&mut row.config_hash);
        family.clone_into(&mut row.family);
        settings.clone_into(&mut row.settings);
    }
    Ok(())
}

/// Adds what was measured of a run later to the file of this name in its folder; whether that changed anything. Of a number that the
/// file has already, the new row replaces the old one, and all rows become those of the run as its configuration is by now: it may have
/// gone on with another one since.
///
/// # Errors
/// When the file cannot be read or written.
pub fn add_measured(folder: &Path, name: &str, mut rows: Vec<Row>) -> Result<bool> {
    let path = folder.join(name);
    let _turn = Turn::take(&path)?;
    let before = if path.is_file() { results::read(&path)? } else { Vec::new() };
    let mut all = before.clone();
    let config = std::fs::read_to_string(folder.join(CONFIG)).ok();
    // A configuration of another version has another layout.
    if let Some(cell) = config.and_then(|text| serde_json::from_str::<Cell>(&text).ok()) {
        adopt(&mut all, &cell)?;
        adopt(&mut rows, &cell)?;
    }
    for new in rows {
        match all.iter_mut().find(|old| new.is_again(old)) {
            Some(old) => *old = new,
            None => all.push(new),
        }
    }
    let is_new = all != before;
    if is_new {
        results::write(&path, &all)?;
    }
    Ok(is_new)
}

/// A folder for a run that starts: its configuration, and nothing of what may have been there.
///
/// # Errors
/// When it cannot be written.
pub fn empty_folder(folder: &Path, cell: &Cell) -> Result<()> {
    create_folder(folder)?;
    for entry in std::fs::read_dir(folder).at("read", folder)? {
        let path = entry.at("read", folder)?.path();
        if path.file_name().is_some_and(|name| name == lock::FILE) {
            continue;
        }
        if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) }.at("remove", &path)?;
    }
    create_folder(&folder.join(SAMPLES))?;
    write_bytes(&folder.join(CONFIG), cell.json()?.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::row;

    #[test]
    fn what_several_measure_at_once_is_all_kept_and_a_number_once() {
        let folder = std::env::temp_dir().join(format!("pgn-bench-measured-{}", std::process::id()));
        create_folder(&folder).unwrap();
        let of = |n: u64, value: f64| Row { n, ..row("gn", 0, 10, &format!("fid{n}_test"), value) };
        std::thread::scope(|scope| {
            for n in 0..16 {
                let (folder, row) = (&folder, of(n, 1.0));
                scope.spawn(move || add_measured(folder, results::EVAL, vec![row]).unwrap());
            }
        });
        let again = |value| add_measured(&folder, results::EVAL, vec![of(3, value)]).unwrap();
        assert_eq!([again(1.0), again(2.0), again(2.0)], [false, true, false]);
        let mut kept: Vec<(u64, f64)> =
            results::read(&folder.join(results::EVAL)).unwrap().iter().map(|r| (r.n, r.value)).collect();
        kept.sort_by_key(|(n, _)| *n);
        assert_eq!(kept, (0..16).map(|n| (n, if n == 3 { 2.0 } else { 1.0 })).collect::<Vec<_>>());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
