-- Tells every node that follows a session of events that enough replicas have by now, together with
-- those before them that nobody told of: their node was lost.
--
-- KEYS: the session; its stream
-- ARGV: the incarnation; the number of the newest event that replicas have; the channel
-- Returns: 0 if the session is another one by now, else 1

local session, stream = KEYS[1], KEYS[2]
local call = redis.call
local state = call('HMGET', session, 'i', 'c')
if state[1] ~= ARGV[1] then return 0 end
local told, last = tonumber(state[2]), tonumber(ARGV[2])
if not told or told >= last then return 1 end
call('HSET', session, 'c', string.format('%.0f', last))

-- What came at one time is told at once. It has one form, whoever tells: see publish.lua.
local first, at, events = 0, '', {}
local function tell()
  if #events > 0 then
    local head = string.format('%s %.0f %s %d ', ARGV[1], first, at, #events)
    call('SPUBLISH', ARGV[3], head .. table.concat(events))
  end
end
for _, entry in ipairs(call('XRANGE', stream, string.format('%.0f', told + 1), ARGV[2])) do
  local number, time = string.match(entry[1], '^(%d+)-(%d+)$')
  if time ~= at then
    tell()
    first, at, events = tonumber(number), time, {}
  end
  events[#events + 1] = entry[2][2]
end
tell()
return 1
