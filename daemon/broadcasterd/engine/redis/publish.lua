-- Publishes events of some sessions: gives them their numbers, or finds that they are duplicates,
-- retains them within the bounds, and tells every node that follows their session: at once, or once
-- replicas have them (tell.lua). One call for many costs half of what one for each does.
--
-- KEYS: for each publication: the session, which its channel is named after; its stream; its
--       idempotency keys
-- ARGV: max_history_events; max_history_bytes; event_ttl and session_ttl in ms; 1 if replicas must
--       have the events first; then for each publication: the incarnation to begin with if there is
--       none; the subject; how many events it has; and for each: it, its ttl in seconds and its
--       idempotency key, each of which may be empty
-- Returns: for each publication, an error, or: incarnation; last number; streams on all nodes; then
--       for each duplicate its place among the events, from 0, and the number that is retained
--
-- The session is a hash: i incarnation, n last number, b bytes retained, o opened at, s subject,
-- a time of the last event, f time of the newest event that a bound took, w streams on all nodes,
-- x ended at, r when the expiry is renewed next, c the last number that nodes were told of, where
-- that waits for replicas. Times are in microseconds. One that was ended has x, and no i.
-- An entry of the stream has the fields e event, t ttl, k key. Its id is number-time: no two
-- events ever have the same, though a number may be given again after a failover.

local call = redis.call
local clock = call('TIME')
local now = clock[1] .. string.format('%06d', clock[2])
local now_us = tonumber(now)  -- for arithmetic; as a text it would be rounded
local max_events, max_bytes = tonumber(ARGV[1]), tonumber(ARGV[2])
local ttl_ms, session_ttl_ms = math.min(ARGV[3], ARGV[4]), tonumber(ARGV[4])
local waits = ARGV[5] == '1'

local function field(entry, name)
  for i = 3, #entry[2], 2 do
    if entry[2][i] == name then return entry[2][i + 1] end
  end
end

-- The number of a retained event with a key: its own ttl may be over.
local function retained(stream, keys, key)
  local seq = call('HGET', keys, key)
  local entry = seq and call('XRANGE', stream, seq, seq)[1]
  if not entry then return nil end
  local ttl = field(entry, 't')
  local at = tonumber(string.match(entry[1], '-(%d+)'))
  local lifetime = ttl_ms * 1000
  if ttl then lifetime = math.min(lifetime, ttl * 1e6) end
  if at + lifetime <= now_us then return nil end
  return tonumber(seq)
end

-- Lets what is over a bound go, in larger steps than one by one; and what is too old. There is an
-- eighth more than the bounds at most. Returns the bytes that are left.
local function trim(session, stream, keys, bytes)
  local count = call('XLEN', stream)
  local oldest_at = now_us - ttl_ms * 1000
  local is_done, left_at = false, nil
  while not is_done do
    local entries = call('XRANGE', stream, '-', '+', 'COUNT', 64)
    local gone, forgotten = nil, {}
    for _, entry in ipairs(entries) do
      local at = string.match(entry[1], '-(%d+)')
      if count <= max_events and bytes <= max_bytes and tonumber(at) > oldest_at then
        is_done = true
        break
      end
      local key = field(entry, 'k')
      if key and call('HGET', keys, key) == string.match(entry[1], '^(%d+)') then
        forgotten[#forgotten + 1] = key
      end
      count, bytes, gone, left_at = count - 1, bytes - #entry[2][2], entry[1], at
    end
    if gone then
      call('XTRIM', stream, 'MINID', string.match(gone, '^(%d+)') + 1)
    end
    if #forgotten > 0 then call('HDEL', keys, unpack(forgotten)) end
    is_done = is_done or #entries < 64
  end
  if left_at then call('HSET', session, 'f', left_at) end
  return bytes
end

-- The events of a publication are in ARGV, where they begin and end. Numbers are written as they
-- are up to 1e14.
local function publish(session, stream, keys, new_incarnation, subject, from, to)
  local state = call('HMGET', session, 'i', 'n', 'b', 'w', 'r', 'a', 'c')
  local incarnation, last, bytes = state[1], tonumber(state[2] or 0), tonumber(state[3] or 0)
  local renew_at, last_at, told = tonumber(state[5] or 0), state[6], state[7]

  -- What takes memory comes first: where there is none, Redis refuses it until a script has
  -- written anything, and then no more.
  if not incarnation then
    incarnation, last, bytes, renew_at, last_at, told = new_incarnation, 0, 0, 0, now, nil
    call('HSET', session, 'i', incarnation, 'o', now)
    call('HDEL', session, 'x', 'w')
    call('DEL', stream, keys)
    if subject ~= '' then call('HSET', session, 's', subject) end
  elseif now_us >= renew_at + ttl_ms * 1000 then
    if last > 0 then call('HSET', session, 'f', last_at or now) end
    call('DEL', stream, keys)  -- all of it was too old
    bytes, renew_at = 0, 0
  end

  local first, fresh, answer = last + 1, {}, {incarnation, 0, state[4] or '0'}
  for i = from, to, 3 do
    local event, ttl, key = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    local known = key ~= '' and retained(stream, keys, key)
    if known then
      answer[#answer + 1] = (i - from) / 3
      answer[#answer + 1] = known
    else
      last = last + 1
      local id = last .. '-' .. now
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
        call('HSET', keys, key, last)
        if call('HLEN', keys) == 1 then renew_at = 0 end
      end
      bytes = bytes + #event
      fresh[#fresh + 1] = event
    end
  end
  answer[2] = last

  local step = math.min(64, math.max(1, math.floor(max_events / 8)))
  local is_full = bytes > max_bytes + math.floor(max_bytes / 8)
  if is_full or math.floor(last / step) > math.floor((first - 1) / step) then
    bytes = trim(session, stream, keys, bytes)
  end

  if waits and not told then
    call('HSET', session, 'c', first - 1)
  elseif told and not waits then
    call('HDEL', session, 'c')  -- other nodes do not wait: all are told
  end
  if #fresh > 0 then last_at = now end
  call('HSET', session, 'n', last, 'b', bytes, 'a', last_at or now)
  if now_us >= renew_at then
    -- Renewed at times only: what expires lives for up to an eighth longer.
    call('HSET', session, 'r', now_us + ttl_ms * 125)
    call('PEXPIRE', session, math.floor(session_ttl_ms + ttl_ms / 8))
    call('PEXPIRE', stream, math.floor(ttl_ms * 9 / 8))
    call('PEXPIRE', keys, math.floor(ttl_ms * 9 / 8))
  end

  if #fresh > 0 and not waits then
    local head = incarnation .. ' ' .. first .. ' ' .. now .. ' ' .. #fresh .. ' '
    call('SPUBLISH', session, head .. table.concat(fresh))
  end
  return answer
end

local answers, next_one = {}, 6
for i = 1, #KEYS, 3 do
  local incarnation, subject = ARGV[next_one], ARGV[next_one + 1]
  local from = next_one + 3
  next_one = from + 3 * ARGV[next_one + 2]
  -- What goes wrong with one session is no concern of the others.
  local is_done, answer = pcall(
    publish, KEYS[i], KEYS[i + 1], KEYS[i + 2], incarnation, subject, from, next_one - 1)
  if not is_done and type(answer) == 'string' then answer = redis.error_reply(answer) end
  answers[#answers + 1] = answer
end
return answers
