-- One exchange of a process with the account of one quota: omega-policy/src/lease/ledger.rs, line by line, in Redis.
-- A test runs both on the same exchanges and compares every answer.
--
-- KEYS[1]  a hash: the account in the field `s`, and what is remembered of each process in `m:<name>`, as MessagePack
-- KEYS[2]  a sorted set: when each process was last seen
-- ARGV[1]  the process    ARGV[2]  the request, as JSON
-- Answers the grant, as JSON. The clock is this server's alone; everything has an end of life.

local EXPIRY, RESTING, DEBT_MINUTES, RESUMED, CLOSED_KEPT, FEW = 2, 90, 5, 2, 60, 4
local AGAIN, ASKS_WITHIN = 0.5, 1.1
-- So many of the expired are forgotten at once: an exchange stays short whatever happened before it.
local FORGET_MAX = 50

local max, min = math.max, math.min
local name, ask = ARGV[1], cjson.decode(ARGV[2])
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000

local function load(field)
  local packed = redis.call('HGET', KEYS[1], field)
  return packed and cmsgpack.unpack(packed) or nil
end

local s = load('s') or {
  epoch = 0, touched = 0, learning = 0, learns_since = 0, learned = false, era = 0, members = 0, weights = 0, turns = 0,
  buckets = {}, slots = {}, pauses = {}, circuits = {},
}

local function without(line, gone)
  local kept = {}
  for _, waiting in ipairs(line) do
    if waiting ~= gone then kept[#kept + 1] = waiting end
  end
  return kept
end

local function give_back(bucket, amount)
  if bucket.level < 0 and bucket.depth < FEW * amount then return end
  local room = bucket.depth - bucket.held - bucket.level
  bucket.level = bucket.level + max(min(amount, room), 0)
end

local function forget(gone, h)
  s.members = max(s.members - 1, 0)
  if s.members == 0 then s.weights = 0 else s.weights = max(s.weights - h.weight, 0) end
  for key, held in pairs(h.buckets) do
    local bucket = s.buckets[key]
    if bucket and h.era == s.era then
      bucket.held = max(bucket.held - held.held, 0)
      give_back(bucket, held.late)
    end
  end
  for model, has in pairs(h.slots) do
    local slots = s.slots[model]
    if slots then
      slots.held = max(slots.held - has[1], 0)
      slots.wanted = max(slots.wanted - has[2], 0)
      if has[2] > 0 then slots.wanting = max(slots.wanting - 1, 0) end
      slots.line = without(slots.line, gone)
    end
  end
  for model, has in pairs(h.circuits) do
    local circuit = s.circuits[model]
    if circuit and circuit.turn == has[1] then circuit.probes = max(circuit.probes - has[2], 0) end
  end
end

local function refill(bucket)
  if now > bucket.as_of then
    local room = bucket.depth - bucket.held - bucket.level
    bucket.level = bucket.level + max(min((now - bucket.as_of) * bucket.limit / 60, room), 0)
    bucket.as_of = now
  end
end

local function take_down_to(bucket, floor, amount)
  local before = bucket.level
  bucket.level = max(before - amount, min(floor, before))
  if bucket.limit > 0 then
    bucket.put_off = (bucket.put_off or 0) + max(min(before, 0) - bucket.level, 0) * 60 / bucket.limit
  end
end

local function take(bucket, amount)
  take_down_to(bucket, -DEBT_MINUTES * bucket.limit, amount)
end

local function take_what_is_left(bucket, amount)
  take_down_to(bucket, -bucket.held, amount)
end

local function learn_until(ends)
  s.learning = ends
  s.touched = ends
  for _, bucket in pairs(s.buckets) do bucket.as_of = ends end
end

local function learn()
  s.learned = true
  s.era = s.era + 1
  s.learns_since = now
  for _, bucket in pairs(s.buckets) do bucket.level, bucket.held = 0, 0 end
  learn_until(now + EXPIRY)
end

local function wait_for()
  local ends = min(now + ASKS_WITHIN, s.learns_since + 2 * EXPIRY)
  if ask.away and ask.away_for > now - s.learns_since and ends > s.learning then learn_until(ends) end
end

local function list(items)
  if #items == 0 then return '[]' end
  return cjson.encode(items)
end

local function answer(stale, buckets, slots, pauses, circuits)
  return '{"seq":' .. string.format('%.0f', ask.seq) .. ',"stale":' .. tostring(stale)
    .. ',"at":' .. string.format('%.17g', now) .. ',"epoch":' .. string.format('%.0f', s.epoch)
    .. ',"learning":' .. cjson.encode(max(s.learning - now, 0))
    .. ',"members":' .. string.format('%.0f', s.members) .. ',"weights":' .. cjson.encode(s.weights)
    .. ',"buckets":' .. list(buckets) .. ',"slots":' .. list(slots)
    .. ',"pauses":' .. list(pauses) .. ',"circuits":' .. list(circuits) .. '}'
end

for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf',
  '(' .. string.format('%.17g', now - EXPIRY), 'LIMIT', 0, FORGET_MAX)) do
  local h = load('m:' .. gone)
  if h then forget(gone, h) end
  redis.call('HDEL', KEYS[1], 'm:' .. gone)
  redis.call('ZREM', KEYS[2], gone)
end

local me = load('m:' .. name)
if s.epoch == 0 then
  s.epoch = math.floor(now * 1000) + 1
  s.touched = now
end
if me and ask.seq <= me.seq then
  return answer(true, {}, {}, {}, {})
end
local rolled_back = ask.acked > 0
  and ((me and me.seq < ask.acked) or (not me and not ask.away and now - s.touched > EXPIRY)) or false
local other_epoch = ask.epoch ~= 0 and ask.epoch ~= s.epoch and not s.learned
local nobody_here = ask.away and now - s.touched > (s.touched > s.learning and EXPIRY or AGAIN)
if now < s.learning then
  wait_for()
elseif rolled_back or other_epoch or nobody_here then
  learn()
end
local returns = me and me.era == s.era and not rolled_back
if not me then
  me = { seq = 0, since = now, weight = 0, era = s.era, buckets = {}, slots = {}, circuits = {} }
  s.members = s.members + 1
end
if me.era ~= s.era then
  me.era = s.era
  for _, held in pairs(me.buckets) do held.held, held.late, held.granted = 0, 0, 0 end
end
s.weights = s.weights + ask.weight - me.weight
local unheard = me.seq > ask.acked
me.weight, me.seen, me.seq, me.label = ask.weight, now, ask.seq, ask.label
local is_learning = now < s.learning

local function debit(bucket, mine, grant)
  local ahead = max(bucket.as_of - now, 0)
  local by_then = max(bucket.level + max(EXPIRY - ahead, 0) * bucket.limit / 60, 0)
  if not (grant.whole and grant.starts <= EXPIRY) then
    mine.late = mine.late + math.floor(max(grant.amount - by_then, 0))
  end
  bucket.level = bucket.level - grant.amount
  bucket.held = bucket.held + grant.amount
  mine.held, mine.granted = mine.held + grant.amount, grant.amount
  grant.level = bucket.level
  return grant
end

local function exchange_bucket(a)
  local key = a.dimension .. '/' .. a.model
  local bucket = s.buckets[key]
  if not bucket then
    bucket = {
      level = is_learning and 0 or a.depth, as_of = max(now, s.learning),
      limit = a.limit, depth = a.depth, held = 0, put_off = 0,
    }
    s.buckets[key] = bucket
  end
  refill(bucket)
  bucket.limit, bucket.depth = a.limit, a.depth
  local mine = me.buckets[key] or { held = 0, late = 0, granted = 0, owed = 0, returned = 0 }
  local owed, returned = max(a.owed, 0), a.returned
  if unheard then
    bucket.held = max(bucket.held - mine.granted, 0)
    mine.held = max(mine.held - mine.granted, 0)
    give_back(bucket, mine.granted)
    owed, returned = max(owed - mine.owed, 0), returned - mine.returned
  end
  local holding, late = a.holding, a.late
  if is_learning then holding, late = 0, 0 end
  bucket.held = max(bucket.held - mine.held + holding, 0)
  if not is_learning and not rolled_back then
    if not returns then returned = 0 end
    if ask.away then
      local part = min((now - s.learning) / max(ask.away_for, 0.001), 1)
      take_what_is_left(bucket, max(owed * part - returned, 0))
      give_back(bucket, max(returned - owed * part, 0))
    else
      take(bucket, owed)
      give_back(bucket, max(returned, 0))
    end
  end
  if a.at_most then bucket.level = min(bucket.level, a.at_most) end
  bucket.level = min(bucket.level, max(bucket.depth - bucket.held, 0))
  mine = { held = holding, late = late, granted = 0, owed = a.owed, returned = a.returned }
  me.buckets[key] = mine
  local grant = {
    amount = 0, ready = 0, starts = 0, whole = false, refused_for = 0, level = bucket.level, put_off = bucket.put_off or 0,
  }
  if a.want <= 0 or is_learning or ask.rests or ask.leaves or bucket.limit <= 0 then return grant end
  local pace = bucket.limit / 60
  local ahead = max(bucket.as_of - now, 0)
  if a.least > bucket.depth then
    local wait = max((bucket.depth - bucket.held - bucket.level) / pace, 0) + ahead
    if wait > a.patience then
      grant.refused_for = wait
      return grant
    end
    grant.amount, grant.starts, grant.whole = a.least, wait, true
    return debit(bucket, mine, grant)
  end
  local amount
  if a.least <= 0 then
    if bucket.level < a.want then return grant end
    amount = a.want
  else
    local missing = a.least - bucket.level
    local wait = missing > 0 and missing / pace + ahead or 0
    if wait > a.patience then
      grant.refused_for = wait
      return grant
    end
    local in_time = math.floor(bucket.level + max(a.patience - ahead, 0) * pace)
    amount = max(min(a.want, in_time), a.least)
  end
  grant.amount, grant.ready = amount, min(max(bucket.level, 0), amount)
  grant.starts = max(-bucket.level / pace, 0) + ahead
  return debit(bucket, mine, grant)
end

local function exchange_slots(a)
  local slots = s.slots[a.model] or { held = 0, wanted = 0, wanting = 0, line = {} }
  s.slots[a.model] = slots
  local has = me.slots[a.model] or { 0, 0 }
  slots.held = max(slots.held - has[1], 0)
  slots.wanted = max(slots.wanted - has[2], 0) + a.want
  slots.wanting = max(slots.wanting - (has[2] > 0 and 1 or 0), 0) + (a.want > 0 and 1 or 0)
  local ahead = #slots.line
  for at, waiting in ipairs(slots.line) do
    if waiting == name then
      ahead = at - 1
      break
    end
  end
  local free = max(a.limit - slots.held, 0)
  free = max(max(free - ahead, 0), min(a.in_flight, free))
  local allowed = min(a.want, free)
  if slots.wanted > a.limit then
    local others = slots.wanted - a.want
    local even = max(math.floor(a.limit / max(slots.wanting, 1)), 1)
    local part = math.floor(a.limit * a.want / slots.wanted)
    allowed = min(allowed, max(max(even, part), max(a.limit - others, 0)))
  end
  slots.line = without(slots.line, name)
  if allowed == 0 and a.want > 0 and a.in_flight == 0 then
    table.insert(slots.line, min(ahead, #slots.line) + 1, name)
  end
  local holds = max(allowed, a.in_flight)
  slots.held = slots.held + holds
  me.slots[a.model] = { holds, a.want }
  local line = false
  for _, waiting in ipairs(slots.line) do
    if waiting ~= name then line = true end
  end
  return { allowed = allowed, line = line }
end

local function exchange_circuit(a)
  local circuit = s.circuits[a.model] or { turn = 0, open = false, ['until'] = 0, probes = 0 }
  local follows = a.turn == circuit.turn or circuit.turn == 0
  local turned = a.turned
  if type(turned) == 'table' and turned.opened and follows then
    s.turns = s.turns + 1
    circuit = { turn = s.turns, open = true, ['until'] = now + turned.opened, probes = 0 }
  elseif turned == 'closed' and follows and circuit.open then
    s.turns = s.turns + 1
    circuit = { turn = s.turns, open = false, ['until'] = now + CLOSED_KEPT, probes = 0 }
  end
  s.circuits[a.model] = circuit
  local known = me.circuits[a.model] or { 0, 0 }
  local had = known[1] == circuit.turn and known[2] or 0
  local has = a.turn == circuit.turn and min(a.probes, had) or 0
  circuit.probes = max(circuit.probes - had, 0) + has
  if circuit.open and now >= circuit['until'] and a.wants_probe and circuit.probes < max(a.max_probes, 1) then
    has, circuit.probes = has + 1, circuit.probes + 1
  end
  me.circuits[a.model] = { circuit.turn, has }
end

local buckets, slots, pauses, circuits = {}, {}, {}, {}
for _, a in ipairs(ask.buckets) do buckets[#buckets + 1] = exchange_bucket(a) end
for _, a in ipairs(ask.slots) do slots[#slots + 1] = exchange_slots(a) end
for _, pause in ipairs(ask.pauses) do
  local known = s.pauses[pause.model]
  local ends = now + pause.seconds
  if not known or ends > known['until'] then
    s.pauses[pause.model] = { ['until'] = ends, spent = pause.spent }
    local suffix = '/' .. pause.model
    for key, bucket in pairs(s.buckets) do
      if not pause.spent and string.sub(key, string.find(key, '/', 1, true), -1) == suffix then
        refill(bucket)
        bucket.as_of = max(bucket.as_of, ends - RESUMED)
      end
    end
  end
end
for _, a in ipairs(ask.circuits) do exchange_circuit(a) end
for model, pause in pairs(s.pauses) do
  if pause['until'] > now then
    pauses[#pauses + 1] = { model = model, seconds = pause['until'] - now, spent = pause.spent }
  else
    s.pauses[model] = nil
  end
end
for model, circuit in pairs(s.circuits) do
  if not (circuit.open or circuit['until'] > now) then s.circuits[model] = nil end
end
if not ask.away then s.touched = max(s.touched, now) end
if ask.rests then me.seen = now + RESTING - EXPIRY end
if ask.leaves then forget(name, me) end
for model, circuit in pairs(s.circuits) do
  if circuit.turn > 0 then
    local known = me.circuits[model] or { 0, 0 }
    circuits[#circuits + 1] = {
      model = model, turn = circuit.turn, open = circuit.open,
      left = circuit.open and max(circuit['until'] - now, 0) or 0,
      probes = known[1] == circuit.turn and known[2] or 0,
    }
  end
end

local kept = RESTING
for _, bucket in pairs(s.buckets) do
  if bucket.limit > 0 then kept = max(kept, (bucket.depth - bucket.level) / bucket.limit * 60) end
end
for _, pause in pairs(s.pauses) do kept = max(kept, pause['until'] - now) end
for _, circuit in pairs(s.circuits) do kept = max(kept, circuit['until'] - now) end
local life = string.format('%.0f', math.ceil(2000 * kept))

redis.call('HSET', KEYS[1], 's', cmsgpack.pack(s))
if ask.leaves then
  redis.call('HDEL', KEYS[1], 'm:' .. name)
  redis.call('ZREM', KEYS[2], name)
else
  redis.call('HSET', KEYS[1], 'm:' .. name, cmsgpack.pack(me))
  redis.call('ZADD', KEYS[2], string.format('%.17g', me.seen), name)
  redis.call('PEXPIRE', KEYS[2], life)
end
redis.call('PEXPIRE', KEYS[1], life)
return answer(false, buckets, slots, pauses, circuits)
