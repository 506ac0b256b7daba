"""A zip archive read in place: stored entries are views of the mapped file.

Stricter than ``zipfile`` where a hostile archive could cost memory: entries that overlap,
repeat a name or would inflate far beyond the file are refused. Nothing is ever extracted to
disk, so a name is only a key.

Source: PKWARE APPNOTE.TXT 6.3.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastglow.checkpoint.machine import Buffer
from fastglow.errors import CheckpointError

MAX_ENTRIES = 20_000  # a published WaveGlow with its optimizer has about 3,000
INFLATE_ALLOWANCE = 8_000_000  # bytes that compressed entries may inflate to, beyond the file

_STORED, _DEFLATED = 0, 8
_END, _END64, _LOCATOR64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_CENTRAL, _LOCAL = b"PK\x01\x02", b"PK\x03\x04"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the archive.

    Attributes:
        start: Offset of its local header in the file.
        offset: Offset of its data in the file.
        packed: Bytes that its data takes in the file.
        size: Bytes that it holds.
        deflated: Whether the data is compressed.
        crc: CRC-32 of what it holds; 0 if none was computed.
    """

    start: int
    offset: int
    packed: int
    size: int
    deflated: bool
    crc: int


class Archive:
    """The entries of a zip archive.

    Attributes:
        entries: By name.
    """

    def __init__(self, data: Buffer, source: str) -> None:
        """Reads the directory.

        Raises:
            CheckpointError: The archive is damaged, or built to mislead.
        """
        self._data, self._source = data, source
        self._inflated: dict[str, NDArray[np.uint8]] = {}
        try:
            self.entries = dict(self._directory())
        except (struct.error, UnicodeDecodeError, ValueError) as error:
            raise self._failure(f"damaged zip archive ({error}); get the file again") from None
        self._check()

    def read(self, name: str) -> NDArray[np.uint8]:
        """The bytes of an entry [size] uint8, read-only.

        Raises:
            CheckpointError: They are damaged.
        """
        entry = self.entries[name]
        raw = np.frombuffer(self._data, np.uint8, entry.packed, entry.offset)
        if entry.deflated:
            if name not in self._inflated:
                self._inflated[name] = self._inflate(name, entry, raw)
            raw = self._inflated[name]
        if entry.crc and zlib.crc32(raw.data) != entry.crc:
            raise self._failure(f"{name[:80]!a} does not match its checksum; get the file again")
        return raw

    def _failure(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self._source}: {what}")

    def _inflate(self, name: str, entry: Entry, raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
        try:
            held = zlib.decompressobj(-15).decompress(raw.data, entry.size + 1)
        except zlib.error as error:
            raise self._failure(f"{name[:80]!a} does not inflate ({error})") from None
        if len(held) != entry.size:
            raise self._failure(f"{name[:80]!a} inflates to another size than declared")
        return np.frombuffer(held, np.uint8)

    def _directory(self) -> list[tuple[str, Entry]]:
        """Every entry, in the order of the directory."""
        count, position, end = self._find_directory()
        if count > MAX_ENTRIES or not 0 <= position <= end <= len(self._data):
            raise ValueError(f"a directory of {count} entries at {position}")
        found: list[tuple[str, Entry]] = []
        names: set[str] = set()
        for _ in range(count):
            header = self._data[position : position + 46]
            if header[:4] != _CENTRAL or position + 46 > end:
                raise ValueError(f"no directory entry at byte {position}")
            flags, method = struct.unpack_from("<HH", header, 8)
            crc, packed, size, name_len, extra_len, comment_len = struct.unpack_from(
                "<IIIHHH", header, 16
            )
            (start,) = struct.unpack_from("<I", header, 42)
            name = self._data[position + 46 : position + 46 + name_len].decode("utf-8")
            extra_at = position + 46 + name_len
            extra = self._data[extra_at : extra_at + extra_len]
            size, packed, start = _widen(extra, size, packed, start)
            if name in names:
                raise ValueError(f"{name[:80]!a} occurs twice")
            if flags & 1 or method not in (_STORED, _DEFLATED):
                raise ValueError(f"{name[:80]!a} is encrypted or compressed by method {method}")
            names.add(name)
            offset = self._data_offset(start)
            found.append((name, Entry(start, offset, packed, size, method == _DEFLATED, crc)))
            position = extra_at + extra_len + comment_len
        return found

    def _find_directory(self) -> tuple[int, int, int]:
        """Number of entries, and where the directory starts and must have ended."""
        data = self._data
        end = data.rfind(_END, max(0, len(data) - 65_557))
        if end < 0:
            raise ValueError("its directory is missing, as after a download that broke off")
        count, _, position, comment = struct.unpack("<HIIH", data[end + 10 : end + 22])
        if end + 22 + comment > len(data):
            raise ValueError("its end is missing")
        locator = data[max(0, end - 20) : end]
        if locator[:4] == _LOCATOR64:
            (end,) = struct.unpack_from("<Q", locator, 8)
            record = data[end : end + 56]
            if record[:4] != _END64:
                raise ValueError("its zip64 directory is missing")
            count, _, position = struct.unpack_from("<QQQ", record, 32)
        return count, position, end

    def _data_offset(self, start: int) -> int:
        header = self._data[start : start + 30]
        if header[:4] != _LOCAL:
            raise ValueError(f"no entry at byte {start}")
        name_len, extra_len = struct.unpack_from("<HH", header, 26)
        return int(start + 30 + name_len + extra_len)

    def _check(self) -> None:
        """Sizes against the file: no overlap, nothing outside, no bomb."""
        behind, inflated = 0, 0
        for name, entry in sorted(self.entries.items(), key=lambda item: item[1].start):
            if entry.start < behind:
                raise self._failure(f"zip entry {name[:80]!a} overlaps another; do not use it")
            behind = entry.offset + entry.packed
            if behind > len(self._data):
                raise self._failure(f"zip entry {name[:80]!a} ends outside the file")
            if not entry.deflated and entry.packed != entry.size:
                raise self._failure(f"zip entry {name[:80]!a} has two sizes")
            inflated += entry.size if entry.deflated else 0
        if inflated > len(self._data) + INFLATE_ALLOWANCE:
            raise self._failure(
                f"its compressed entries would inflate to {inflated} bytes, as in a zip bomb; "
                "do not use this file"
            )


def _widen(extra: bytes, size: int, packed: int, start: int) -> tuple[int, int, int]:
    """The sizes and the offset, taken from the zip64 field where they do not fit 32 bits."""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, position)
        if kind == 1:
            wide = extra[position + 4 : position + 4 + length]
            fields = iter(struct.unpack(f"<{length // 8}Q", wide[: length // 8 * 8]))
            size, packed, start = (
                next(fields, value) if value == 0xFFFFFFFF else value
                for value in (size, packed, start)
            )
        position += 4 + length
    return size, packed, start
