"""The ESPnet plug: the only room that imports espnet2 (late, it costs seconds)."""
