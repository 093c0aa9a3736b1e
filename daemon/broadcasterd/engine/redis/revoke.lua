-- Keeps which subjects were revoked, and tells every node what is new.
--
-- KEYS: the revoked subjects, which the channel is named after
-- ARGV: how many are kept at most; then for each revocation: the subject; its Unix time in seconds
-- Returns: how many were new
--
-- The subjects are a sorted set, by the time. One that was revoked later already stays as it is;
-- beyond the bound, those that were revoked first are forgotten.

local revoked = KEYS[1]
local call = redis.call
local new = {}
for i = 2, #ARGV, 2 do
  if call('ZADD', revoked, 'GT', 'CH', ARGV[i + 1], ARGV[i]) == 1 then new[#new + 1] = i end
end
call('ZREMRANGEBYRANK', revoked, 0, -1 - ARGV[1])
for _, i in ipairs(new) do
  call('SPUBLISH', revoked, ARGV[i + 1] .. ' ' .. ARGV[i])
end
return #new
