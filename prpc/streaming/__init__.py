"""Both ends of a stream, for either wing: what makes items, what sends them, what takes them. Bound to an event loop."""
