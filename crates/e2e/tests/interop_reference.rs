//! Our programs with those of gardener/quic-reverse-http-tunnel, in every pair.
//!
//! Its programs must be in the folder that `TOWLINE_REFERENCE_DIR` names: `quic-server`,
//! `quic-client` and `quic-client-tcp`. `make interop` leaves these tests out where it is not set.

use towline_e2e::interop::Family;
use towline_e2e::interop_pairs;

interop_pairs!(Family::Reference);
