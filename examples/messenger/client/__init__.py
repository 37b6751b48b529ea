"""The HTTP client of the gateway. It needs neither PRPC nor a broker."""
