//! The allocator of every program: jemalloc, which returns memory to the system after a load.
//!
//! A program must not keep the memory that a burst needed. `.cargo/config.toml` holds the settings
//! that differ from jemalloc's defaults, because they are compiled in:
//!
//! - a thread of jemalloc returns memory that has been free for a second: without it, memory is
//!   returned during later allocations only, and an idle program makes none;
//! - one arena: a program works in one thread, so more arenas would only hold more memory;
//! - thread caches hold objects up to 4 KiB: larger buffers are rare and would stay there.
//!
//! A build outside of the workspace has jemalloc's default settings and uses more memory.

pub use tikv_jemallocator::Jemalloc as Allocator;
