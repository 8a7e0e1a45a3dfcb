"""Speech recognition with a masked-diffusion decoder: staged recipes on ESPnet's trainer."""

__version__ = "0.1.0"
