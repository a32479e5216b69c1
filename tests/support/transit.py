#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A key server with the part of HashiCorp Vault's HTTP interface that wraps secrets: the transit engine's keys, encrypt,
decrypt, rewrap, rotate and config. Behaves as that does, refusals included; keeps everything in memory.

usage: transit.py PORT-FILE TOKEN-FILE [CERT KEY]      listens on a free port of 127.0.0.1, and writes which to PORT-FILE

Mounts named lie-... answer what a server should not: lie-truncated, lie-huge, lie-text, lie-types, lie-short, lie-slow,
lie-redirect. The mount sealed answers as a sealed server does.
"""
import base64
import json
import os
import ssl
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE = 12
keys = {}
token = open(sys.argv[2]).read().strip()


class Refusal(Exception):
    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


class Key:
    """One named key: its versions count from 1, and those below min_decryption_version decrypt nothing."""

    def __init__(self):
        self.versions = [AESGCM.generate_key(256)]
        self.min_decryption_version = 1

    def encrypt(self, plain):
        nonce = os.urandom(NONCE)
        body = nonce + AESGCM(self.versions[-1]).encrypt(nonce, plain, None)
        return {"ciphertext": f"vault:v{len(self.versions)}:{base64.b64encode(body).decode()}", "key_version": len(self.versions)}

    def decrypt(self, ciphertext):
        parts = ciphertext.split(":")
        if len(parts) != 3 or parts[0] != "vault" or parts[1][:1] != "v":
            raise Refusal(400, "invalid ciphertext: no prefix")
        try:
            version = int(parts[1][1:])
            body = base64.b64decode(parts[2], validate=True)
        except ValueError:
            raise Refusal(400, "invalid ciphertext: could not decode it") from None
        if version > len(self.versions):
            raise Refusal(400, "invalid ciphertext: version is too new")
        if version < self.min_decryption_version:
            raise Refusal(400, "ciphertext or signature version is disallowed by policy (too old)")
        try:
            return AESGCM(self.versions[version - 1]).decrypt(body[:NONCE], body[NONCE:], None)
        except (InvalidTag, ValueError):
            # Vault answers so since its version 1.5, and in three lines.
            raise Refusal(500, "1 error occurred:\n\t* cipher: message authentication failed\n\n") from None


def from_base64(text):
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, TypeError):
        raise Refusal(400, "failed to base64-decode plaintext") from None


def transit(path, body):
    """What path, split at the slashes behind the mount, does."""
    name = path[1] if len(path) > 1 else ""
    if path[0] == "keys" and len(path) == 2:
        keys.setdefault(name, Key())
        return None
    key = keys.get(name)
    if key is None:
        raise Refusal(400, "encryption key not found")
    if path[0] == "encrypt":
        return key.encrypt(from_base64(body.get("plaintext")))
    if path[0] == "decrypt":
        return {"plaintext": base64.b64encode(key.decrypt(body.get("ciphertext", ""))).decode()}
    if path[0] == "rewrap":
        return key.encrypt(key.decrypt(body.get("ciphertext", "")))
    if path[0] == "keys" and path[2:] == ["rotate"]:
        key.versions.append(AESGCM.generate_key(256))
        return None
    if path[0] == "keys" and path[2:] == ["config"]:
        key.min_decryption_version = int(body["min_decryption_version"])
        return None
    raise Refusal(404, "unsupported path")


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body, length=None, location=None):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) if length is None else length))
        if location:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(body)

    def data(self, data):
        self.answer(200, json.dumps({"request_id": "0", "lease_id": "", "renewable": False, "lease_duration": 0, "data": data,
                                     "wrap_info": None, "warnings": None, "auth": None}).encode())

    def lie(self, how):
        if how == "truncated":
            self.answer(200, b'{"data":{"plain', 500)
            self.close_connection = True
        elif how == "huge":
            self.answer(200, b'{"data":{"plaintext":"' + b"A" * (8 << 20) + b'","ciphertext":"vault:v1:' + b"A" * (8 << 20) + b'"}}')
        elif how == "text":
            self.answer(200, b"<html>It works!</html>")
        elif how == "types":
            self.data({"plaintext": 7, "ciphertext": ["vault:v1:AAAA"]})
        elif how == "short":
            self.data({"plaintext": "", "ciphertext": ""})
        elif how == "slow":
            time.sleep(30)
        elif how == "redirect":
            self.answer(307, b"", location=self.path.replace("lie-redirect", "transit"))

    def do_POST(self):
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.strip("/").split("/")
        try:
            if path[0] != "v1" or len(path) < 3:
                raise Refusal(404, "no handler for route")
            if path[1].startswith("lie-"):
                return self.lie(path[1][4:])
            if path[1] == "sealed":
                raise Refusal(503, "Vault is sealed")
            if self.headers.get("X-Vault-Token", "") != token:
                raise Refusal(403, "permission denied")
            if path[1] != "transit":
                raise Refusal(404, "no handler for route '" + "/".join(path[1:]) + "'")
            data = transit(path[2:], json.loads(text or b"{}"))
            if data is None:
                self.send_response(204)
                self.end_headers()
            else:
                self.data(data)
        except Refusal as r:
            self.answer(r.status, json.dumps({"errors": [str(r)]}).encode())

    do_PUT = do_POST


server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
server.daemon_threads = True
if len(sys.argv) > 4:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[3], sys.argv[4])
    server.socket = context.wrap_socket(server.socket, server_side=True)
with open(sys.argv[1] + ".new", "w") as f:
    f.write(str(server.server_address[1]))
os.rename(sys.argv[1] + ".new", sys.argv[1])
server.serve_forever()
