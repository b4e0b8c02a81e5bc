//! Reports: pure functions of result rows.

pub mod baselines;
pub mod table;
