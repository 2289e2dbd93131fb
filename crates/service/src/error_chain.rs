//! Writes an error and all its sources in one line.

use std::error::Error;
use std::fmt;
use std::iter;

/// Displays as `error: source: source of the source`, with line breaks and tabs as single spaces.
pub(crate) struct ErrorChain<'a>(pub(crate) &'a (dyn Error + 'static));

// === impl ErrorChain ===

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sources = iter::successors(Some(self.0), |error| (*error).source());
        let texts: Vec<String> = sources.map(ToString::to_string).collect();
        let line = texts.join(": ");
        formatter.write_str(&line.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use thiserror::Error;

    use super::*;

    #[derive(Debug, Error)]
    #[error("bind --listen\n  127.0.0.1:1")]
    struct Outer(#[source] io::Error);

    #[test]
    fn an_error_is_one_line_with_its_sources() {
        let error = Outer(io::Error::other("address\tin use"));
        assert_eq!(
            ErrorChain(&error).to_string(),
            "bind --listen 127.0.0.1:1: address in use"
        );
    }
}
