-- INSTALL  KEYS install  ARGV partitions, task partitions, incarnation ('' when unknown), version. The first writer wins,
-- but for the incarnation, which is the newest known. {partitions, task_partitions, incarnation, version}
redis.call('HSETNX', KEYS[1], 'partitions', ARGV[1])
redis.call('HSETNX', KEYS[1], 'task_partitions', ARGV[2])
redis.call('HSETNX', KEYS[1], 'version', ARGV[4])
local i = redis.call('HMGET', KEYS[1], 'partitions', 'task_partitions', 'incarnation', 'version')
if ARGV[3] ~= '' and tonumber(i[4]) <= tonumber(ARGV[4]) then
  redis.call('HSET', KEYS[1], 'incarnation', ARGV[3])
  i[3] = ARGV[3]
end
return {i[1], i[2], i[3] or '', i[4]}
