"""Write the binary files of examples/filetypes; the text files there are written by hand.

    python examples/make_filetypes.py

Standard library only, nothing random, no dates: a second run writes the same
bytes, up to the versions of zlib and SQLite.
"""

from __future__ import annotations

import gzip
import io
import math
import sqlite3
import struct
import tarfile
import wave
import zipfile
import zlib
from pathlib import Path

HERE = Path(__file__).parent / "filetypes"
SIDE = 48


def pixels() -> list[tuple[int, int, int]]:
    """A sun over the sea, SIDE x SIDE, rows from the top."""
    picture = []
    for y in range(SIDE):
        for x in range(SIDE):
            sun = (x - 32) ** 2 + (y - 14) ** 2 < 64
            wave_ = y > 30 + 2 * math.sin(x / 3)
            picture.append((250, 200, 60) if sun else (20, 90 + y, 140) if wave_ else (190, 220 - y, 240))
    return picture


def png() -> bytes:
    """The picture as PNG, 24 bit."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    flat = pixels()
    rows = b"".join(
        b"\0" + bytes(v for p in flat[y * SIDE : (y + 1) * SIDE] for v in p) for y in range(SIDE)
    )
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def bmp() -> bytes:
    """The picture as BMP, 24 bit, rows from the bottom."""
    flat = pixels()
    rows = b"".join(
        bytes(v for r, g, b in flat[y * SIDE : (y + 1) * SIDE] for v in (b, g, r))
        for y in reversed(range(SIDE))
    )
    info = struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 24, 0, len(rows), 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(rows), 0, 0, 54) + info + rows


def gif() -> bytes:
    """An 8 x 8 checker; a clear code after every two pixels keeps all codes at 3 bits."""
    codes = []
    for start in range(0, 64, 2):
        codes += [4, *(((i % 8) + i // 8) % 2 for i in range(start, start + 2))]
    codes.append(5)
    bits = 0
    for index, code in enumerate(codes):
        bits |= code << (3 * index)
    data = bits.to_bytes((3 * len(codes) + 7) // 8, "little")
    screen = struct.pack("<HHBBB", 8, 8, 0x80 | 0x71, 0, 0)
    colours = bytes([250, 200, 60, 20, 90, 140, 0, 0, 0, 255, 255, 255])
    image = b"," + struct.pack("<HHHHB", 0, 0, 8, 8, 0)
    return b"GIF89a" + screen + colours + image + b"\x02" + bytes([len(data)]) + data + b"\0;"


def wav() -> bytes:
    """Half a second of 440 Hz, 16 bit mono."""
    out = io.BytesIO()
    with wave.open(out, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        samples = (int(9000 * math.sin(2 * math.pi * 440 * i / 8000)) for i in range(4000))
        sound.writeframes(b"".join(struct.pack("<h", s) for s in samples))
    return out.getvalue()


def archives() -> dict[str, bytes]:
    """Two of the text files in a zip, in a tar, and one in a gzip."""
    members = {name: (HERE / name).read_bytes() for name in ("letter.txt", "birds.csv")}
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, (2026, 5, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    with tarfile.open(fileobj=tarred, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return {
        "letters.zip": zipped.getvalue(),
        "letters.tar": tarred.getvalue(),
        "birds.csv.gz": gzip.compress(members["birds.csv"], 9, mtime=0),
    }


def database() -> bytes:
    """An SQLite database of one table."""
    with sqlite3.connect(":memory:") as base:
        base.execute("CREATE TABLE bird (species TEXT PRIMARY KEY, seen INTEGER)")
        base.executemany("INSERT INTO bird VALUES (?, ?)", [("Apus apus", 15), ("Parus major", 5)])
        base.commit()
        return base.serialize()


def pdf() -> bytes:
    """One page, one line of text."""
    text = b"BT /F1 24 Tf 72 720 Td (The ford is closed on Friday.) Tj ET"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(text), text),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out, offsets = b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    trailer = b"trailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % len(out)
    return out + b"xref\n0 6\n0000000000 65535 f \n" + table + trailer


def elf() -> bytes:
    """A static x86-64 Linux program that exits with 42."""
    code = bytes.fromhex("b83c000000bf2a0000000f05")
    base, size = 0x400000, 64 + 56 + len(code)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + 120, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    return ident + header + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000) + code


def wasm() -> bytes:
    """A module that exports `add` of two 32-bit integers."""
    return bytes.fromhex(
        "0061736d01000000" "0107016002" "7f7f017f" "03020100" "070701036164640000" "0a09010700200020016a0b"
    )


def onnx() -> bytes:
    """z = x + y, float32 vectors of any length; the protobuf is written by hand."""

    def part(number: int, value: bytes | str | int) -> bytes:
        if isinstance(value, int):
            return bytes([number << 3, value])
        data = value.encode() if isinstance(value, str) else value
        return bytes([number << 3 | 2, len(data)]) + data

    def vector(name: str) -> bytes:
        shape = part(1, part(2, "n"))
        return part(1, name) + part(2, part(1, part(1, 1) + part(2, shape)))

    node = part(1, "x") + part(1, "y") + part(2, "z") + part(3, "sum") + part(4, "Add")
    graph = part(1, node) + part(2, "addition")
    graph += part(11, vector("x")) + part(11, vector("y")) + part(12, vector("z"))
    return part(1, 8) + part(2, "by hand") + part(7, graph) + part(8, part(1, "") + part(2, 13))


def main() -> None:
    """Write every file."""
    made = {
        "sun.png": png(),
        "sun.bmp": bmp(),
        "checker.gif": gif(),
        "tone.wav": wav(),
        "birds.sqlite": database(),
        "ford.pdf": pdf(),
        "exit42.elf": elf(),
        "add.wasm": wasm(),
        "add.onnx": onnx(),
        **archives(),
    }
    for name, data in made.items():
        (HERE / name).write_bytes(data)


if __name__ == "__main__":
    main()
