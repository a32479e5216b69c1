#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
A second reading of differencing VHD and VHDX, of which qemu reads neither: follows each image to its parent by its own
locator, holds the parent's identity against what the child noted, and writes what the disk reads to standard output.

    chainread.py IMAGE > RAW        exit status 1 and a word why, if the chain is not whole
"""
import os
import struct
import sys
import uuid

SECTOR = 512


def need(yes, why):
    if not yes:
        sys.exit("chainread: " + why)


class Vhd:
    def __init__(self, path):
        self.f = open(path, "rb")
        self.footer = self.at(os.path.getsize(path) - 512, 512)
        self.sound(self.footer, 64, "footer")
        need(self.footer == self.at(0, 512), "the two footers differ")
        offset, self.time = struct.unpack_from(">QI", self.footer, 16)
        self.size, = struct.unpack_from(">Q", self.footer, 48)
        self.kind, = struct.unpack_from(">I", self.footer, 60)
        self.id = self.footer[68:84]
        header = self.at(offset, 1024)
        self.sound(header, 36, "header")
        table, _, n, self.block = struct.unpack_from(">QIII", header, 16)
        self.table = struct.unpack(">%dI" % n, self.at(table, 4 * n))
        self.bitmap = (self.block // SECTOR // 8 + 511) // 512 * 512
        self.parent = None
        if self.kind == 4:
            names = [self.name(header[576 + 24 * i:600 + 24 * i]) for i in range(8)]
            names = [n for n in names if n]
            need(len(names) == 1, "%d locators" % len(names))
            self.parent = Vhd(os.path.join(os.path.dirname(path), names[0]))
            need(self.parent.id == header[40:56], "another parent's identifier")
            need(self.parent.time <= struct.unpack_from(">I", header, 56)[0], "the parent was written since")

    def at(self, off, n):
        self.f.seek(off)
        return self.f.read(n).ljust(n, b"\0")

    def sound(self, raw, at, what):
        total = sum(raw[:at]) + sum(raw[at + 4:])
        need(struct.unpack_from(">I", raw, at)[0] == ~total & 0xffffffff, "checksum of the " + what)

    def name(self, raw):
        code, _, n, _, offset = struct.unpack(">4sIIIQ", raw)
        return self.at(offset, n).decode("utf-16-le").replace("\\", "/") if code == b"W2ru" else None

    def sector(self, i):
        if i * SECTOR >= self.size:
            return bytes(SECTOR)
        at, rest = divmod(i, self.block // SECTOR)
        where = self.table[at]
        if where != 0xffffffff and self.at(where * SECTOR + rest // 8, 1)[0] & 0x80 >> rest % 8:
            return self.at(where * SECTOR + self.bitmap + rest * SECTOR, SECTOR)
        return self.parent.sector(i) if self.parent else bytes(SECTOR)


def guid(text):
    return uuid.UUID(text).bytes_le


BAT = guid("2dc27766-f623-4200-9d64-115e9bfd4a08")
METADATA = guid("8b7ca206-4790-4b9a-b8fe-575f050f886e")
PARAMETERS = guid("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
SIZE = guid("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
LOCATOR = guid("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")


class Vhdx(Vhd):
    def __init__(self, path):
        self.f = open(path, "rb")
        headers = [self.at(65536, 4096), self.at(131072, 4096)]
        header = max(headers, key=lambda h: struct.unpack_from("<Q", h, 8))
        self.id = header[32:48]
        need(not any(header[48:64]), "the log is not empty")
        regions = self.table_at(196608, 16, 32)
        need(self.at(196608, 65536) == self.at(262144, 65536), "the two region tables differ")
        bat, metadata = (struct.unpack_from("<Q", regions[g], 16)[0] for g in (BAT, METADATA))
        items = {k: self.at(metadata + struct.unpack_from("<I", v, 16)[0], struct.unpack_from("<I", v, 20)[0])
                 for k, v in self.table_at(metadata, 32, 32).items()}
        self.block, flags = struct.unpack("<II", items[PARAMETERS])
        self.size, = struct.unpack("<Q", items[SIZE])
        self.ratio = (1 << 23) * SECTOR // self.block
        n = -(-self.size // self.block)
        n = (n // self.ratio + 1) * (self.ratio + 1)
        self.bat = struct.unpack("<%dQ" % n, self.at(bat, 8 * n))
        self.parent = None
        need(bool(flags & 2) == (LOCATOR in items), "a parent or none")
        if flags & 2:
            pairs = self.pairs(items[LOCATOR])
            need(set(pairs) <= {"parent_linkage", "parent_linkage2", "relative_path"}, "keys %s" % sorted(pairs))
            self.parent = Vhdx(os.path.join(os.path.dirname(path), pairs["relative_path"].replace("\\", "/")))
            links = [guid(pairs[k]) for k in pairs if k.startswith("parent_linkage")]
            need(self.parent.id in links, "another parent's content")

    def table_at(self, off, head, entry):
        raw = self.at(off, 65536)
        n, = struct.unpack_from("<H", raw, 10) if raw[:8] == b"metadata" else struct.unpack_from("<I", raw, 8)
        return {raw[head + i * entry:head + i * entry + 16]: raw[head + i * entry:head + (i + 1) * entry] for i in range(n)}

    @staticmethod
    def pairs(raw):
        out = {}
        for i in range(struct.unpack_from("<H", raw, 18)[0]):
            key, value, nk, nv = struct.unpack_from("<IIHH", raw, 20 + 12 * i)
            out[raw[key:key + nk].decode("utf-16-le")] = raw[value:value + nv].decode("utf-16-le")
        return out

    def sector(self, i):
        if i * SECTOR >= self.size:
            return bytes(SECTOR)
        block, rest = divmod(i, self.block // SECTOR)
        chunk = block // self.ratio
        entry = self.bat[block + chunk]
        state, where = entry & 7, entry >> 20 << 20
        if state == 7:
            bits = self.bat[(chunk + 1) * self.ratio + chunk] >> 20 << 20
            bit = i - (chunk << 23)
            state = 6 if self.at(bits + bit // 8, 1)[0] >> bit % 8 & 1 else 0
        if state == 6:
            return self.at(where + rest * SECTOR, SECTOR)
        return self.parent.sector(i) if state == 0 and self.parent else bytes(SECTOR)


def main():
    path = sys.argv[1]
    with open(path, "rb") as f:
        image = (Vhdx if f.read(8) == b"vhdxfile" else Vhd)(path)
    for i in range(image.size // SECTOR):
        sys.stdout.buffer.write(image.sector(i))


main()
