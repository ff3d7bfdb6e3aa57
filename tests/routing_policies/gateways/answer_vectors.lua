-- Reads vectors as a Lua table (first argument) and writes one answer a line; run by the tests.

local turnwise = dofile(arg[2])
local vectors = dofile(arg[1])

local function write(...)
  io.write(table.concat({ ... }, "\t"), "\n")
end

for _, case in ipairs(vectors.buckets) do
  write(turnwise.bucket_of(case.salt, case.key))
end
for _, case in ipairs(vectors.arms) do
  local arms = {}
  for index, row in ipairs(case.arms) do
    arms[index] = { name = row[1], weight = row[2] }
  end
  local arm, bucket = turnwise.choose_arm({ salt = case.salt, arms = arms }, case.key)
  write(arm.name, bucket)
end
for _, case in ipairs(vectors.decisions) do
  local policy = vectors.policies[case.policy]
  local route = turnwise.decide(policy, case.request, case.previous)
  local session, agent = turnwise.unit_key(policy, case.request)
  write(route.model, route.rule_id, route.effort, tostring(route.as_requested),
    route.run_requests, session, agent)
end
