-- DEFINE  KEYS names, the definition  ARGV name, versions as they were read ('': none), versions ('': remove it all),
-- hash of a document, the document ('': drop it). 1; 0 when others changed the versions meanwhile: read them again.
local stored = redis.call('HGET', KEYS[2], 'versions') or ''
if stored == ARGV[3] then return 1 end -- the caller's own retry after a lost reply
if stored ~= ARGV[2] then return 0 end
if ARGV[3] == '' then
  redis.call('DEL', KEYS[2])
  redis.call('ZREM', KEYS[1], ARGV[1])
  return 1
end
if ARGV[5] == '' then
  redis.call('HDEL', KEYS[2], 'd:' .. ARGV[4])
else
  redis.call('HSET', KEYS[2], 'd:' .. ARGV[4], ARGV[5])
end
redis.call('HSET', KEYS[2], 'versions', ARGV[3])
redis.call('ZADD', KEYS[1], 0, ARGV[1])
return 1
