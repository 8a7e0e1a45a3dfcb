"""Decoding: how canvases are filled and one transcript is chosen. The network comes as a callable."""
