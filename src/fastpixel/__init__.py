"""fastpixel: a drop-in edge collector for tracking pixels. `fastpixel --help` is the way in."""

__version__ = "0.1.0"
