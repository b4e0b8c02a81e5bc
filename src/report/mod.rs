//! Reports: pure functions of result rows.

pub mod table;
