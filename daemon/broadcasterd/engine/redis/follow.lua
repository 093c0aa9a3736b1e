-- Begins, or goes on, to follow a session: returns what a node does not have of it.
--
-- KEYS: the session; its stream; its idempotency keys
-- ARGV: the incarnation to begin with if there is none; session_ttl in ms; the channel; the subject;
--       what the node has: incarnation ('' for nothing), last number, and its time ('' if unknown)
-- Returns: 0 if the session was ended; else incarnation; last number; opened at; subject; time of
--       the last event; time of the newest that a bound took; streams on all nodes; the entries
--       that follow
--
-- A node may have more than there is: a failover, or a restart, lost it. Then the log goes on under
-- another incarnation, so that no id is given twice; nodes that follow it are told.
--
-- It is not given what too few replicas have yet: a failover could take that away again.

local session, stream, keys = KEYS[1], KEYS[2], KEYS[3]
local call = redis.call
local clock = call('TIME')
local now = clock[1] .. string.format('%06d', clock[2])
local had, had_last, had_at = ARGV[5], tonumber(ARGV[6]), ARGV[7]
local state = call('HMGET', session, 'i', 'n', 'x', 'c')
local incarnation, last = state[1], tonumber(state[2] or 0)
if state[3] then return 0 end

local function go_on_from(number)
  number = string.format('%.0f', number)
  call('HSET', session, 'n', number)
  if state[4] then call('HSET', session, 'c', number) end
end

local function begin(number)
  incarnation = ARGV[1]
  call('HSET', session, 'i', incarnation)
  go_on_from(number)
end

if not incarnation then
  begin(had == '' and 0 or had_last)
  call('HSET', session, 'o', now, 'b', 0)
  if had ~= '' then call('HSET', session, 'f', now, 'a', now) end
  if ARGV[4] ~= '' then call('HSET', session, 's', ARGV[4]) end
  call('DEL', stream, keys)
elseif had == incarnation then
  local is_other = false
  if had_at ~= '' and had_last > 0 and had_last <= last then
    local id = string.format('%.0f', had_last)
    local entry = call('XRANGE', stream, id, id)[1]
    is_other = entry and entry[1] ~= id .. '-' .. had_at
  end
  if had_last > last or is_other then
    begin(math.max(last, had_last))
    call('SPUBLISH', ARGV[3], '!replaced ' .. incarnation)
  end
elseif had ~= '' and had_last > last then
  go_on_from(had_last)
end
if call('PTTL', session) < tonumber(ARGV[2]) then call('PEXPIRE', session, ARGV[2]) end

state = call('HMGET', session, 'n', 'o', 's', 'a', 'f', 'w', 'c')
last = tonumber(state[1])
local after, until_ = '-', '+'
if had == incarnation then after = string.format('%.0f', had_last + 1) end
if state[7] and tonumber(state[7]) < last then
  last = tonumber(state[7])
  if had == incarnation then last = math.max(last, had_last) end
  until_ = string.format('%.0f', last)
end
local entries = {}
if after == '-' or had_last < last then entries = call('XRANGE', stream, after, until_) end
return {incarnation, last, state[2] or now, state[3] or '', state[4] or '',
  state[5] or '', state[6] or '0', entries}
