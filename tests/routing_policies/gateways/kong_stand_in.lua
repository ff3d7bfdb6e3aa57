-- What the plugin uses of Kong's plugin development kit, over OpenResty's API. Kong itself is not
-- packaged for the machines that run these tests; its PDK documents these calls.
local M = {}

function M.kong()
  local plugin = ngx.ctx.plugin or {}
  ngx.ctx.plugin = plugin
  return {
    ctx = { plugin = plugin },
    log = { warn = function(...) ngx.log(ngx.WARN, ...) end },
    request = {
      get_method = ngx.req.get_method,
      get_path = function() return ngx.var.uri end,
      get_header = function(name) return ngx.req.get_headers()[name] end,
      get_raw_body = function()
        ngx.req.read_body()
        return ngx.req.get_body_data() -- nil where it lies in a file, as in Kong
      end,
    },
    service = {
      request = {
        set_raw_body = ngx.req.set_body_data,
        set_header = ngx.req.set_header,
        clear_header = ngx.req.clear_header,
      },
    },
    response = {
      get_header = function(name) return ngx.header[name] end,
      set_header = function(name, value) ngx.header[name] = value end,
      exit = function(status, body, headers)
        for name, value in pairs(headers or {}) do
          ngx.header[name] = value
        end
        ngx.status = status
        ngx.print(body)
        return ngx.exit(status)
      end,
    },
  }
end

return M
