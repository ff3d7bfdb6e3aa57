-- The plugin's configuration. `edge_host` should be this machine: requests go there whole.
local typedefs = require "kong.db.schema.typedefs"

return {
  name = "turnwise",
  fields = {
    { consumer = typedefs.no_consumer },
    { protocols = typedefs.protocols_http },
    { config = {
        type = "record",
        fields = {
          { edge_host = { type = "string", required = true, default = "127.0.0.1" } },
          { edge_port = { type = "integer", required = true, default = 4319, between = { 1, 65535 } } },
          { timeout_ms = { type = "integer", required = true, default = 500, between = { 1, 60000 } } },
        },
    } },
  },
}
