-- CONDEMN  KEYS {p}:m {p}:q {p}:cl {p}:hb {p}:qa and the outboxes  ARGV nonce, token, holder, counter, where
-- Judges again and takes the claim away, in one step; a token that was condemned before stays so. 1 when condemned.
-- holder '': an orphan, so unclaimed, in no outbox, and last sent to `where` (unless that is '*').
if redis.call('HGET', KEYS[1], 'own') ~= ARGV[1] then return 0 end
if redis.call('HEXISTS', KEYS[2], ARGV[2]) == 0 then return 0 end
local claim = redis.call('HGET', KEYS[3], ARGV[2])
local holder = claim and string.match(claim, '^(.*)|') or ''
if holder == 'condemned' then return 1 end
if holder ~= ARGV[3] then return 0 end
if holder ~= '' then
  if (redis.call('HGET', KEYS[4], holder) or '') ~= ARGV[4] then return 0 end
else
  for i = 6, #KEYS do
    if redis.call('ZSCORE', KEYS[i], ARGV[2]) then return 0 end
  end
  if ARGV[5] ~= '*' and (redis.call('HGET', KEYS[5], ARGV[2]) or '') ~= ARGV[5] then return 0 end
end
local time = redis.call('TIME')
redis.call('HSET', KEYS[3], ARGV[2], string.format('condemned|%.0f', time[1] * 1000 + math.floor(time[2] / 1000)))
return 1
