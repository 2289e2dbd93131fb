//! tunnel

pub mod target;
