//! stub
#![allow(missing_docs)]
pub mod dinov2 {
    use crate::machine::compute::Compute;
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub enum Resize {
        Pil,
        Float,
        Tf,
    }
    pub fn from_file(
        _: &std::path::Path,
        _: Resize,
        _: Compute,
    ) -> crate::error::Result<crate::metrics::inception::Inception> {
        Err(crate::error::Error::invalid("stub"))
    }
}
pub mod clip {
    use crate::machine::compute::Compute;
    pub fn from_file(_: &std::path::Path, _: Compute) -> crate::error::Result<crate::metrics::inception::Inception> {
        Err(crate::error::Error::invalid("stub"))
    }
}
