"""The gateway: gRPC outside, PRPC inside."""
