//! The programs as processes: what only a real `kill -9` or exit status can show.
