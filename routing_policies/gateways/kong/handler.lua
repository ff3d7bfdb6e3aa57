-- turnwise as a Kong plugin: asks the edge proxy on this machine about each Messages request.
--
-- The edge proxy verifies the policies' signatures, reads the request, decides, fits the
-- parameters and writes the log (docs/gateways.md). What goes wrong here, or takes longer than
-- `timeout_ms`, leaves the request as it came.

local Turnwise = { PRIORITY = 800, VERSION = "0.1.0" } -- after authentication, before ai-proxy

-- Headers of the client that the decision may depend on.
local TOLD = {
  "anthropic-beta", "x-claude-code-session-id", "x-claude-code-agent-id",
  "x-claude-code-agent-type", "x-claude-code-request-class",
  "x-tw-org", "x-tw-repo", "x-tw-developer",
}
local STAMPS = { "request-id", "x-turnwise-policy", "x-turnwise-arm", "x-turnwise-budget" }

local function read_body()
  local body = kong.request.get_raw_body()
  if body then
    return body
  end
  local path = ngx.req.get_body_file() -- larger than nginx keeps in memory
  local file = path and io.open(path, "rb")
  if not file then
    return nil
  end
  body = file:read("*a")
  file:close()
  return body
end

local function request_to(conf, body)
  local lines = {
    "POST /turnwise/decide HTTP/1.1", "host: " .. conf.edge_host,
    "content-type: application/json", "content-length: " .. #body,
  }
  for _, name in ipairs(TOLD) do
    local value = kong.request.get_header(name)
    if value and not value:find("[\r\n]") then
      lines[#lines + 1] = name .. ": " .. value
    end
  end
  return { table.concat(lines, "\r\n"), "\r\n\r\n", body }
end

local function read_answer(socket)
  local line, problem = socket:receive("*l")
  local status = line and tonumber(line:match("^HTTP/1%.1 (%d%d%d)"))
  if not status then
    return nil, problem or "no HTTP"
  end
  local headers = {}
  while true do
    line, problem = socket:receive("*l")
    if not line then
      return nil, problem
    end
    if line == "" then
      break
    end
    local name, value = line:match("^([^:]+):%s*(.-)%s*$")
    if name then
      headers[name:lower()] = value
    end
  end
  local length = tonumber(headers["content-length"] or "0")
  local body = ""
  if status ~= 204 and length > 0 then
    body, problem = socket:receive(length)
    if not body then
      return nil, problem
    end
  end
  return { status = status, headers = headers, body = body }
end

-- The edge proxy's answer, or nil and what went wrong.
local function ask(conf, body)
  local socket = ngx.socket.tcp()
  socket:settimeouts(conf.timeout_ms, conf.timeout_ms, conf.timeout_ms)
  local ok, problem = socket:connect(conf.edge_host, conf.edge_port)
  if not ok then
    return nil, problem
  end
  local sent
  sent, problem = socket:send(request_to(conf, body))
  if not sent then
    socket:close()
    return nil, problem
  end
  local answer
  answer, problem = read_answer(socket)
  if not answer then
    socket:close()
    return nil, problem
  end
  socket:setkeepalive(30000, 100)
  return answer
end

function Turnwise:access(conf)
  if kong.request.get_method() ~= "POST" or kong.request.get_path() ~= "/v1/messages" then
    return
  end
  local body = read_body()
  if not body or body == "" then
    return
  end
  local answer, problem = ask(conf, body)
  if not answer or (answer.status ~= 200 and answer.status ~= 204 and answer.status ~= 402) then
    kong.log.warn("turnwise was not asked: ", problem or answer.status)
    return
  end
  local stamps = {}
  for _, name in ipairs(STAMPS) do
    stamps[name] = answer.headers[name]
  end
  kong.ctx.plugin.stamps = stamps
  if answer.status == 402 then
    stamps["content-type"] = "application/json"
    stamps["x-should-retry"] = "false"
    return kong.response.exit(402, answer.body, stamps)
  end
  if answer.status == 200 then
    kong.service.request.set_raw_body(answer.body)
    local betas = answer.headers["x-turnwise-beta"]
    if betas then
      kong.service.request.set_header("anthropic-beta", betas)
    else
      kong.service.request.clear_header("anthropic-beta")
    end
  end
end

function Turnwise:header_filter(_)
  local stamps = kong.ctx.plugin.stamps
  if not stamps or not stamps["request-id"] then
    return
  end
  local upstream_id = kong.response.get_header("request-id")
  for name, value in pairs(stamps) do
    kong.response.set_header(name, value)
  end
  if upstream_id and upstream_id ~= stamps["request-id"] then
    kong.response.set_header("x-upstream-request-id", upstream_id)
  end
end

return Turnwise
