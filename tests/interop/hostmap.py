#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
A second opinion on `vdisk map --host --output=json` of a qcow2: turns the tables round by a reading of its own, asks
qemu-img what the disk holds, how many snapshots there are and how many clusters are leaked, and compares.

    hostmap.py IMAGE OURS.json      says what differs; exit status 1 if anything does
    hostmap.py --vm-state IMAGE DISK_SIZE STATE_SIZE
                                    turns what the last snapshot holds past DISK_SIZE into the memory of a machine
"""
import json
import os
import struct
import subprocess
import sys

OFFSET = 0x00fffffffffffe00


class Image:
    def __init__(self, path):
        self.file = open(path, "rb")
        self.size = os.path.getsize(path)
        h = self.at(0, 112)
        (self.version, _, _, bits, self.disk, self.crypt, self.l1_size, self.l1, self.reft, self.n_reft, self.n_snap,
         self.snap) = struct.unpack(">IQIIQIIQQIIQ", h[4:72])
        self.incompat, _, self.autoclear, self.order, self.header_len = struct.unpack(">QQQII", h[72:104])
        if self.version == 2:
            self.incompat = self.autoclear = 0
            self.order, self.header_len = 4, 72
        self.cluster = 1 << bits
        self.bits = bits
        self.external = bool(self.incompat & 4)
        self.n_sub = 32 if self.incompat & 16 else 1
        self.entry = 16 if self.n_sub > 1 else 8
        self.per_l2 = self.cluster // self.entry
        # By cluster of the file: (from, to, what, guest, view, entry, disk)
        self.uses = {}
        self.outside = {}

    def at(self, off, n):
        self.file.seek(off)
        return self.file.read(n).ljust(n, b"\0")

    def words(self, off, n):
        return struct.unpack(">%dQ" % n, self.at(off, 8 * n)) if n else ()

    def use(self, off, n, what, entry=None, guest=None, view=0, disk=0, where=None):
        end = off + n
        uses = self.uses if where is None else where
        for c in range(off // self.cluster, (end - 1) // self.cluster + 1):
            uses.setdefault(c, []).append((off, end, what, guest, view, entry, disk))

    def read_header(self):
        end = at = self.header_len
        back_off, back_len = struct.unpack(">QI", self.at(8, 12))
        limit = back_off or self.cluster
        bitmaps = None
        while at + 8 <= limit:
            kind, n = struct.unpack(">II", self.at(at, 8))
            at += 8
            end = at
            if kind == 0:
                break
            if kind == 0x0537be77:
                off, length = self.words(at, 2)
                self.read_luks1(off, length, at)
            if kind == 0x23852875 and self.autoclear & 1:
                bitmaps = (struct.unpack(">IIQQ", self.at(at, 24)), at)
            at += (n + 7) // 8 * 8
            end = at
        if back_off:
            end = max(end, back_off + back_len)
        self.use(0, end, "header")
        if bitmaps:
            self.read_bitmaps(*bitmaps)

    def read_luks1(self, off, length, at):
        key_bytes = struct.unpack(">I", self.at(off + 108, 4))[0]
        done = off
        for i in range(8):
            active, material = struct.unpack(">I36xI", self.at(off + 208 + 48 * i, 44))
            if active == 0xdead:
                begin = off + 512 * material
                self.use(done, begin - done, "key-area", at)
                done = begin + 4000 * key_bytes
                self.use(begin, 4000 * key_bytes, "slack", at)
        self.use(done, off + length - done, "key-area", at)

    def read_bitmaps(self, ext, at):
        n, _, dir_size, dir_off = ext
        self.use(dir_off, dir_size, "bitmap", at)
        pos = dir_off
        for _ in range(n):
            table, n_words, _, _, _, name, extra = struct.unpack(">QIIBBHI", self.at(pos, 24))
            self.use(table, n_words * 8, "bitmap", pos)
            for i, word in enumerate(self.words(table, n_words)):
                if word & OFFSET:
                    self.use(word & OFFSET, self.cluster, "bitmap", table + 8 * i)
            pos += (24 + extra + name + 7) // 8 * 8

    def read_refcounts(self):
        self.use(self.reft, self.n_reft * self.cluster, "table", 48)
        self.counts = {}
        per_block = self.cluster * 8 >> self.order
        width = 1 << self.order
        for i, block in enumerate(self.words(self.reft, self.n_reft * self.cluster // 8)):
            if not block:
                continue
            self.use(block, self.cluster, "table", self.reft + 8 * i)
            raw = self.at(block, self.cluster)
            for k in range(per_block):
                if width >= 8:
                    n = int.from_bytes(raw[k * width // 8:(k + 1) * width // 8], "big")
                else:
                    n = raw[k * width // 8] >> k * width % 8 & (1 << width) - 1
                if n:
                    self.counts[i * per_block + k] = n

    def read_views(self):
        self.read_l1(self.l1, self.l1_size, 40, 0, self.disk)
        pos = self.snap
        for view in range(1, self.n_snap + 1):
            l1, n_l1, n_id, n_name, _, _, _, _, extra = struct.unpack(">QIHHIIQII", self.at(pos, 40))
            disk = self.words(pos + 48, 1)[0] if extra >= 16 else self.disk
            self.read_l1(l1, n_l1, pos, view, disk)
            pos += (40 + extra + n_id + n_name + 7) // 8 * 8
        if self.n_snap:
            self.use(self.snap, pos - self.snap, "table", 64)

    def read_l1(self, off, n, entry, view, disk):
        self.use(off, 8 * n, "table", entry, 0, view)
        for i, word in enumerate(self.words(off, n)):
            if word & OFFSET:
                guest = i * self.per_l2 * self.cluster
                self.use(word & OFFSET, self.cluster, "table", off + 8 * i, guest, view)
                self.read_l2(word & OFFSET, guest, view, disk)

    def read_l2(self, off, guest, view, disk):
        words = self.words(off, self.cluster // 8)
        for i in range(self.per_l2):
            word = words[i * self.entry // 8]
            bitmap = words[2 * i + 1] if self.n_sub > 1 else None
            self.read_entry(word, bitmap, off + i * self.entry, guest + i * self.cluster, view, disk)

    def read_entry(self, word, bitmap, entry, guest, view, disk):
        if word >> 62 & 1:
            n_bits = 62 - (self.bits - 8)
            off = word & (1 << n_bits) - 1
            sectors = (word >> n_bits & (1 << self.bits - 8) - 1) + 1
            self.use(off, (off // 512 + sectors) * 512 - off, "compressed", entry, guest, view)
            return
        off = word & OFFSET
        if not off and not (self.external and word >> 63):
            return
        sub = self.cluster // self.n_sub
        for k in range(self.n_sub):
            if bitmap is None:
                what = "zeroed" if word & 1 else "data"
            else:
                what = "zeroed" if bitmap >> 32 + k & 1 else "data" if bitmap >> k & 1 else "slack"
            self.use_content(off + k * sub, sub, what, entry, guest + k * sub, view, disk)

    def use_content(self, off, n, what, entry, guest, view, disk):
        where = self.outside if self.external else self.uses
        span = self.per_l2 * self.cluster
        state = (disk + span - 1) // span * span
        if guest >= state:
            what = "vm-state" if what == "data" else what
        elif guest >= disk:
            what = "slack"
        elif guest + n > disk:
            self.use(off + disk - guest, n - (disk - guest), "slack", entry, disk, view, disk, where)
            n = disk - guest
        self.use(off, n, what, entry, guest, view, disk, where)

    def expected(self, off, external=False):
        """(owners that may be told, references or None, (view, guest, entry) or None) of a byte"""
        cluster = off // self.cluster
        uses = (self.outside if external else self.uses).get(cluster, [])
        here = [u for u in uses if u[0] <= off < u[1]]
        if here and here[0][2] == "compressed":
            # Lengths are upper bounds: it is the last that begins before.
            start = max(u[0] for u in here)
            here = [u for u in here if u[0] == start]
        if here:
            order = ["data", "vm-state", "zeroed", "slack"]
            if here[0][2] in order:
                here.sort(key=lambda u: (order.index(u[2]), u[4]))
            else:
                here.sort(key=lambda u: u[4])
            best = here[0]
            guest = best[3]
            if guest is not None and best[2] in order:
                guest += off - best[0]
            return {best[2]}, len(here), (best[4], guest, best[5])
        if uses:
            return {"slack"}, None, None
        if not external and cluster in self.counts:
            return {"leaked"}, self.counts[cluster], None
        return {"free", "tail", "host-hole"}, None, None


class Answer:
    """What vdisk says of one file."""
    def __init__(self, runs, size):
        self.runs = runs
        self.i = 0
        at = 0
        for r in runs:
            if r["start"] != at or r["length"] <= 0:
                fail("there is a gap or an overlap at %d" % at)
            at += r["length"]
        if at != size:
            fail("the pieces make up %d bytes, the file has %d" % (at, size))

    def of(self, off):
        while off >= self.runs[self.i]["start"] + self.runs[self.i]["length"]:
            self.i += 1
        return self.runs[self.i]


def fail(text):
    print(text)
    sys.exit(1)


def compare(image, answer, size, external):
    edges = set(range(0, size, 512)) | {r["start"] for r in answer.runs} | {r["start"] + r["length"] - 1 for r in answer.runs}
    n_wrong = 0
    for off in sorted(edges):
        r = answer.of(off)
        owners, refs, place = image.expected(off, external)
        wrong = r["owner"] not in owners or refs not in (None, r["references"])
        if place and not wrong:
            view, guest, entry = place
            content = r["owner"] in ("data", "vm-state", "zeroed", "slack")
            mine = r.get("guest-offset")
            if content and mine is not None:
                mine += off - r["start"]
            wrong = guest is not None and (mine, r.get("view")) != (guest, view)
            if off == r["start"] and entry is not None:
                wrong |= r.get("entry-offset") != entry
        if wrong:
            print("byte %d: wanted %s x %s at %s, got %s" % (off, owners, refs, place, r))
            n_wrong += 1
            if n_wrong == 5:
                break
    if n_wrong:
        sys.exit(1)


def qemu_img(*args):
    return subprocess.run(["qemu-img", *args], stdout=subprocess.PIPE, universal_newlines=True).stdout


def compare_with_qemu(path, image, files):
    """Only what needs no key."""
    if image.crypt:
        return
    # qemu-img names no files with a single layer.
    payload = [name for name in files if (name != os.path.realpath(path)) == image.external]
    for x in json.loads(qemu_img("map", "--output=json", path)):
        if not x["data"] or "offset" not in x or x["depth"]:
            continue
        answer = Answer(files[payload[0]], os.path.getsize(payload[0]))
        for i in range(0, x["length"], 512):
            r = answer.of(x["offset"] + i)
            if r["owner"] != "data" or r["view"] or r["guest-offset"] + x["offset"] + i - r["start"] != x["start"] + i:
                fail("qemu-img has %s, got %s" % (x, r))
    n_snap = max(len(qemu_img("snapshot", "-l", path).splitlines()) - 2, 0)
    views = {r["view"] for runs in files.values() for r in runs if "view" in r}
    if views and max(views) > n_snap:
        fail("there are %d snapshots, but views %s" % (n_snap, views))
    check = json.loads(qemu_img("check", "--output=json", path))
    leaked = sum(r["length"] for r in files[os.path.realpath(path)] if r["owner"] == "leaked")
    if (leaked + image.cluster - 1) // image.cluster != check.get("leaks", 0):
        fail("qemu-img finds %d leaked clusters, here are %d bytes" % (check.get("leaks", 0), leaked))


def main(path, ours):
    image = Image(path)
    image.read_header()
    image.read_refcounts()
    image.read_views()
    files = {}
    for r in json.load(open(ours)):
        files.setdefault(os.path.realpath(r["filename"]), []).append(r)
    for name, runs in files.items():
        external = name != os.path.realpath(path)
        size = os.path.getsize(name)
        # A raw data file is the disk itself.
        if not external or not image.autoclear & 2:
            compare(image, Answer(runs, size), size, external)
    compare_with_qemu(path, image, files)


def make_vm_state(path, disk_size, state_size):
    with open(path, "r+b") as f:
        f.seek(60)
        n_snap, snap = struct.unpack(">IQ", f.read(12))
        f.seek(24)
        f.write(struct.pack(">Q", disk_size))
        pos = snap
        for i in range(n_snap):
            f.seek(pos)
            _, _, n_id, n_name, _, _, _, _, extra = struct.unpack(">QIHHIIQII", f.read(40))
            if i == n_snap - 1:
                f.seek(pos + 32)
                f.write(struct.pack(">I", state_size))
                f.seek(pos + 40)
                f.write(struct.pack(">QQ", state_size, disk_size))
            pos += (40 + extra + n_id + n_name + 7) // 8 * 8


if sys.argv[1] == "--vm-state":
    make_vm_state(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
else:
    main(sys.argv[1], sys.argv[2])
