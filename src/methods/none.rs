//! No normalisation: f̂ = f.

use super::Method;

pub(super) struct Plain;

impl Method for Plain {
    fn id(&self) -> &'static str {
        "none"
    }
}
