-- ACCEPT  KEYS {p}:acc {p}:x:<id>  ARGV field, field of the creation, command, then the statuses that allow it ('': none yet)
-- {'OK', command} | {'EXISTS', the command that was accepted before} | {'STATE', status that does not allow it}
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if stored then return {'EXISTS', stored} end
local status = redis.call('HGET', KEYS[2], 'status')
if not status then status = redis.call('HEXISTS', KEYS[1], ARGV[2]) == 1 and 'PENDING' or '' end
for i = 4, #ARGV do
  if ARGV[i] == status then
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
    return {'OK', ARGV[3]}
  end
end
return {'STATE', status}
