-- Ends a session on every node; its name is remembered for as long as a session that is not used.
--
-- KEYS: the session; its stream; its idempotency keys; streams by node
-- ARGV: session_ttl in ms; the channel
-- Returns: 1, or 0 if there is none of that name and was none

local session = KEYS[1]
local call = redis.call
if call('EXISTS', session) == 0 then return 0 end
call('DEL', session, KEYS[2], KEYS[3], KEYS[4])
call('HSET', session, 'x', call('TIME')[1])
call('PEXPIRE', session, ARGV[1])
call('SPUBLISH', ARGV[2], '!ended')
return 1
