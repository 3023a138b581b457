"""Say what a file looks like, and why it cannot be read, without quoting it: it may hold anything."""

from __future__ import annotations

import re

SIGNATURE_BYTES = 64  # of a file that `looks_like` reads

_SIGNATURES = (  # (where, bytes, what it looks like); the first that fits
    (0, b"version https://git-lfs", "a Git LFS pointer, which stands for the file: run git lfs pull"),
    (0, b"%PDF", "a PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"PK\3\4", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"PAR1", "a Parquet table"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"8BPS", "a Photoshop image"),
    (0, b"\0\0\1\0", "an icon"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (4, b"JXL ", "a JPEG XL image"),
    (4, b"jP  ", "a JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (4, b"ftyphei", "a HEIC image"),
    (4, b"ftyphev", "a HEIC image"),
    (4, b"ftypmif", "a HEIC image"),
    (4, b"ftypavi", "an AVIF image"),
    (4, b"ftypM4A", "M4A sound"),
    (4, b"ftyp", "a video"),
    (0, b"\x1a\x45\xdf\xa3", "a video"),
    (8, b"AVI ", "a video"),
    (8, b"WAVE", "WAV sound"),
    (8, b"WEBP", "a WebP image"),
    (0, b".snd", "AU sound"),
    (0, b"ID3", "MP3 sound"),
    (0, b"OggS", "OGG sound"),
    (0, b"fLaC", "FLAC sound"),
    (0, b"FORM", "AIFF sound"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"\x89PNG", "a PNG image"),
    (0, b"GIF8", "a GIF image"),
    (0, b"II*\0", "a TIFF image"),
    (0, b"MM\0*", "a TIFF image"),
    (0, b"II+\0", "a TIFF image"),
    (0, b"MM\0+", "a TIFF image"),
)
_MARKUP = ((b"<svg", "an SVG drawing"), (b"<!doctype html", "a web page"), (b"<html", "a web page"), (b"<?xml", "XML"))


def looks_like(start: bytes) -> str:
    """Return what a file that begins with `start` looks like: "a PDF", "text", "binary data of an unknown kind"."""
    for position, signature, what in _SIGNATURES:
        if start.startswith(signature, position):
            return what
    begins = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for signature, what in _MARKUP:
        if begins.startswith(signature):
            return what
    is_text = not any(byte < 32 and byte not in b"\t\n\r\f" for byte in start)
    return "text" if is_text else "binary data of an unknown kind"


def reason(error: BaseException) -> str:
    """Return an error's message in one line; only the error's name where the message may quote the file."""
    text = " ".join(str(error).split())
    if not text or " at 0x" in text or re.search(r"['\"\\]|[^ -~]", text):
        return type(error).__name__
    return text[:200]
