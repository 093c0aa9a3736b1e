-- Publishes events of one session: gives them their numbers, or finds that they are duplicates,
-- retains them within the bounds, and tells every node that follows the session: at once, or once
-- replicas have them (tell.lua).
--
-- KEYS: the session; its stream; its idempotency keys
-- ARGV: the incarnation to begin with if there is none; max_history_events; max_history_bytes;
--       event_ttl and session_ttl in ms; the channel; the subject; 1 if replicas must have them
--       first; then for each event: it, its ttl in seconds and its idempotency key, each of which
--       may be empty
-- Returns: incarnation; last number; streams on all nodes; then for each duplicate its place among
--       the events, from 0, and the number that is retained
--
-- The session is a hash: i incarnation, n last number, b bytes retained, o opened at, s subject,
-- a time of the last event, f time of the newest event that a bound took, w streams on all nodes,
-- x ended at, r when the expiry is renewed next, c the last number that nodes were told of, where
-- that waits for replicas. Times are in microseconds.
-- An entry of the stream has the fields e event, t ttl, k key. Its id is number-time: no two
-- events ever have the same, though a number may be given again after a failover.

local session, stream, keys = KEYS[1], KEYS[2], KEYS[3]
local call = redis.call
local clock = call('TIME')
local now = clock[1] .. string.format('%06d', clock[2])
local state = call('HMGET', session, 'i', 'n', 'b', 'w', 'x', 'r', 'a', 'c')
local incarnation, last, bytes = state[1], tonumber(state[2] or 0), tonumber(state[3] or 0)
local renew_at, ttl_ms = tonumber(state[6] or 0), math.min(ARGV[4], ARGV[5])
local changes = {}

if not incarnation or state[5] then
  call('DEL', session, stream, keys)
  incarnation, last, bytes, renew_at = ARGV[1], 0, 0, 0
  state[8] = nil
  changes = {'i', incarnation, 'o', now}
  if ARGV[7] ~= '' then changes[5], changes[6] = 's', ARGV[7] end
elseif tonumber(now) >= renew_at + ttl_ms * 1000 then
  call('DEL', stream, keys)  -- all of it was too old
  bytes, renew_at = 0, 0
  if last > 0 then changes = {'f', state[7] or now} end
end

local function field(entry, name)
  for i = 3, #entry[2], 2 do
    if entry[2][i] == name then return entry[2][i + 1] end
  end
end

-- The number of a retained event with a key: its own ttl may be over.
local function retained(key)
  local seq = call('HGET', keys, key)
  local entry = seq and call('XRANGE', stream, seq, seq)[1]
  if not entry then return nil end
  local ttl = field(entry, 't')
  local at = tonumber(string.match(entry[1], '-(%d+)'))
  local lifetime = ttl_ms * 1000
  if ttl then lifetime = math.min(lifetime, ttl * 1e6) end
  if at + lifetime <= tonumber(now) then return nil end
  return tonumber(seq)
end

local first, fresh, answer = last + 1, {}, {incarnation, 0, state[4] or '0'}
for i = 9, #ARGV, 3 do
  local event, ttl, key = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local known = key ~= '' and retained(key)
  if known then
    answer[#answer + 1] = (i - 9) / 3
    answer[#answer + 1] = known
  else
    last = last + 1
    local id = string.format('%.0f-', last) .. now
    if ttl == '' and key == '' then
      call('XADD', stream, id, 'e', event)
    elseif key == '' then
      call('XADD', stream, id, 'e', event, 't', ttl)
    elseif ttl == '' then
      call('XADD', stream, id, 'e', event, 'k', key)
    else
      call('XADD', stream, id, 'e', event, 't', ttl, 'k', key)
    end
    if key ~= '' then
      call('HSET', keys, key, string.format('%.0f', last))
      if call('HLEN', keys) == 1 then renew_at = 0 end
    end
    bytes = bytes + #event
    fresh[#fresh + 1] = event
  end
end
answer[2] = last

-- What is over a bound goes, in larger steps than one by one; and what is too old. There is an
-- eighth more than the bounds at most.
local max_events, max_bytes = tonumber(ARGV[2]), tonumber(ARGV[3])
local step = math.min(64, math.max(1, math.floor(max_events / 8)))
local is_full = bytes > max_bytes + math.floor(max_bytes / 8)
if is_full or math.floor(last / step) > math.floor((first - 1) / step) then
  local count = call('XLEN', stream)
  local oldest_at = tonumber(now) - ttl_ms * 1000
  local is_done, left_at = false, nil
  while not is_done do
    local entries = call('XRANGE', stream, '-', '+', 'COUNT', 64)
    local gone, forgotten = nil, {}
    for _, entry in ipairs(entries) do
      local at = tonumber(string.match(entry[1], '-(%d+)'))
      if count <= max_events and bytes <= max_bytes and at > oldest_at then
        is_done = true
        break
      end
      local event = entry[2][2]
      local key = field(entry, 'k')
      if key and call('HGET', keys, key) == string.match(entry[1], '^(%d+)') then
        forgotten[#forgotten + 1] = key
      end
      count, bytes, gone, left_at = count - 1, bytes - #event, entry[1], string.format('%.0f', at)
    end
    if gone then
      local seq = string.match(gone, '^(%d+)')
      call('XTRIM', stream, 'MINID', string.format('%.0f', tonumber(seq) + 1))
    end
    if #forgotten > 0 then call('HDEL', keys, unpack(forgotten)) end
    is_done = is_done or #entries < 64
  end
  if left_at then
    changes[#changes + 1] = 'f'
    changes[#changes + 1] = left_at
  end
end

local waits = ARGV[8] == '1'
if waits and not state[8] then
  changes[#changes + 1] = 'c'
  changes[#changes + 1] = string.format('%.0f', first - 1)
elseif state[8] and not waits then
  call('HDEL', session, 'c')  -- other nodes do not wait: all are told
end
if #fresh > 0 then
  changes[#changes + 1] = 'a'
  changes[#changes + 1] = now
end
changes[#changes + 1] = 'n'
changes[#changes + 1] = string.format('%.0f', last)
changes[#changes + 1] = 'b'
changes[#changes + 1] = string.format('%.0f', bytes)
if tonumber(now) >= renew_at then
  -- Renewed at times only: what expires lives for up to an eighth longer.
  changes[#changes + 1] = 'r'
  changes[#changes + 1] = string.format('%.0f', tonumber(now) + ttl_ms * 125)
  call('HSET', session, unpack(changes))
  call('PEXPIRE', session, math.floor(ARGV[5] + ttl_ms / 8))
  call('PEXPIRE', stream, math.floor(ttl_ms * 9 / 8))
  call('PEXPIRE', keys, math.floor(ttl_ms * 9 / 8))
else
  call('HSET', session, unpack(changes))
end

if #fresh > 0 and not waits then
  local head = string.format('%s %.0f %s %d ', incarnation, first, now, #fresh)
  call('SPUBLISH', ARGV[6], head .. table.concat(fresh))
end
return answer
