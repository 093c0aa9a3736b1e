"""Tasks and channels: the owner of each state, and the way of an event to its subscribers.

A session task owns one session: its log and its subscribers. Publishers reach it through a
bounded channel, everything else through synchronous methods, which no other task can
interleave with. There is no lock here, and nothing that could need one.
"""
