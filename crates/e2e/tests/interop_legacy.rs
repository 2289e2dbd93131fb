//! Our programs with programs of the legacy dialect that share no code with them, in every pair.

use towline_e2e::interop::Family;
use towline_e2e::interop_pairs;

interop_pairs!(Family::Legacy);
