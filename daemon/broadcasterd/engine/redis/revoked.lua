-- Returns a page of the subjects that were revoked, each followed by its Unix time in seconds.
--
-- KEYS: the revoked subjects
-- ARGV: how many to leave out; how many to return at most
--
-- The newest come first: what comes or is renewed meanwhile moves others to pages that follow, so
-- that none is left out.

local first = tonumber(ARGV[1])
return redis.call('ZREVRANGE', KEYS[1], first, first + ARGV[2] - 1, 'WITHSCORES')
