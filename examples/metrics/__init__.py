"""A metrics server: a text protocol over TCP outside, PRPC inside."""
