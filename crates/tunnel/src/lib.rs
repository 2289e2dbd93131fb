//! tunnel

pub mod target;
pub mod refusal;
