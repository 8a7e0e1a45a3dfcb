"""One small file per command: parse, build, call one function, write."""
