//! The congestion controller on simulated paths, in virtual time: what it makes of rates from 2 Mbit/s
//! to 1 Gbit/s, round trips up to a satellite's, losses, marks and shallow queues.

mod changes;

mod invariants;

mod paths;

mod competing_flows;

mod shares;

mod simulation;
