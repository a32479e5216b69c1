#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A TLS server that reads one request, sends what a file holds, whatever the request was, and closes the connection.

usage: tls_reply.py PORT-FILE CERT KEY REPLY [SECONDS]     on a free port of 127.0.0.1, which PORT-FILE is given; SECONDS: waits
                                                           so long before it answers
"""
import os
import socket
import ssl
import sys
import time

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2], sys.argv[3])
server = socket.create_server(("127.0.0.1", 0))
with open(sys.argv[1] + ".new", "w") as f:
    f.write(str(server.getsockname()[1]))
os.rename(sys.argv[1] + ".new", sys.argv[1])
while True:
    plain, _ = server.accept()
    try:
        with context.wrap_socket(plain, server_side=True) as link:
            link.recv(65536)
            if len(sys.argv) > 5:
                time.sleep(float(sys.argv[5]))
            with open(sys.argv[4], "rb") as f:
                link.sendall(f.read())
            link.unwrap()
    except OSError:
        pass
