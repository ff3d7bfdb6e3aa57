-- decide() and buckets in Lua 5.1 or LuaJIT, without dependencies (docs/gateways.md).
--
-- Policies, requests and routes are tables with the keys of the JSON documents. The module holds
-- to every vector of the sections buckets, arms and decisions.

local M = {}

local floor, byte, char = math.floor, string.byte, string.char
local BUCKETS = 10000

-- 32-bit operations. LuaJIT has them; plain Lua 5.1 has only doubles, and tables of nibbles.
local band, bor, bxor, bnot, rol
local found, bit = pcall(require, "bit")
if found then
  band, bor, bxor, bnot, rol = bit.band, bit.bor, bit.bxor, bit.bnot, bit.rol
else
  local function nibbles(combine)
    local of = {}
    for a = 0, 15 do
      for b = 0, 15 do
        local value, place, x, y = 0, 1, a, b
        for _ = 1, 4 do
          if combine(x % 2, y % 2) then
            value = value + place
          end
          x, y, place = floor(x / 2), floor(y / 2), place * 2
        end
        of[a * 16 + b] = value
      end
    end
    return function(a, b)
      local value, place = 0, 1
      for _ = 1, 8 do
        local x, y = a % 16, b % 16
        value = value + of[x * 16 + y] * place
        a, b, place = (a - x) / 16, (b - y) / 16, place * 16
      end
      return value
    end
  end
  band = nibbles(function(x, y) return x + y == 2 end)
  bor = nibbles(function(x, y) return x + y > 0 end)
  bxor = nibbles(function(x, y) return x + y == 1 end)
  bnot = function(a) return 4294967295 - a end
  rol = function(a, count)
    local high = floor(a / 2 ^ (32 - count))
    return (a * 2 ^ count) % 4294967296 + high
  end
end

-- The first 32 bits of SHA-1 (FIPS 180-4) as a number: all that a bucket needs of it.
local function sha1_head(message)
  local length = #message
  message = message .. "\128" .. ("\0"):rep((55 - length) % 64)
  local bits, tail = length * 8, ""
  for _ = 1, 8 do
    tail = char(bits % 256) .. tail
    bits = floor(bits / 256)
  end
  message = message .. tail
  local h0, h1, h2, h3, h4 = 0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0
  local w = {}
  for at = 1, #message, 64 do
    for i = 0, 15 do
      local a, b, c, d = byte(message, at + i * 4, at + i * 4 + 3)
      w[i] = a * 16777216 + b * 65536 + c * 256 + d
    end
    for i = 16, 79 do
      w[i] = rol(bxor(bxor(w[i - 3], w[i - 8]), bxor(w[i - 14], w[i - 16])), 1)
    end
    local a, b, c, d, e = h0, h1, h2, h3, h4
    for i = 0, 79 do
      local f, k
      if i < 20 then
        f, k = bor(band(b, c), band(bnot(b), d)), 0x5A827999
      elseif i < 40 then
        f, k = bxor(bxor(b, c), d), 0x6ED9EBA1
      elseif i < 60 then
        f, k = bor(bor(band(b, c), band(b, d)), band(c, d)), 0x8F1BBCDC
      else
        f, k = bxor(bxor(b, c), d), 0xCA62C1D6
      end
      local sum = (rol(a, 5) % 4294967296 + f % 4294967296 + e + k + w[i] % 4294967296) % 4294967296
      a, b, c, d, e = sum, a, rol(b, 30) % 4294967296, c, d
    end
    h0, h1, h2 = (h0 + a) % 4294967296, (h1 + b) % 4294967296, (h2 + c) % 4294967296
    h3, h4 = (h3 + d) % 4294967296, (h4 + e) % 4294967296
  end
  return h0
end

-- A session's bucket, 0 to 9999. The vector is bucket_of("s1", "abc") == 9688.
function M.bucket_of(salt, key)
  return sha1_head(salt .. "." .. key) % BUCKETS
end

-- The arm of a session (one of publication.arms) and its bucket.
function M.choose_arm(publication, session_id)
  local bucket, edge = M.bucket_of(publication.salt, session_id), 0
  for _, arm in ipairs(publication.arms) do
    edge = edge + arm.weight
    if bucket < edge then
      return arm, bucket
    end
  end
  return publication.arms[#publication.arms], bucket
end

local compare = {
  ["<"] = function(a, b) return a < b end,
  ["<="] = function(a, b) return a <= b end,
  [">"] = function(a, b) return a > b end,
  [">="] = function(a, b) return a >= b end,
  ["=="] = function(a, b) return a == b end,
  ["!="] = function(a, b) return a ~= b end,
  ["in"] = function(a, list)
    for _, b in ipairs(list) do
      if a == b then
        return true
      end
    end
    return false
  end,
}

local function holds(policy, condition, request)
  local name = condition.field == "input_tokens" and policy.measure or condition.field
  local actual, value = request[name], condition.value
  if name == "org_path" and condition.op == "==" then
    return actual == value or actual:sub(1, #value + 1) == value .. "/"
  end
  return compare[condition.op](actual, value)
end

local function all_hold(policy, rule, request)
  for _, condition in ipairs(rule.when or {}) do
    if not holds(policy, condition, request) then
      return false
    end
  end
  return true
end

local function route_to(model, rule_id, effort, request)
  local as_requested = model == nil or model == ""
  return {
    model = as_requested and request.requested_model or model,
    rule_id = rule_id,
    effort = effort or "",
    as_requested = as_requested,
  }
end

local function match(policy, request)
  for _, rule in ipairs(policy.rules) do
    if all_hold(policy, rule, request) then
      return route_to(rule.set.model, rule.id, rule.set.effort, request)
    end
  end
  return route_to((policy.default or {}).model, "default", "", request)
end

local function locks_tool_loops(policy)
  return (policy.guards or {}).tool_loop_lock ~= false
end

local function is_kept(policy, request, previous)
  if policy.unit == "session" or policy.unit == "agent" then
    return true
  end
  if (previous.run_requests or 1) < ((policy.guards or {}).min_run_requests or 0) then
    return true
  end
  if locks_tool_loops(policy) and request.in_tool_loop then
    return true
  end
  return policy.unit == "user_turn" and not request.starts_user_turn
end

-- The route of one request under one policy; `previous` is the kept route of its unit, or nil.
function M.decide(policy, request, previous)
  local route
  if previous and is_kept(policy, request, previous) then
    route = {
      model = previous.as_requested and request.requested_model or previous.model,
      rule_id = previous.rule_id,
      effort = previous.effort,
      as_requested = previous.as_requested,
    }
  else
    route = match(policy, request)
  end
  local ceiling = ((policy.guards or {}).max_context_tokens or {})[route.model]
  if ceiling and request.total_input_tokens > ceiling then
    route = route_to("", "guard:max_context_tokens", "", request)
  end
  route.run_requests = 1
  if previous and previous.model == route.model then
    route.run_requests = (previous.run_requests or 1) + 1
  end
  return route
end

-- What a route is kept under: the session, and "" or the agent.
function M.unit_key(policy, request)
  if request.request_class == "auxiliary" then
    return request.session_id, "~auxiliary"
  end
  if policy.unit == "session" then
    return request.session_id, ""
  end
  return request.session_id, request.agent_id
end


return M
