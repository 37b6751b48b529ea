"""Generated from messenger.proto; the command is in ../README.md."""
