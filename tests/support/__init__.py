"""The helpers that several tests share.

daemon.py       the daemon as a real process
forkserver.py   starts such a process at once
talk.py         one conversation with the daemon: a request, a stream, an answer
broadcast.py    a hub without HTTP, and sockets that take as much as a test lets them
shelf.py        what a hub leaves to the next one, kept in memory
inprocess.py    the daemon inside the test's own Trio run
proxy.py        a TCP proxy that cuts connections, and remembers the requests through it
http1.py        an HTTP/1.1 client that can be as slow or rude as a test needs it
http2.py        an HTTP/2 client whose flow control is in the hands of the test
http2_frames.py frames of HTTP/2, and floods of them, byte by byte
heads.py        heads that no client sends by mistake
target.py       a daemon that is attacked: configuration, tokens, connections
attacks.py      what strangers and neighbours do to it, one function for each kind
innocents.py    who uses it meanwhile, and must not pay for it
fuzz.py         raw bytes at a socket, and a check that a daemon bears them
following.py    an event stream that is read as it comes
sse.py          an event stream, parsed by the book: the oracle for what the daemon sends
lines.py        the lines that a process writes, read with a deadline
certificate.py  a certificate that nobody but the test trusts
schemathesis_hooks.py  facts of the interface that schemathesis cannot know
measured.py     figures that tests measure, and the file that they go into
scheduling.py   which tests share a worker of pytest-xdist, and which start first
timelimit.py    how a hung test ends, and what it says
tools.py        tools that a test needs and a machine may lack: programs, open files
"""
