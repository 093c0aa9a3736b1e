-- Says how many streams a node has open on a session, and keeps it from expiring while it has some.
--
-- KEYS: the session; streams by node
-- ARGV: the node; its streams; how long that holds, and session_ttl, in ms
-- Returns: the streams on all nodes

local session, nodes = KEYS[1], KEYS[2]
local call = redis.call
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
if ARGV[2] == '0' then
  call('HDEL', nodes, ARGV[1])
else
  call('HSET', nodes, ARGV[1], string.format('%s %.0f', ARGV[2], now + ARGV[3]))
  call('PEXPIRE', nodes, ARGV[3])
end
local sum = 0
local entries = call('HGETALL', nodes)
for i = 1, #entries, 2 do
  local streams, until_ = string.match(entries[i + 1], '^(%d+) (%d+)$')
  if tonumber(until_) > now then
    sum = sum + streams
  else
    call('HDEL', nodes, entries[i])
  end
end
if call('EXISTS', session) == 1 then
  call('HSET', session, 'w', sum)
  if ARGV[2] ~= '0' and call('PTTL', session) < tonumber(ARGV[4]) then
    call('PEXPIRE', session, ARGV[4])
  end
end
return sum
