"""Data: Kaldi directories, audio, archives of matrices, dumped encoder states, tokens. Imports no other room."""
