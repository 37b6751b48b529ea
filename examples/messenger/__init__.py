"""A chat: gRPC outside with an HTTP client, PRPC inside."""
