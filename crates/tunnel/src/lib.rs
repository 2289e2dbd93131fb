//! tunnel

pub mod target;
pub mod refusal;
pub mod code;
pub mod backoff;
pub mod control;
pub mod head;
