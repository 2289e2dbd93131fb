//! A UDP relay between agents and server that loses, delays and reorders datagrams.
