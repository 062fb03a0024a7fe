-- The account of one quota and every process in it, as JSON, for people.
-- KEYS[1]  the hash of lease.lua
local clock = redis.call('TIME')
local ledger, holders = nil, {}
local fields = redis.call('HGETALL', KEYS[1])
for at = 1, #fields, 2 do
  local field, record = fields[at], cmsgpack.unpack(fields[at + 1])
  if field == 's' then
    ledger = record
  else
    holders[string.sub(field, 3)] = record
  end
end
if not ledger then return '{"now":0,"ledger":{},"holders":{}}' end
return cjson.encode({ now = clock[1] + clock[2] / 1000000, ledger = ledger, holders = holders })
