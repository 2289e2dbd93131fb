//! A wide area network on one machine: two network namespaces, and between them a link with a
//! rate, a delay, a queue and losses of your choice.
//!
//! [`link`] says what a link is like and [`lane`] computes what happens to each packet on one of
//! its ways: pure, with the time as an argument. [`engine`] carries real packets between two TUN
//! devices as the lanes say, and [`Wan`](wan::Wan) puts the devices into namespaces of their own.
//! [`comparison`] measures Towline and others over such links.

pub mod link;
pub mod units;

pub mod lane;

pub mod counters;
pub mod packet;

pub mod engine;

mod kernel;
pub mod namespace;
pub mod wan;

pub mod check;

pub mod load;
pub mod subject;
pub mod target;

pub mod rows;

pub mod record;
pub mod table;

pub mod job;

pub mod cli;
pub mod comparison;
