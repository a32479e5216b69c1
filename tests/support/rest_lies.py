#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A server of restic's REST protocol that does not do as it should, in the way that the first part of the path names.

usage: rest_lies.py PORT-FILE     on a free port of 127.0.0.1, which PORT-FILE is given. /count answers with the number of requests so far.
The one object is of 3 MiB, of which each four bytes hold their number.
"""
import http.server
import os
import re
import struct
import sys
import time

OBJECT = struct.pack("<786432I", *range(786432))
ITEM = '{"name":"%064x","size":3145728}'
tries = {}
count = 0


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *unused):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def cut(self, status, body, at):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:at])
        self.close_connection = True

    def endless(self, begin, piece):
        self.send_response(200 if begin else 206)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        piece = piece * (65536 // len(piece))
        for text in [begin] + [piece] * 100000:
            if text:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))

    def serve(self):
        global count
        if self.path == "/count":
            return self.answer(200, str(count).encode())
        count += 1
        how = self.path.split("/")[1]
        tries[self.path] = tries.get(self.path, 0) + 1
        n = tries[self.path]
        ask = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        body = OBJECT[int(ask[1]):int(ask[2]) + 1] if ask else OBJECT
        is_list = self.path.endswith("/")
        if self.command == "POST":
            self.rfile.read(int(self.headers["Content-Length"]))
        if how == "busy" and n <= 3:
            return self.answer(503, b"come back later")
        if how == "dead":
            return self.answer(503)
        if how == "away":
            return self.answer(302, Location="http://127.0.0.1:%d/right/" % self.server.server_port)
        if how == "denied":
            return self.answer(403)
        if how == "quota" and self.command == "POST":
            return self.answer(413)
        if how == "quota":
            return self.answer(404)
        if how == "cuts" and not is_list and n <= 4:
            return self.cut(206, body, len(body) // 2)
        if how == "page":
            return self.endless(b"<html>", b"<p>no such thing</p>")
        if how == "endless" and is_list:
            return self.endless(b"[" + (ITEM % 1).encode(), b"," + (ITEM % 2).encode())
        if how == "blanks" and is_list:
            return self.endless(b"[", b" ")
        if how == "deep" and is_list:
            return self.endless(b"[", b"[")
        if how == "longname" and is_list:
            return self.endless(b'[{"name":"', b"a")
        if how == "endless":
            return self.endless(b"", b"a")
        if how == "whole":
            return self.answer(200, OBJECT)
        if how == "short":
            return self.answer(206, body[:-1])
        if how == "slow":
            self.send_response(206)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            for i in range(0, len(body), 262144):
                self.wfile.write(body[i:i + 262144])
                time.sleep(0.1)
            return None
        if how == "stuck":
            self.cut(206, body, 10000)
            time.sleep(30)
            return None
        if how == "drip":
            self.cut(206, body, 0)
            for i in range(30):
                self.wfile.write(body[i:i + 1])
                time.sleep(1)
            return None
        if how == "names" and is_list:
            return self.answer(200, ('[%s,{"name":"stray","size":1},{"name":"../../etc/passwd","size":2}]' % ITEM % 7).encode())
        if how == "negative" and is_list:
            return self.answer(200, ('[{"name":"%064x","size":-1}]' % 1).encode())
        if how == "version1" and is_list:
            return self.answer(200, ('["%064x"]' % 1).encode())
        if how == "half" and is_list:
            return self.answer(200, ("[" + ITEM % 1).encode())
        return self.answer(206, body)

    do_GET = do_HEAD = do_POST = do_DELETE = serve


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *unused):
        """Clients that hang up are what is tested."""


server = Server(("127.0.0.1", 0), Handler)
with open(sys.argv[1] + ".new", "w") as f:
    f.write(str(server.server_port))
os.rename(sys.argv[1] + ".new", sys.argv[1])
server.serve_forever()
