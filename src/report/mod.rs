//! Reports, claims and comparisons: pure functions of rows.

mod axis;
pub mod baselines;
mod beyond;
pub mod chart;
pub mod claims;
mod comparison;
pub mod content;
pub mod csv;
pub mod document;
pub mod gate;
pub mod html;
pub mod images;
pub mod latex;
pub mod markdown;
pub mod plot;
pub mod runs;
pub mod series;
pub mod table;
mod verdict;
