//! The allocator of every program: jemalloc, which gives memory back when a load has gone.
//!
//! A program that served a burst must not stay as large as the burst was. `.cargo/config.toml`
//! holds what differs from jemalloc's defaults, because these settings are compiled in:
//!
//! - a thread of jemalloc's own returns memory that has been free for a second: a program at rest
//!   allocates nothing, and would return nothing by itself;
//! - one arena: a program works in one thread, so several would only hold more;
//! - caches of a thread end at 4 KiB: larger buffers are rare, and there they would stay.
//!
//! A build outside of the workspace has jemalloc's own settings: more memory, nothing else.

pub use tikv_jemallocator::Jemalloc as Allocator;
