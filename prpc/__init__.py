"""PRPC: call functions of another Python program through Redis or Kafka as if they were local."""

__version__ = "0.1.0"
