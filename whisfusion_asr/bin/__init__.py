"""One small file a command: parse, call one function, write."""
