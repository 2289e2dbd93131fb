//! Tests of the congestion controller on simulated paths, in virtual time: rates from 10 Mbit/s to
//! 1 Gbit/s, RTTs up to 600 ms, random loss, ECN marks, short buffers and competing flows.

mod changes;

mod invariants;

mod paths;

mod competing_flows;

mod shares;

mod simulation;
