"""Opening a picture that somebody else made: known formats, one picture, and no more pixels than fit.

The formats are those whose file names are read, found by their content, whatever the name says. Pillow knows many
more, and some of them hand the file to other programs (EPS to Ghostscript).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError, first_line

if TYPE_CHECKING:
    from PIL import Image

# Pillow's own limit, above which it warns of a decompression bomb: 256 MiB in RGB.
MAX_PIXELS = 1024 * 1024 * 1024 // 4 // 3
_FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP", "PPM")
_ORIENTATION = 0x0112  # EXIF's tag, and TIFF's; 1 is upright


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The picture in a file, decoded when it is first looked at; errors from that are turned into one, too.

    Raises:
        BenchError: there is no such file, it is no picture of a known format or a broken one, holds several
            pictures, has more than :data:`MAX_PIXELS`, or is a TIFF that is to be turned.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=_FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise BenchError(_too_large(path, f"{width} x {height} pixels"))
            # A JPEG's further pictures (MPO) are previews of the first.
            if image.format != "MPO" and (number := getattr(image, "n_frames", 1)) > 1:
                raise BenchError(f"{path}: holds {number} pictures; save the one that is meant alone")
            # Pillow turns TIFFs, from some version on, and other programs do not.
            if image.format == "TIFF" and orientation(image) != 1:
                raise BenchError(
                    f"{path}: a TIFF that is to be turned (its orientation is not 1); save it upright"
                )
            yield image
    except FileNotFoundError:
        raise BenchError(f"{path}: no such file") from None
    except Image.DecompressionBombError as error:
        raise BenchError(_too_large(path, str(error).partition(" exceeds")[0])) from None
    except UnidentifiedImageError:
        raise BenchError(
            f"{path}: cannot be read as an image (no PNG, JPEG, BMP, TIFF, WebP or PPM file)"
        ) from None
    except BenchError:
        raise
    except Exception as error:  # Pillow raises many kinds for broken files
        raise BenchError(f"{path}: cannot be read as an image ({first_line(error)})") from None


def orientation(image: Image.Image) -> int:
    """EXIF's orientation of a picture, 1 to 8; 1 is upright."""
    # Pillow would decode all of a PNG to look behind its pixels, where hardly anything writes EXIF.
    if image.format == "PNG" and not {"exif", "Raw profile type exif"} & image.info.keys():
        return 1
    return int(image.getexif().get(_ORIENTATION) or 1)


def _too_large(path: Path, size: str) -> str:
    return f"{path}: too large ({size}; at most {MAX_PIXELS} pixels are read); cut it into tiles or scale it down"
