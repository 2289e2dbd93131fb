//! Measures Towline beside a direct connection and its peers, in one run on one machine.
//!
//! Processes take part as on a real path: the load generator (this one, one thread), the subject's
//! server and agent, and the target (this binary again, one thread each for bulk and for small
//! messages). Downloads beside a small tunnel are one more. A *cell* is one row
//! measured once on one subject whose processes were started for it; cells of a row follow each
//! other directly, and rounds repeat all rows, so that what else the machine does hits all
//! subjects alike.

pub mod cli;
pub mod comparison;
pub mod soak;

pub mod subject;
pub mod swarm;
pub mod target;

pub mod cell;
pub mod client;
pub mod downloads;
pub mod rows;

pub mod chart;
pub mod machine;
pub mod method;
pub mod noise;
pub mod proc_fs;
pub mod record;
pub mod series;
pub mod stats;
pub mod table;
