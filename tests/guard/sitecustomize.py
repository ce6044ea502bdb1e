"""No socket but loopback: an audit hook that refuses every other address, and writes down who
asked.

conftest.py imports this file, and puts its folder on PYTHONPATH, so that Python runs it first in
every process that a test starts. A library may swallow the refusal; the list in the file named by
DISTILL_SOCKETS tells all the same, and a fixture fails the test. A hook cannot be taken out again,
and sees what monkeypatching `socket` would miss.
"""

import os
import socket
import sys

LOOPBACK = {"localhost", "127.0.0.1", "::1", "ip6-localhost", None, ""}
LOOPBACK.add(os.uname().nodename)  # its own name: launchers ask what the machine is called
WHO = {
    "socket.connect": 1,
    "socket.bind": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
    "socket.getaddrinfo": 0,
}
WHO |= {"socket.gethostbyname": 0, "socket.gethostbyaddr": 0}


def refuse_strangers(event, args):
    if event not in WHO:
        return
    where = args[WHO[event]]
    if WHO[event] == 1:
        if args[0].family not in (socket.AF_INET, socket.AF_INET6) or where is None:
            return  # a Unix socket, a pipe between processes
        where = where[0]
    host = where.decode() if isinstance(where, bytes) else where
    if host in LOOPBACK or str(host).startswith("127."):
        return
    if "DISTILL_SOCKETS" in os.environ:
        with open(os.environ["DISTILL_SOCKETS"], "a") as file:  # noqa: PTH123 - this runs at every start
            file.write(f"{event} {host}\n")
    raise OSError(f"{event} {host}: the tests open no socket but loopback")


sys.addaudithook(refuse_strangers)
